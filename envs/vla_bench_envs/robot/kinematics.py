"""Forward and inverse kinematics of a serial arm, for the gate and the limiter: pure numbers, no simulator."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.spatial.transform import Rotation

from vla_bench.errors import UnknownNameError

DAMPING = 0.02
"""Of the least squares that solve for joints [dimensionless]; small next to singular values that are allowed."""

N_ITERATIONS = 25
"""At most, of the inverse kinematics; one step of 5 cm takes 3 to 5."""

POSITION_TOLERANCE_M, ROTATION_TOLERANCE_RAD = 2e-4, 1e-3
"""How near the inverse kinematics must come to its goal."""

POSTURE_GAIN, N_POSTURE_ITERATIONS = 0.1, 4
"""Share of the way to the preferred posture that each of the first iterations goes, where the tool is not moved by it.
The rest of them only converge: damped, the two would fight for ever."""


@dataclass(frozen=True)
class Pose:
    """Where a tool is: target-from-source is base-from-tool."""

    position_m: np.ndarray
    """In the base frame (3,)."""

    rotation: np.ndarray
    """Matrix (3, 3); its columns are the tool's axes in the base frame. The tool looks along its z axis."""

    @property
    def rotation_vector_rad(self) -> np.ndarray:
        """Return the orientation as a rotation vector (3,) [rad]."""
        return Rotation.from_matrix(self.rotation).as_rotvec()


