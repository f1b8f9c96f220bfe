"""Motions of the arm as generators: each `yield` is one action, each resumption sees the state it led to."""

from collections.abc import Callable, Generator
from typing import TypeVar

import numpy as np

from vla_bench_envs.libero.experts.geometry import Array, Matrix, Vector, rotation_vector
from vla_bench_envs.libero.experts.scene import Scene

Result = TypeVar("Result")
Motion = Generator[Array, None, Result]
"""Yields actions: translation [1/0.05 m], rotation vector [1/0.5 rad], gripper; all in [-1, 1]."""

OPEN, CLOSED = -1.0, 1.0
"""Gripper commands of robosuite's Panda."""
POSITION_SCALE_M = 0.05
"""Translation of the OSC_POSE goal for an action of 1 (robosuite 1.4.0, controllers/config/osc_pose.json)."""
ROTATION_SCALE_RAD = 0.5
"""Rotation of the OSC_POSE goal for an action of 1 (the same file)."""
MAX_SLEW = 0.25
"""Largest change of each of the first six numbers from one action to the next; keeps the motion smooth."""
HOLD_SPEED = 0.3
"""Largest translation while the fingers move."""
STOPPED_M_PER_S = 0.02
"""A gripper slower than this has stopped; faster, it would drift off a grasp while it closes."""
OPEN_WIDTH_M = 0.05
"""From this width on nothing in the suites is held any more."""


class SkillFailed(Exception):  # noqa: N818 (the name says what happened, as in StopIteration)
    """A skill could not do its work in this episode, for instance because an object slipped."""


class Arm:
    """Turns poses to reach into actions. Remembers only the last action and the gripper command."""

    def __init__(self, scene: Scene) -> None:
        """Start from rest with an open gripper."""
        self.scene = scene
        self.gripper = OPEN
        self._previous = np.zeros(6)

    def action(self, position: Vector, rotation: Matrix, speed: float = 1.0, turn: float = 0.5) -> Array:
        """Return the next action towards a pose (world frame).

        Args:
            position: Goal of the grip site [m].
            rotation: Goal of world_from_gripper.
            speed: Largest translation component, 1 is full speed.
            turn: Largest rotation component.
        """
        translation = (position - self.scene.gripper_position) / POSITION_SCALE_M
        rotation_part = rotation_vector(self.scene.world_from_gripper, rotation) / ROTATION_SCALE_RAD
        return self._limited(np.concatenate([_capped(translation, speed), _capped(rotation_part, turn)]))

    def rest(self) -> Array:
        """Return the next action towards standing still."""
        return self._limited(np.zeros(6))

    def move(
        self,
        position: Vector,
        rotation: Matrix,
        tolerance_m: float = 0.008,
        tolerance_rad: float = 0.08,
        speed: float = 1.0,
        turn: float = 0.5,
        max_queries: int = 80,
        stop: bool = False,
    ) -> Motion[bool]:
        """Go to a pose, and, if asked, stop there; return whether it was reached.

        A loose tolerance makes the pose a waypoint that is passed without stopping.
        """
        for _ in range(max_queries):
            at_pose = self.is_at(position, rotation, tolerance_m, tolerance_rad)
            if at_pose and not (stop and self.scene.gripper_speed > STOPPED_M_PER_S):
                return True
            yield self.action(position, rotation, speed, turn)
        return False

    def is_at(self, position: Vector, rotation: Matrix, tolerance_m: float, tolerance_rad: float) -> bool:
        """Say whether the gripper is within tolerance of a pose."""
        angle = np.linalg.norm(rotation_vector(self.scene.world_from_gripper, rotation))
        distance = np.linalg.norm(position - self.scene.gripper_position)
        return bool(distance < tolerance_m and angle < tolerance_rad)

    def grip(
        self, position: Vector, rotation: Matrix, name: str, max_queries: int = 14, squeeze_queries: int = 3
    ) -> Motion[bool]:
        """Close the fingers at a pose until both pads have touched the object for a moment; return whether they do."""
        self.gripper = CLOSED
        n_touching = 0
        for _ in range(max_queries):
            yield self.action(position, rotation, HOLD_SPEED)
            n_touching += self.scene.pads_touching(name) == 2
            if n_touching >= squeeze_queries:
                return True
        return self.scene.pads_touching(name) == 2

    def release(self, position: Vector, rotation: Matrix, min_queries: int = 6, max_queries: int = 12) -> Motion[None]:
        """Open the fingers at a pose, for at least `min_queries`."""
        self.gripper = OPEN
        for query in range(1, max_queries + 1):
            yield self.action(position, rotation, HOLD_SPEED)
            if query >= min_queries and self.scene.gripper_width > OPEN_WIDTH_M:
                return

    def wait(self, done: Callable[[], bool], max_queries: int = 10) -> Motion[None]:
        """Stand still until something has happened."""
        for _ in range(max_queries):
            if done():
                return
            yield self.rest()

    def _limited(self, command: Array) -> Array:
        """Return the action for a six-component command, within the slew limit and [-1, 1]."""
        limited = np.clip(command, self._previous - MAX_SLEW, self._previous + MAX_SLEW)
        self._previous = np.clip(limited, -1.0, 1.0)
        return np.append(self._previous, self.gripper)


def _capped(vector: Vector, largest: float) -> Vector:
    """Return the vector, shortened so that no component exceeds `largest`."""
    peak = np.abs(vector).max()
    return vector * (largest / peak) if peak > largest else vector
