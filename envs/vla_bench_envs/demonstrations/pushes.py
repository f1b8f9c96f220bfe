"""Random pushes of the arm, so that demonstrations also show how to come back.

A cloned policy drifts into states that an undisturbed expert never visits. Noise on what is applied, with the expert's
own answer as the label, puts such states into the data (Laskey et al. 2017, "DART", CoRL). Pushes rather than noise
of each step: an arm averages the latter out, while a push leaves it centimetres beside its way.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PushForm:
    """How hard and how long an arm is pushed, in the units of its actions."""

    steps: tuple[int, int]
    """Shortest and longest push, in control steps, the end excluded."""

    strength: tuple[float, float]
    """Least and greatest length of the added translation."""

    turn: float
    """Standard deviation of the added yaw."""


class Pushes:
    """Adds pushes to actions; nothing at a rate of 0."""

    def __init__(self, rate_hz: float, control_hz: float, rng: np.random.Generator, form: PushForm) -> None:
        """Begin an episode without a push.

        Args:
            rate_hz: How often a push begins while there is none.
            control_hz: Control steps a second.
            rng: Draws when, how long, where to and how hard.
            form: How long and how hard it may be.
        """
        self._probability = rate_hz / control_hz
        self._rng = rng
        self._form = form
        self._left = 0
        self._push = np.zeros(7)

    def disturb(self, action: np.ndarray) -> np.ndarray:
        """Return the action (7,) that is applied instead: within [-1, 1], the gripper's command unchanged."""
        if self._left == 0 and self._rng.random() < self._probability:
            self._begin()
        if self._left == 0:
            return action
        self._left -= 1
        pushed = np.clip(action + self._push, -1.0, 1.0)
        pushed[6] = action[6]
        return pushed.astype(action.dtype)

    def _begin(self) -> None:
        direction = self._rng.normal(size=3)
        self._push[:3] = direction / np.linalg.norm(direction) * self._rng.uniform(*self._form.strength)
        self._push[5] = self._rng.normal(0.0, self._form.turn)
        self._left = int(self._rng.integers(*self._form.steps))