@dataclass(frozen=True)
class Chain:
    """A serial arm in modified Denavit-Hartenberg parameters (Craig 1986, Introduction to Robotics, chapter 3)."""

    name: str
    a_m: tuple[float, ...]
    d_m: tuple[float, ...]
    alpha_rad: tuple[float, ...]
    flange_m: float
    """From the last joint's frame to the tool's point, along the last z axis."""

    tool_turn_rad: float
    """Of the tool about the last z axis."""

    @property
    def n_joints(self) -> int:
        """Return the number of joints."""
        return len(self.a_m)

    @cached_property
    def _tool(self) -> np.ndarray:
        tool = np.eye(4)
        tool[:3, :3] = Rotation.from_rotvec([0.0, 0.0, self.tool_turn_rad]).as_matrix()
        tool[2, 3] = self.flange_m
        return tool

    @cached_property
    def _alpha(self) -> tuple[np.ndarray, np.ndarray]:
        return np.cos(self.alpha_rad), np.sin(self.alpha_rad)

    def _frames(self, joints_rad: np.ndarray) -> np.ndarray:
        """Return each joint's frame in the frame before it (..., n, 4, 4)."""
        cosine, sine = np.cos(joints_rad), np.sin(joints_rad)
        cos_alpha, sin_alpha = self._alpha
        frames = np.zeros((*joints_rad.shape, 4, 4))
        frames[..., 0, 0], frames[..., 0, 1], frames[..., 0, 3] = cosine, -sine, self.a_m
        frames[..., 1, 0], frames[..., 1, 1] = sine * cos_alpha, cosine * cos_alpha
        frames[..., 2, 0], frames[..., 2, 1] = sine * sin_alpha, cosine * sin_alpha
        frames[..., 1, 2], frames[..., 2, 2] = -sin_alpha, cos_alpha
        frames[..., 1, 3], frames[..., 2, 3] = -sin_alpha * self.d_m, cos_alpha * self.d_m
        frames[..., 3, 3] = 1.0
        return frames

    def poses(self, joints_rad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the tool's positions (k, 3) [m] and rotations (k, 3, 3) for postures (k, n) [rad]."""
        frames = self._frames(joints_rad)
        reached = frames[:, 0]
        for index in range(1, self.n_joints):
            reached = reached @ frames[:, index]
        reached = reached @ self._tool
        return reached[:, :3, 3], reached[:, :3, :3]

    def pose(self, joints_rad: np.ndarray) -> Pose:
        """Return where the tool is for a posture (n,) [rad]."""
        positions, rotations = self.poses(joints_rad[None])
        return Pose(positions[0], rotations[0])

    def jacobian(self, joints_rad: np.ndarray) -> tuple[Pose, np.ndarray]:
        """Return the tool's pose and Jacobian (6, n): its velocity [m/s, rad/s], base frame, per joint velocity."""
        frames = self._frames(joints_rad)
        reached = np.eye(4)
        axes, origins = np.empty((self.n_joints, 3)), np.empty((self.n_joints, 3))
        for index in range(self.n_joints):
            reached = reached @ frames[index]
            axes[index], origins[index] = reached[:3, 2], reached[:3, 3]
        tool = reached @ self._tool
        linear = np.cross(axes, tool[:3, 3] - origins)
        return Pose(tool[:3, 3], tool[:3, :3]), np.vstack([linear.T, axes.T])

    def solve(self, goal: Pose, start_rad: np.ndarray, posture_rad: np.ndarray) -> np.ndarray | None:
        """Return the joints (n,) [rad] that reach a pose from nearby, or None; limits are not looked at.

        Damped least squares (Nakamura and Hanafusa 1986, J. Dyn. Sys. Meas. Control 108:163); what the tool does not
        feel moves towards `posture_rad`.
        """
        joints = np.array(start_rad, dtype=float)
        for iteration in range(N_ITERATIONS):
            pose, jacobian = self.jacobian(joints)
            position_error = goal.position_m - pose.position_m
            rotation_error = Rotation.from_matrix(goal.rotation @ pose.rotation.T).as_rotvec()
            near = np.linalg.norm(position_error) <= POSITION_TOLERANCE_M
            if near and np.linalg.norm(rotation_error) <= ROTATION_TOLERANCE_RAD:
                return joints
            damped = jacobian @ jacobian.T + DAMPING**2 * np.eye(6)
            wish = POSTURE_GAIN * (posture_rad - joints) * (iteration < N_POSTURE_ITERATIONS)
            error = np.concatenate([position_error, rotation_error]) - jacobian @ wish
            joints = joints + wish + jacobian.T @ np.linalg.solve(damped, error)
        return None


def tilt_rad(rotations: np.ndarray) -> np.ndarray:
    """Return the angle [rad] between the tool's z axis and straight down, for matrices (..., 3, 3)."""
    sideways = np.hypot(rotations[..., 0, 2], rotations[..., 1, 2])
    return np.arctan2(sideways, -rotations[..., 2, 2])


PANDA = Chain(
    name="panda",
    a_m=(0.0, 0.0, 0.0, 0.0825, -0.0825, 0.0, 0.088),
    d_m=(0.333, 0.0, 0.316, 0.0, 0.384, 0.0, 0.0),
    alpha_rad=(0.0, -np.pi / 2, np.pi / 2, np.pi / 2, -np.pi / 2, np.pi / 2, np.pi / 2),
    flange_m=0.107 + 0.1034,
    tool_turn_rad=-np.pi / 4,
)
"""Franka Emika Panda and FR3 with the Franka hand. Source: Franka Control Interface documentation, "Denavit-Hartenberg
parameters"; flange 0.107 m, and 0.1034 m from the flange to the point between the finger tips."""

UR5E = Chain(
    name="ur5e-2f85",
    a_m=(0.0, 0.0, -0.425, -0.3922, 0.0, 0.0),
    d_m=(0.1625, 0.0, 0.0, 0.1333, 0.0997, 0.0996),
    alpha_rad=(0.0, np.pi / 2, 0.0, 0.0, np.pi / 2, -np.pi / 2),
    flange_m=0.1628,
    tool_turn_rad=0.0,
)
"""UR5e with the gripper Robotiq 2F-85. Source: Universal Robots, "DH parameters for calculations of kinematics and
dynamics", turned from standard into modified parameters; 0.1628 m from the flange to the finger tips: Robotiq's manual.
A real arm differs by its calibration: up to some millimetres."""

CHAINS = {PANDA.name: PANDA, UR5E.name: UR5E}
"""Arms that a limits file may name."""


def chain(name: str) -> Chain:
    """Return the arm of that name.

    Raises:
        UnknownNameError: If there is none.
    """
    if name not in CHAINS:
        raise UnknownNameError("arm", name, CHAINS)
    return CHAINS[name]
