"""Fixed grid: delete rows by their place alone, the control for methods that delete."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vla_bench.policy import Division
from vla_bench_policies.token_cache.method import TokenMethod, check_share
from vla_bench_policies.token_cache.patches import chosen
from vla_bench_policies.token_cache.plan import RowPlan
from vla_bench_policies.token_cache.rule import CacheRule, Step


@dataclass(frozen=True)
class FixedGrid(TokenMethod):
    """Keep a share of the visual rows, evenly spread over each view; delete the rest before the decoder."""

    NAME: ClassVar[str] = "fixed-grid"
    division: ClassVar[Division] = Division.LOSSY

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
        order = spread_order(step.layout.grid)
        kept = chosen(order[: round(self.keep * len(order))], len(order))
        return step.full().delete(~np.tile(kept, step.layout.n_views))


def spread_order(grid: int) -> np.ndarray:
    """Return the places of a grid (grid * grid,), each far from those before it: Bayer's order (Bayer 1973, ICC).

    A grid that is no power of two takes the order of the next one that is, what lies outside left out.
    """
    ranks = np.zeros((1, 1), dtype=np.int64)
    while len(ranks) < grid:
        ranks = np.block([[4 * ranks, 4 * ranks + 2], [4 * ranks + 3, 4 * ranks + 1]])
    return np.argsort(ranks[:grid, :grid].ravel(), kind="stable")


METHOD = FixedGrid
