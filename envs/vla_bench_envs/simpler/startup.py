"""Start ManiSkill quietly, on the pinned versions, ready to draw; nothing of it is imported before."""

import importlib.metadata
from functools import cache
from importlib import import_module
from typing import Any

from vla_bench_envs.libero.startup import quiet
from vla_bench_envs.simpler import assets
from vla_bench_envs.simpler.errors import MissingSimulatorError, SimulatorVersionError
from vla_bench_envs.simpler.protocols import CAMERA, SimplerProtocol
from vla_bench_envs.simpler.shading import mark_covered, set_picture_formats, shader_config
from vla_bench_envs.simpler.vulkan import prepare_driver, render_system

VERSIONS = {"mani_skill": "3.0.1", "sapien": "3.0.3"}
"""On which the suite is defined: ManiSkill decides resets, control and predicates, SAPIEN physics and pixels."""

NATIVE_PX = (640, 480)
"""Width and height of the camera. Source: ManiSkill 3.0.1, `bridge_dataset_eval/base_env.py`."""


def check_versions() -> None:
    """Refuse a simulator that is not the suite's.

    Raises:
        MissingSimulatorError: If it is not installed.
        SimulatorVersionError: If it is another version.
    """
    for package, expected in VERSIONS.items():
        try:
            found = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError as caught:
            raise MissingSimulatorError(ImportError(str(caught), name=package)) from caught
        if found != expected:
            raise SimulatorVersionError(package, found, expected)


@cache
def twin_class(env_id: str) -> type[Any]:
    """Return ManiSkill's environment of that name, changed where it must be.

    * Nothing is drawn at `step` and `reset`; see `pictures`.
    * What the photograph covers is drawn without colour; see `shading`.
    * Drawing happens on the device that SAPIEN itself prefers.
    * What is left out of the overlay, and the photograph, belong to the instance. In ManiSkill 3.0.1 both live in the
      class, so a second environment of one process takes the first one's robot and objects for its own.

    Raises:
        MissingSimulatorError: If ManiSkill cannot be imported.
        SimulatorVersionError: If it is another version.
    """
    check_versions()
    prepare_driver()
    try:
        with quiet():
            import_module("mani_skill.envs")  # registers its environments
            parent: Any = import_module("mani_skill.utils.registration").REGISTERED_ENVS[env_id].cls
    except ImportError as caught:
        raise MissingSimulatorError(caught) from caught

    class Twin(parent):
        def __init__(self, **kwargs: Any) -> None:
            self._rgb_overlay_images = {}
            self._objects_to_remove_from_greenscreen = []
            super().__init__(**kwargs)

        def _setup_scene(self) -> None:
            self._render_device = self.backend.render_device = render_system().device
            super()._setup_scene()

        def _setup_sensors(self, options: dict[str, Any]) -> None:
            set_picture_formats(self)
            super()._setup_sensors(options)

        def _after_reconfigure(self, options: dict[str, Any]) -> None:
            super()._after_reconfigure(options)
            mark_covered(self)

        def get_obs(self, *_: Any, **__: Any) -> dict[str, Any]:
            return {}

    return Twin


def asset_sources() -> dict[str, Any]:
    """Return ManiSkill's list of what can be downloaded, by name.

    Raises:
        MissingSimulatorError: If ManiSkill cannot be imported.
    """
    check_versions()
    prepare_driver()
    try:
        with quiet():
            return import_module("mani_skill.utils.assets.data").DATA_SOURCES
    except ImportError as caught:
        raise MissingSimulatorError(caught) from caught


def make_simulator(env_id: str, protocol: SimplerProtocol, in_two_passes: bool = True) -> Any:
    """Return ManiSkill's `BaseBridgeEnv` of a task, on PhysX's processor back end.

    Args:
        env_id: ManiSkill's name of the environment.
        protocol: Says shader and size.
        in_two_passes: Whether what the photograph covers stays without colour, where the shader lets it.

    Raises:
        MissingSimulatorError: If ManiSkill cannot be imported.
        MissingAssetsError: If its files are not there.
        MissingVulkanError: If nothing can draw.
    """
    made = twin_class(env_id)
    assets.check()
    with quiet():
        return made(
            num_envs=1,
            obs_mode="rgb+segmentation",
            sim_backend="physx_cpu",
            render_backend="cpu",
            sensor_configs={
                "shader_config": shader_config(protocol.shader, in_two_passes),
                CAMERA: _camera(protocol.reduction),
            },
        )


def _camera(reduction: int) -> dict[str, Any]:
    """Return what a camera of fewer pixels changes: the same view, pixel centres at half integers."""
    if reduction == 1:
        return {}
    import numpy as np

    width, height = (side // reduction for side in NATIVE_PX)
    focal, centre_x, centre_y = 623.588 / reduction, *((c + 0.5) / reduction - 0.5 for c in (319.501, 239.545))
    intrinsic = np.array([[focal, 0, centre_x], [0, focal, centre_y], [0, 0, 1]])
    return {"width": width, "height": height, "intrinsic": intrinsic}
