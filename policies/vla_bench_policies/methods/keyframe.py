"""Keyframes: full every n-th inference, and every visual row reused in between."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vla_bench.errors import OptionError
from vla_bench.policy import Division
from vla_bench_policies.token_cache.method import TokenMethod
from vla_bench_policies.token_cache.plan import RowPlan
from vla_bench_policies.token_cache.rule import CacheRule, Step


@dataclass(frozen=True)
class Keyframe(TokenMethod):
    """Look at nothing new but text and proprioception, except in every n-th inference."""

    NAME: ClassVar[str] = "keyframe"
    division: ClassVar[Division] = Division.TEMPORAL_CACHE

    every: int = 2
    """Inferences from one full step to the next; 1 is the exact setting."""

    def __post_init__(self) -> None:
        """Refuse a number that is no positive integer."""
        if not isinstance(self.every, int) or isinstance(self.every, bool) or self.every < 1:
            raise OptionError("keyframe: every", self.every, "an integer of at least 1, as in 'keyframe:4'")

    def rule(self) -> CacheRule:
        """Return a new rule."""
        return _Keyframe(self.name, self.every)


@dataclass
class _Keyframe(CacheRule):
    every: int = 2

    def plan(self, step: Step) -> RowPlan:
        if step.index % self.every == 0:
            return step.full()
        return step.full().reuse(np.ones(step.layout.n_visual, dtype=bool))


METHOD = Keyframe
