"""A read-only view of a SIMPLER scene, in the frame of the robot's base: z up, x away from the robot, in metres."""

from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from vla_bench_envs.simpler.stage import END_EFFECTOR


class Scene:
    """Poses and sizes of one simulator. Make a new one after each reset."""

    def __init__(self, simulator: Any) -> None:
        """Read `simulator`, ManiSkill's `BaseBridgeEnv`."""
        self.simulator = simulator
        self.source: str = simulator.source_obj_name
        self.target: str = simulator.target_obj_name
        self._robot = simulator.agent.robot
        self._base_from_world = self._robot.root.pose.inv()

    @property
    def tool(self) -> tuple[np.ndarray, Rotation]:
        """Return position and base_from_tool of the end effector: x points to the finger tips, it closes along y."""
        return _parts(self._base_from_world * self._robot.links_map[END_EFFECTOR].pose)

    @property
    def commanded(self) -> tuple[np.ndarray, Rotation]:
        """Return the pose that the controller moves the end effector to, from which an action counts."""
        return _parts(self.simulator.agent.controller.controllers["arm"]._target_pose)

    @property
    def fingers_m(self) -> float:
        """Return the position of the finger that has moved least from open (0.037) [m]."""
        return float(self._robot.get_qpos()[0, -2:].max())

    def pose(self, name: str) -> tuple[np.ndarray, Rotation]:
        """Return position and base_from_object of an object."""
        return _parts(self._base_from_world * self.simulator.objs[name].pose)

    def size(self, name: str) -> np.ndarray:
        """Return the lengths of an object's bounds along its own axes [m]."""
        return self.simulator.episode_model_bbox_sizes[name].numpy().astype(np.float64)


def _parts(pose: Any) -> tuple[np.ndarray, Rotation]:
    position, quaternion = pose.p[0].numpy().astype(np.float64), pose.q[0].numpy().astype(np.float64)
    return position, Rotation.from_quat(quaternion, scalar_first=True)
