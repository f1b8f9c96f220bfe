"""One SIMPLER task: physics, the success predicate and what is sensed.

Every episode is played in a scene that is built for it (0.2 s), as SIMPLER itself builds an environment for each. A
reset of ManiSkill 3.0.1 without that lets the last episode's arm stand among the objects while they come to rest: the
eggplant then begins elsewhere, by up to radians in orientation.
"""

from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from scipy.spatial.transform import Rotation

from vla_bench.errors import OptionError
from vla_bench.types import Task
from vla_bench_envs.libero.startup import quiet
from vla_bench_envs.simpler.pictures import draw
from vla_bench_envs.simpler.protocols import SimplerProtocol
from vla_bench_envs.simpler.startup import make_simulator
from vla_bench_envs.simpler.suites import N_INITIAL_STATES, TWINS

END_EFFECTOR = "ee_gripper_link"
"""Link whose pose is sensed and commanded. Source: ManiSkill 3.0.1, `bridge_dataset_eval/base_env.py`, `ee_link`."""


class Stage:
    """A task's simulator."""

    def __init__(self, task: Task, protocol: SimplerProtocol) -> None:
        """Build the task; nothing is drawn yet."""
        self.task = task
        self._protocol = protocol
        self.simulator: Any = make_simulator(TWINS[task.index].env_id, protocol)
        self.initial_states = self._official_states()
        """Poses before objects come to rest (24, 2, 7): of source and target, position [m] and quaternion (w, x, y, z).

        State i is ManiSkill's `episode_id` i."""

    def _official_states(self) -> Float32[np.ndarray, "24 2 7"]:
        positions, quaternions = (
            configs.cpu().numpy().astype(np.float32)
            for configs in (self.simulator.xyz_configs, self.simulator.quat_configs)
        )
        states = [
            np.concatenate([positions[index // len(quaternions)], quaternions[index % len(quaternions)]], axis=-1)
            for index in range(N_INITIAL_STATES)
        ]
        return np.stack(states)

    def reset(self, state: Float32[np.ndarray, "2 7"]) -> None:
        """Start from the poses of an initial state and let things come to rest.

        Raises:
            OptionError: If the state is no pair of poses.
        """
        if state.shape != (2, 7) or not np.isfinite(state).all():
            found = f"an array of shape {state.shape}"
            raise OptionError("init_state", found, "2 x 7 finite numbers: positions and quaternions of two objects")
        import torch

        self.simulator.xyz_configs = torch.from_numpy(state[None, :, :3].copy())
        self.simulator.quat_configs = torch.from_numpy(state[None, :, 3:].copy())
        with quiet():
            self.simulator.reset(seed=0, options={"reconfigure": True, "episode_id": torch.tensor([0])})

    def step(self, action: np.ndarray) -> bool:
        """Apply one action for one control step; return whether the task's predicate holds.

        The rotation vector becomes the Euler angles (X, then the turned Y, then the turned Z) that ManiSkill 3 reads
        where SIMPLER's own controller reads the vector itself.
        """
        angles = Rotation.from_rotvec(action[3:6]).as_euler("XYZ")
        with quiet():  # ManiSkill asks NumPy whether a tensor is finite, against which NumPy 2 warns at every step
            self.simulator._step_action(np.concatenate([action[:3], angles, action[6:]]).astype(np.float32))
            return bool(self.simulator.evaluate()["success"].item())

    def draw(self, camera: str) -> UInt8[np.ndarray, "height width 3"]:
        """Return the picture of this moment, row 0 at the top."""
        return draw(self.simulator, camera, *self._protocol.picture_px)

    @property
    def proprio(self) -> Float32[np.ndarray, " 8"]:
        """Return the end effector's position [m] and rotation vector [rad] in the base's frame, and fingers [m]."""
        robot = self.simulator.agent.robot
        base_from_tool = robot.root.pose.inv() * robot.links_map[END_EFFECTOR].pose
        position, quaternion = base_from_tool.p[0].numpy(), base_from_tool.q[0].numpy()
        rotation = Rotation.from_quat(quaternion, scalar_first=True).as_rotvec()
        return np.concatenate([position, rotation, robot.get_qpos()[0, -2:].numpy()]).astype(np.float32)

    @property
    def state(self) -> np.ndarray:
        """Return the simulator's state: poses and velocities of all objects, the robot's joints, its target pose."""
        return self.simulator.get_state()[0].numpy().copy()

    def close(self) -> None:
        """Free the simulator."""
        self.simulator.close()
