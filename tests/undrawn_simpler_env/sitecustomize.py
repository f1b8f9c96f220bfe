"""Take drawing out of the official simpler_env, so that its physics, controllers and predicates run without a GPU.

SAPIEN 2.2.2 refuses to draw on a processor (SwiftShader). With this folder on the PYTHONPATH of the interpreter with
simpler_env, pictures are grey, there are neither lights nor materials, and a stage whose file is missing is a box of
the table's size (`_load_arena_helper`, `dummy_tabletop`). Everything else is the package's own. For tests only.
"""

from typing import Any

import mani_skill2_real2sim.envs.sapien_env as simulation
import numpy as np
import sapien.core as sapien
from gymnasium import spaces
from mani_skill2_real2sim.envs.custom_scenes import (
    base_env,
    grasp_single_in_scene,
    move_near_in_scene,
    open_drawer_in_scene,
)

LAYERS = {"Color": np.float32, "Position": np.float32, "Segmentation": np.uint32}


class Renderer:
    """Draws nothing."""

    def __init__(self, **_: Any) -> None: ...

    def set_log_level(self, level: str) -> None: ...


class Camera:
    """Sees grey."""

    def __init__(self, config: Any, scene: Any, renderer_type: str, articulation: Any = None) -> None:
        self.shape = (config.height, config.width, 4)

    def take_picture(self) -> None: ...

    def get_images(self, take_picture: bool = False) -> dict[str, np.ndarray]:
        """Return every layer, half bright."""
        return {name: np.full(self.shape, 0.5).astype(dtype) for name, dtype in LAYERS.items()}

    def get_params(self) -> dict[str, np.ndarray]:
        """Return nothing."""
        return {}

    @property
    def observation_space(self) -> spaces.Dict:
        """Return the space of the layers."""
        return spaces.Dict({name: spaces.Box(0, 255, self.shape, dtype) for name, dtype in LAYERS.items()})


def nothing(*_: Any, **__: Any) -> None:
    """Do nothing."""


loaded = base_env.CustomSceneEnv._load_arena_helper


def load_arena(self: Any, add_collision: bool = True) -> None:
    """Load the stage, or a box where the table is."""
    stage = self.scene_root / "stages" / f"{self.scene_name}.glb"
    if "dummy" in self.scene_name or stage.exists():
        loaded(self, add_collision)
        return
    builder = self._scene.create_actor_builder()
    pose, half_size = sapien.Pose([-0.295, 0.21, 0.017 + 0.865 / 2]), np.array([0.63, 0.615, 0.865]) / 2
    if add_collision:
        builder.add_box_collision(pose=pose, half_size=half_size)
    self.arena = builder.build_static(name="arena")


sapien.SapienRenderer = Renderer
sapien.Engine.set_renderer = nothing
simulation.Camera = Camera
simulation.BaseEnv.update_render = nothing
base_env.set_articulation_render_material = nothing
base_env.CustomSceneEnv._load_arena_helper = load_arena
for lit in (
    simulation.BaseEnv,
    open_drawer_in_scene.OpenDrawerInSceneEnv,
    grasp_single_in_scene.GraspSingleInSceneEnv,
    move_near_in_scene.MoveNearInSceneEnv,
):
    lit._setup_lighting = nothing
