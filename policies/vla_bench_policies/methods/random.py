"""Random reuse: the control that says how much any choice of rows is worth."""

from dataclasses import dataclass
from typing import ClassVar

from vla_bench.policy import Division
from vla_bench_policies.token_cache.method import TokenMethod, check_share
from vla_bench_policies.token_cache.patches import chosen
from vla_bench_policies.token_cache.plan import RowPlan
from vla_bench_policies.token_cache.rule import CacheRule, Step


@dataclass(frozen=True)
class Random(TokenMethod):
    """Reuse a share of the visual rows, drawn anew in each step."""

    NAME: ClassVar[str] = "random"
    division: ClassVar[Division] = Division.TEMPORAL_CACHE

    reuse: float = 0.6
    """Share of the visual rows of all views; rounded down. 0 is the exact setting."""

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        check_share(self.NAME, "reuse", self.reuse)

    def rule(self) -> CacheRule:
        """Return a new rule."""
        return _Random(self.name, self.reuse)


@dataclass
class _Random(CacheRule):
    reuse: float = 0.6

    def plan(self, step: Step) -> RowPlan:
        n_rows = step.layout.n_visual
        return step.full().reuse(chosen(step.rng.permutation(n_rows)[: int(n_rows * self.reuse)], n_rows))


METHOD = Random
