"""Temporal ensembling: what several answers say about the same moment is averaged.

Source: Zhao et al. 2023, "Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware" (ACT), section IV-B.
"""

from collections import deque

import torch
from jaxtyping import Float
from torch import Tensor

FADING = 0.01
"""m of the weights exp(-m i), i = 0 for the oldest answer. Source: ACT's code, `imitate_episodes.py`, `k = 0.01`."""


class TemporalEnsemble:
    """Averages answers that overlap, the oldest counting most: what was begun is carried through."""

    def __init__(self, chunk: int, execute: int) -> None:
        """Remember nothing yet.

        Args:
            chunk: Actions of an answer.
            execute: Actions between two answers.
        """
        self._execute = execute
        self._answers: deque[Tensor] = deque(maxlen=-(-chunk // execute))

    def mixed(self, answer: Float[Tensor, "chunk action"]) -> Float[Tensor, "execute action"]:
        """Return the next actions, given the newest answer; one is expected after every `execute` steps."""
        self._answers.append(answer)
        mixed = []
        for step in range(self._execute):
            ages = range((len(self._answers) - 1) * self._execute, -1, -self._execute)
            said = [one[age + step] for age, one in zip(ages, self._answers, strict=True) if age + step < len(answer)]
            weights = torch.exp(-FADING * torch.arange(len(said), dtype=answer.dtype, device=answer.device))
            mixed.append(weights / weights.sum() @ torch.stack(said))
        return torch.stack(mixed)
