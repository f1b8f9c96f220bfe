"""Motions of the arm as generators: each `yield` is one action, each resumption sees the state it led to."""

from collections.abc import Generator
from typing import TypeVar

import numpy as np
from scipy.spatial.transform import Rotation

from vla_bench_envs.simpler.experts.scene import Scene

Result = TypeVar("Result")
Motion = Generator[np.ndarray, None, Result]
"""Yields actions (7,): translation [m], rotation vector [rad], gripper."""

OPEN, CLOSED = 1.0, -1.0
"""Gripper commands: `open_is_positive`."""

STEP_M = 0.03
"""Longest translation of one action; BridgeData's robot moves about as much in 0.2 s."""
STEP_RAD = 0.25
"""Largest rotation of one action."""


class Arm:
    """Turns poses to reach into actions.

    An action depends on where the arm is and on nothing before: a policy that is cloned from it sees no more than that.
    """

    def __init__(self, scene: Scene) -> None:
        """Start from rest with an open gripper."""
        self.scene = scene
        self.gripper = OPEN

    def action(self, position: np.ndarray, rotation: Rotation, step_m: float = STEP_M) -> np.ndarray:
        """Return the next action towards a pose of the end effector in the base's frame."""
        from_position, from_rotation = self.scene.commanded
        move = _capped(position - from_position, step_m)
        turn = _capped((rotation * from_rotation.inv()).as_rotvec(), STEP_RAD)
        return np.concatenate([move, turn, [self.gripper]])

    def rest(self) -> np.ndarray:
        """Return the action of standing still."""
        return np.array([0.0] * 6 + [self.gripper])

    def move(
        self,
        position: np.ndarray,
        rotation: Rotation,
        tolerance_m: float = 0.006,
        step_m: float = STEP_M,
        max_queries: int = 20,
    ) -> Motion[None]:
        """Go to a pose; a loose tolerance makes it a waypoint that is passed without stopping."""
        for _ in range(max_queries):
            at, turned = self.scene.tool
            if np.linalg.norm(at - position) < tolerance_m and (rotation * turned.inv()).magnitude() < 0.15:
                return
            yield self.action(position, rotation, step_m)

    def hold(self, gripper: float, position: np.ndarray, rotation: Rotation, n_queries: int) -> Motion[None]:
        """Open or close the fingers at a pose."""
        self.gripper = gripper
        for _ in range(n_queries):
            yield self.action(position, rotation)


def _capped(vector: np.ndarray, longest: float) -> np.ndarray:
    """Return the vector, shortened to `longest`."""
    length = float(np.linalg.norm(vector))
    return vector * (longest / length) if length > longest else vector
