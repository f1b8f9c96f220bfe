"""Action reuse: infer every n-th time, repeat the last action in between."""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from vla_bench.errors import OptionError
from vla_bench.policy import ActionChunk, Division, Policy, PolicyWrapper
from vla_bench.types import Observation


@dataclass(frozen=True)
class ActionReuse:
    """Skip inferences by applying every action of a chunk `repeats` times.

    The control without which no table of acceleration methods is credible: it works on any policy, needs no code in it
    and no training, and saves exactly (repeats - 1) / repeats of the inferences as long as the task forgives it.
    A delta action that is applied twice moves twice as far, as on a robot whose controller keeps its last command.
    """

    division: ClassVar[Division] = Division.LOSSY

    repeats: int = 2
    """Control steps per action; 1 is the exact setting."""

    def __post_init__(self) -> None:
        """Refuse a number of repeats that is no positive integer."""
        if not isinstance(self.repeats, int) or isinstance(self.repeats, bool) or self.repeats < 1:
            raise OptionError("action-reuse: repeats", self.repeats, "an integer of at least 1, as in 'action-reuse:2'")

    @property
    def name(self) -> str:
        """Return for example `action-reuse:2`."""
        return f"action-reuse:{self.repeats}"

    def apply(self, policy: Policy) -> Policy:
        """Return a policy whose chunks are `repeats` times as long."""
        return _Repeating(policy, self.repeats)


@dataclass
class _Repeating(PolicyWrapper):
    repeats: int = 2

    def act(self, obs: Observation) -> ActionChunk:
        chunk = self.inner.act(obs)
        return replace(chunk, actions=np.repeat(chunk.actions, self.repeats, axis=0))


METHOD = ActionReuse
