"""What CogACT does between its answers and the robot: predictions of the same moment are mixed, the gripper sticks.

Source: microsoft/CogACT, `sim_cogact/adaptive_ensemble.py` and `sim_cogact/cogact_policy.py`.
"""

from collections import deque

import numpy as np
from jaxtyping import Float64

SHARPNESS = 0.1
"""How much more a prediction counts that points where the newest one does."""

CHANGE = 0.5
"""Least change of the gripper's opening, of 0 to 1, that counts as a command."""


class AdaptiveEnsemble:
    """Mixes what the last answers say about now, weighted by how alike they are to the newest one."""

    def __init__(self, horizon: int) -> None:
        """Remember nothing yet; `horizon` answers will count."""
        self._chunks: deque[np.ndarray] = deque(maxlen=horizon)

    def mixed(self, chunk: Float64[np.ndarray, "chunk action"]) -> Float64[np.ndarray, " action"]:
        """Return the action for now, given the newest answer; one is expected for every control step."""
        self._chunks.append(chunk)
        now = np.stack([earlier[age] for age, earlier in enumerate(reversed(self._chunks))])
        newest = now[0]
        alike = now @ newest / (np.linalg.norm(now, axis=1) * np.linalg.norm(newest) + 1e-7)
        weights = np.exp(SHARPNESS * alike)
        return weights / weights.sum() @ now


class StickyGripper:
    """A gripper that is told changes: one command is repeated for a while, in which nothing else is listened to."""

    def __init__(self, repeats: int) -> None:
        """Begin with the first opening that is seen."""
        self._repeats = repeats
        self._before: float | None = None
        self._command, self._n_left = 0.0, 0

    def told(self, opening: float) -> float:
        """Return the command for an opening of 0 to 1: positive closes, 0 stays."""
        if self._before is None:
            self._before = opening
        change = self._before - opening
        if abs(change) > CHANGE and not self._n_left:
            self._command, self._n_left, self._before = change, self._repeats, opening
        if not self._n_left:
            return change
        self._n_left -= 1
        return self._command
