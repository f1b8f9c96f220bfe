"""Draw what cameras see, at the moment that was captured.

robosuite draws at every control step, whether somebody looks or not. Drawing has two halves: assembling a scene from
the simulator's state (0.02 ms, on the CPU) and rasterising it (10 to 140 ms in software). `capture` does the first, at
the substep at which robosuite would draw; `draw` does the second when a picture is read, from the assembled scene. The
simulator may have moved on by then. The calls into MuJoCo are robosuite's own, so the pictures are equal bit for bit.
"""
# MuJoCo's compiled module has no stubs.
# pyright: reportAttributeAccessIssue=false

import atexit
import os
import weakref
from typing import Any

import numpy as np

from vla_bench.errors import MissingGraphicsError
from vla_bench.protocol import RenderProfile
from vla_bench_envs.libero.startup import quiet

MAX_GEOMS = 1000
"""Capacity of a scene. Source: robosuite 1.4.0, `binding_utils.MjRenderContext`."""

VISUAL_GEOM_GROUP, COLLISION_GEOM_GROUP = 1, 0
"""Geom groups that are shown and hidden. Source: robosuite 1.4.0, `MujocoEnv._reset_internal`."""

_open: "weakref.WeakSet[Cameras]" = weakref.WeakSet()


class Cameras:
    """The cameras of one compiled model. The OpenGL context is made when the first picture is drawn."""

    def __init__(self, model: Any, data: Any, names: tuple[str, ...], size: int, profile: RenderProfile) -> None:
        """Prepare one scene a camera; `size` is height and width of a picture [px]."""
        self._model, self._data = model, data
        self._size, self._profile = size, profile
        self._views = {name: _View(model, name, profile) for name in names}
        self._graphics: Graphics | None = None

    def capture(self) -> None:
        """Assemble every camera's scene from the state as it is now."""
        for view in self._views.values():
            view.capture(self._model, self._data)

    def draw(self, name: str) -> np.ndarray:
        """Return the captured picture (size, size, 3) of a camera as OpenGL has it: `uint8`, lowest row first."""
        return self.graphics.draw(self._views[name].scene)

    @property
    def graphics(self) -> "Graphics":
        """Return the OpenGL context, and make it at the first call: 1 to 3 s, mostly texture upload.

        Raises:
            MissingGraphicsError: If no off-screen context can be made.
        """
        if self._graphics is None:
            self._graphics = Graphics(self._model, self._size, self._profile)
            if not _open:
                atexit.register(_close_all)  # after MuJoCo registered its own: runs before the display is closed
            _open.add(self)
        return self._graphics

    def close(self) -> None:
        """Free the OpenGL context; pictures that were not drawn are lost."""
        if self._graphics is not None:
            self._graphics.close()
            self._graphics = None


class _View:
    """What one camera sees, ready to be drawn."""

    def __init__(self, model: Any, name: str, profile: RenderProfile) -> None:
        import mujoco

        self.scene = mujoco.MjvScene(model, maxgeom=MAX_GEOMS)
        self.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = int(profile.reflections)
        self._camera = mujoco.MjvCamera()
        self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
        self._camera.fixedcamid = model.camera(name).id
        self._shown = mujoco.MjvOption()
        self._shown.geomgroup[COLLISION_GEOM_GROUP] = 0
        self._shown.geomgroup[VISUAL_GEOM_GROUP] = 1
        self._perturbation = mujoco.MjvPerturb()
        self._update, self._everything = mujoco.mjv_updateScene, mujoco.mjtCatBit.mjCAT_ALL

    def capture(self, model: Any, data: Any) -> None:
        self._update(model, data, self._shown, self._perturbation, self._camera, self._everything, self.scene)


class Graphics:
    """An off-screen OpenGL context that holds one model's meshes and textures."""

    def __init__(self, model: Any, size: int, profile: RenderProfile) -> None:
        """Simplify the model's visual meshes as the profile says, then upload it.

        Raises:
            MissingGraphicsError: If no off-screen context can be made.
        """
        import mujoco
        from OpenGL.error import Error as OpenGLError

        if profile.mesh_fraction < 1:
            from vla_bench_envs.libero.mesh_cache import decimate

            decimate(model, profile.mesh_fraction)
        if not profile.multisampling:
            model.vis.quality.offsamples = 0
        model.vis.global_.offwidth = model.vis.global_.offheight = size
        try:
            with quiet():
                self._context = mujoco.GLContext(size, size)
                self._context.make_current()
            self._uploaded = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_150)
            mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._uploaded)
        except (AttributeError, ImportError, RuntimeError, OpenGLError, mujoco.FatalError) as caught:
            backend = os.environ.get("MUJOCO_GL", "")
            raise MissingGraphicsError(backend, f"{type(caught).__name__}: {caught}") from caught
        self._viewport = mujoco.MjrRect(0, 0, size, size)
        self._render, self._read = mujoco.mjr_render, mujoco.mjr_readPixels

    def draw(self, scene: Any) -> np.ndarray:
        """Return the picture of an assembled scene, lowest row first."""
        self._context.make_current()
        self._render(self._viewport, scene, self._uploaded)
        pixels = np.empty((self._viewport.height, self._viewport.width, 3), dtype=np.uint8)
        self._read(pixels, None, self._viewport, self._uploaded)
        return pixels

    def renderer(self) -> str:
        """Return the driver's name and version, which decide pixels."""
        from OpenGL import GL

        self._context.make_current()
        return f"{_text(GL.glGetString(GL.GL_RENDERER))}; {_text(GL.glGetString(GL.GL_VERSION))}"

    def close(self) -> None:
        """Free what the driver holds."""
        self._context.make_current()
        self._uploaded.free()
        self._context.free()


def _text(found: bytes | None) -> str:
    return found.decode() if found else "unknown"


def _close_all() -> None:
    for cameras in list(_open):
        cameras.close()
