"""Fixed grid: delete rows by their place alone, the control for methods that delete."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vla_bench_policies.token_cache.method import TokenMethod, check_share
from vla_bench_policies.token_cache.plan import RowPlan
from vla_bench_policies.token_cache.rule import CacheRule, Step


@dataclass(frozen=True)
class FixedGrid(TokenMethod):
    """Keep a share of the visual rows, evenly spread over each view's raster; delete the rest before the decoder."""

    NAME: ClassVar[str] = "fixed-grid"

    keep: float = 0.5
    """Share of the visual rows; 1 is the exact setting."""

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        check_share(self.NAME, "keep", self.keep)

    def rule(self) -> CacheRule:
        """Return a new rule."""
        return _FixedGrid(self.name, self.keep, first_is_full=False)


@dataclass
class _FixedGrid(CacheRule):
    keep: float = 0.5

    def plan(self, step: Step) -> RowPlan:
        place = np.arange(step.layout.rows_per_view)
        kept = np.floor((place + 1) * self.keep) > np.floor(place * self.keep)
        return step.full().delete(~np.tile(kept, step.layout.n_views))


METHOD = FixedGrid
