"""Presets of everything that decides an episode besides policy, task and initial state.

Sources are files of simpler-env/SimplerEnv at 4ab7178 and of its submodule ManiSkill2_real2sim at ef7a4d4.
"""

from dataclasses import dataclass, replace
from typing import Literal

from vla_bench.protocol import Protocol

CAMERA = "overhead_camera"
"""The camera on the robot's head. Source: SimplerEnv, `simpler_env/utils/env/observation_utils.py`."""

CONTROL_HZ = 3.0
"""Control steps per simulated second. Source: every `scripts/rt1_*.sh`, `--control-freq 3`."""

CONTROL_MODE = (
    "arm_pd_ee_delta_pose_align_interpolate_by_planner_gripper_pd_joint_target_delta_pos_interpolate_by_planner"
)
"""Source: SimplerEnv, `simpler_env/utils/env/env_builder.py`, `get_robot_control_mode`."""

STILL = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
"""Ask the arm for where it is, and leave the gripper's target alone."""


@dataclass(frozen=True)
class GoogleProtocol(Protocol):
    """A protocol with what the Google robot's evaluation has to decide besides.

    `settle_steps` is 0: the simulator lets objects come to rest inside of its reset. `render` has no meaning here: a
    start says which shader draws it.
    """

    image_width: int = 640
    """Width of the pictures [px]; `image_size` is their height."""

    success: Literal["end", "once"] = "end"
    """When the predicate is judged: at the horizon, as SIMPLER does, or at every step, which ends the episode."""

    sim_hz: int = 513
    """Steps of physics per simulated second. Source: `scripts/rt1_*.sh`, `--sim-freq 513`."""

    robot: str = "google_robot_static"
    """Source: `scripts/rt1_*.sh`, `--robot`."""

    control_mode: str = CONTROL_MODE
    """How arm and gripper follow an action."""

    @property
    def picture_px(self) -> tuple[int, int]:
        """Return height and width of the pictures [px]."""
        return self.image_size, self.image_width

    @property
    def resting_gripper(self) -> float:
        """Return 0, which leaves the gripper's target alone: what lies between 0 and 1 closes it further each time."""
        return 0.0


_SIMPLER = GoogleProtocol(
    name="simpler",
    cameras=(CAMERA,),
    image_size=512,  # agents/configs/google_robot/defaults.py, `cameras`: width=640, height=512
    rotate_180=False,
    settle_steps=0,
    settle_action=STILL,
    control_hz=CONTROL_HZ,
    gripper="close_is_positive",
    success="end",  # simpler_env/evaluation/maniskill2_evaluator.py: what the last step before the end said
)

PROTOCOLS: dict[str, GoogleProtocol] = {
    preset.name: preset for preset in (_SIMPLER, replace(_SIMPLER, name="simpler-once", success="once"))
}
"""Presets by name: the published judgement, and ours, which ends an episode at its first success."""
