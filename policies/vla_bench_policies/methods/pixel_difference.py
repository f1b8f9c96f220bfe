"""Pixel difference: reuse the rows whose patches changed least. No network, no threshold: the baseline to beat."""

from dataclasses import dataclass
from typing import ClassVar

from vla_bench.policy import Division
from vla_bench_policies.token_cache.method import TokenMethod, check_share
from vla_bench_policies.token_cache.patches import chosen, difference, lowest
from vla_bench_policies.token_cache.plan import RowPlan
from vla_bench_policies.token_cache.rule import CacheRule, Step


@dataclass(frozen=True)
class PixelDifference(TokenMethod):
    """Reuse a share of the visual rows: those whose pixels differ least from the frame of the last inference."""

    NAME: ClassVar[str] = "pixel-difference"
    division: ClassVar[Division] = Division.TEMPORAL_CACHE

    reuse: float = 0.6
    """Share of the visual rows of all views together; rounded down. 0 is the exact setting."""

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        check_share(self.NAME, "reuse", self.reuse)

    def rule(self) -> CacheRule:
        """Return a new rule."""
        return _PixelDifference(self.name, self.reuse, compares=True)


@dataclass
class _PixelDifference(CacheRule):
    reuse: float = 0.6

    def plan(self, step: Step) -> RowPlan:
        assert step.reference is not None
        n_rows = step.layout.n_visual
        changed = difference(step.frames, step.reference, step.layout.grid)
        return step.full().reuse(chosen(lowest(changed, int(n_rows * self.reuse)), n_rows))


METHOD = PixelDifference
