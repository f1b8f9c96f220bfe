"""Pixel difference: reuse the rows whose patches changed least. No network, no threshold: the baseline to beat."""

from dataclasses import dataclass
from typing import ClassVar, get_args

import numpy as np

from vla_bench.errors import OptionError
from vla_bench.policy import Division
from vla_bench_policies.token_cache.method import TokenMethod, check_share
from vla_bench_policies.token_cache.patches import Since, chosen, difference, lowest, patches
from vla_bench_policies.token_cache.plan import RowPlan
from vla_bench_policies.token_cache.rule import CacheRule, Step


@dataclass(frozen=True)
class PixelDifference(TokenMethod):
    """Reuse a share of the visual rows: those whose pixels differ least from an earlier frame's."""

    NAME: ClassVar[str] = "pixel-difference"
    division: ClassVar[Division] = Division.TEMPORAL_CACHE

    reuse: float = 0.6
    """Share of the visual rows of all views together; rounded down. 0 is the exact setting."""

    since: Since = "inference"
    """What a patch is compared with: `patches.Since`."""

    def __post_init__(self) -> None:
        """Refuse what is no share, and no frame."""
        check_share(self.NAME, "reuse", self.reuse)
        if self.since not in get_args(Since):
            raise OptionError(f"{self.NAME}: since", self.since, f"one of {', '.join(get_args(Since))}")

    def rule(self) -> CacheRule:
        """Return a new rule."""
        return _PixelDifference(self.name, self.reuse, self.since, compares=True)


@dataclass
class _PixelDifference(CacheRule):
    reuse: float = 0.6
    since: Since = "inference"
    _then: np.ndarray | None = None
    """Patches as they were when their rows were computed."""

    def reset(self) -> None:
        self._then = None

    def plan(self, step: Step) -> RowPlan:
        assert step.reference is not None
        n_rows, grid = step.layout.n_visual, step.layout.grid
        now, then = patches(step.frames, grid), patches(step.reference, grid)
        if self.since == "computed" and self._then is not None:
            then = np.where(step.just_computed[:, None], then, self._then)
        self._then = then
        changed = difference(now, then)
        return step.full().reuse(chosen(lowest(changed, int(n_rows * self.reuse)), n_rows))


METHOD = PixelDifference
