"""Pictures of the tabletop, drawn from a state that the physics sent: drawing never holds physics up."""
# MuJoCo's compiled module has no stubs.
# pyright: reportAttributeAccessIssue=false

from collections.abc import Mapping
from typing import Any

import numpy as np

from vla_bench.protocol import RenderProfile
from vla_bench_envs.libero.rendering import Cameras
from vla_bench_envs.libero.startup import prepare_process
from vla_bench_envs.robot.limits import Limits
from vla_bench_envs.robot.tabletop.scene import CAMERAS, scene

PROFILE = RenderProfile(name="tabletop", multisampling=False, reflections=False)
"""No meshes, no anti-aliasing: what software OpenGL draws in milliseconds."""


class Pictures:
    """The scene's cameras on a model of their own."""

    def __init__(self, limits: Limits, size_px: int, scene_cameras: Mapping[str, str] | None = None) -> None:
        """Compile the scene; the OpenGL context is made with the first picture, in the thread that asks for it.

        `scene_cameras` are the scene's cameras by the names under which they are shown; none means their own.
        """
        prepare_process()
        import mujoco

        model: Any = mujoco.MjModel.from_xml_string(scene(limits))
        self._data: Any = mujoco.MjData(model)
        self._model, self._pose, self._light = model, mujoco.mj_kinematics, mujoco.mj_camlight
        self._sources = dict(scene_cameras or {name: name for name in CAMERAS})
        self._cameras = Cameras(model, self._data, CAMERAS, size_px, PROFILE)
        self.captured_ns: dict[str, int] = {}
        """Empty: a picture is of the moment of the state that it is drawn from."""

    @property
    def names(self) -> tuple[str, ...]:
        """Return the cameras."""
        return tuple(self._sources)

    def draw(self, state: np.ndarray | None) -> dict[str, np.ndarray]:
        """Return a picture (size, size, 3) `uint8`, upright, by camera, of the positions of a plant; none without."""
        if state is None:
            return {}
        self._data.qpos[:] = state
        self._pose(self._model, self._data)
        self._light(self._model, self._data)
        self._cameras.capture()
        return {name: np.ascontiguousarray(self._cameras.draw(own)[::-1]) for name, own in self._sources.items()}

    def close(self) -> None:
        """Free the OpenGL context."""
        self._cameras.close()
