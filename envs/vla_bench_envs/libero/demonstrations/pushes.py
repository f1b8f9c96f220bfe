"""Random pushes of the arm, so that demonstrations also show how to come back.

A cloned policy drifts into states that an undisturbed expert never visits. Noise on what is applied, with the expert's
own answer as the label, puts such states into the data (Laskey et al. 2017, "DART", CoRL). Pushes rather than noise
of each step: an arm averages the latter out, while a push leaves it centimetres beside its way.
"""

import numpy as np

STEPS = (3, 9)
"""Shortest and longest push, in control steps, the end excluded: 0.15 to 0.4 s at 20 Hz."""

STRENGTH = (0.2, 0.7)
"""Length of the added translation, in units of the action (1 is the fastest that the arm goes)."""

TURN = 0.15
"""Standard deviation of the added yaw rate, in units of the action."""


class Pushes:
    """Adds pushes to actions; nothing at a rate of 0."""

    def __init__(self, rate_hz: float, control_hz: float, rng: np.random.Generator) -> None:
        """Begin an episode without a push.

        Args:
            rate_hz: How often a push begins while there is none.
            control_hz: Control steps a second.
            rng: Draws when, how long, where to and how hard.
        """
        self._probability = rate_hz / control_hz
        self._rng = rng
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
        self._push[:3] = direction / np.linalg.norm(direction) * self._rng.uniform(*STRENGTH)
        self._push[5] = self._rng.normal(0.0, TURN)
        self._left = int(self._rng.integers(*STEPS))
