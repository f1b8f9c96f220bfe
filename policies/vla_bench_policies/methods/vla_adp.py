"""VLA-ADP (Pei et al. 2025, arXiv:2509.22093): prune while the arm moves coarsely.

As released: chen7086/VLA-ADP, `experiments/robot/libero/run_libero_eval_prune_v2.py` (the gate),
`experiments/robot/libero/configs/prune_v2_config.json` (constants) and `prismatic/extern/hf/modeling_prismatic.py` (the
scores); not checked against the paper. There the beginning and end of the sequence count among the words, and what one
view cannot take is lost.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from vla_bench.policy import Division
from vla_bench_policies.token_cache.method import TokenMethod, check_share
from vla_bench_policies.token_cache.patches import chosen, highest
from vla_bench_policies.token_cache.plan import RowPlan
from vla_bench_policies.token_cache.rule import CacheRule, Step

SPLIT = {1: (1.0,), 2: (0.4, 0.6)}
"""Part of the budget for the main and the wrist view. Source: `qk_keep_split`."""

WINDOW = 2
"""Former chunks whose travel the newest is compared with. Source: `adjacent_extrema_window`, the newest not counted."""

MOST_IN_A_ROW = 3
"""Pruned chunks after which one is computed in full. Source: `limit_max_consecutive_pruned`."""

POSITION = slice(0, 3)
"""Entries of the proprioception that are the end effector's position [m]."""


@dataclass(frozen=True)
class VlaAdp(TokenMethod):
    """Delete, before the decoder, the rows that the text's queries of the first layer match least."""

    NAME: ClassVar[str] = "vla-adp"
    division: ClassVar[Division] = Division.LOSSY

    keep: float = 0.75
    """Share of the visual rows that stays in a pruned step, as in `qk_keep_ratio`; the project page has 0.3 to 0.7 too.
    1 is the exact setting."""

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        check_share(self.NAME, "keep", self.keep)

    def rule(self) -> CacheRule:
        """Return a new rule."""
        return _VlaAdp(self.name, self.keep, first_is_full=False)


@dataclass
class _VlaAdp(CacheRule):
    keep: float = 0.75
    position: np.ndarray | None = None
    travels: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW + 1))
    n_pruned: int = 0

    def reset(self) -> None:
        self.position, self.n_pruned = None, 0
        self.travels.clear()

    def plan(self, step: Step) -> RowPlan:
        if not self._prunes(step):
            self.n_pruned = 0
            return step.full()
        self.n_pruned += 1
        layout, scores = step.layout, self._scores(step)
        kept = [
            highest(scores[view], count) + view.start
            for view, count in zip(map(layout.view, range(layout.n_views)), self._budgets(step), strict=True)
        ]
        return step.full().delete(~chosen(np.concatenate(kept), layout.n_visual))

    def overruled(self, step: Step) -> None:
        self._travel(step)
        self.n_pruned = 0

    def _travel(self, step: Step) -> None:
        position = step.proprio[POSITION]
        if self.position is not None:
            self.travels.append(float(np.linalg.norm(position - self.position)))
        self.position = position

    def _prunes(self, step: Step) -> bool:
        """Say whether the last chunk was a coarse movement: its net travel (`delta_method`) against the former ones."""
        self._travel(step)
        if len(self.travels) <= WINDOW or self.n_pruned >= MOST_IN_A_ROW:
            return False
        *former, newest = self.travels
        return newest >= min(former)  # at least the greatest: prune; below the least: full; between: prune

    def _scores(self, step: Step) -> np.ndarray:
        """Return how each visual row matches the text, mean over heads and words (`_compute_qk_importance_generic`)."""
        query, _ = step.project(0, step.rows[step.layout.text])
        _, key = step.project(0, step.visual)
        key = key.repeat_interleave(len(query) // len(key), dim=0)
        step.spend(2 * query.numel() * key.shape[1])
        return ((query @ key.transpose(-1, -2)).mean(dim=(0, 1)) * query.shape[-1] ** -0.5).float().cpu().numpy()

    def _budgets(self, step: Step) -> list[int]:
        """Return how many rows of each view stay; what one view cannot take goes to the others."""
        layout = step.layout
        total = round(self.keep * layout.n_visual)
        parts = SPLIT.get(layout.n_views, (1 / layout.n_views,) * layout.n_views)
        budgets = [min(layout.rows_per_view, round(part * total)) for part in parts]
        for view in range(layout.n_views):
            budgets[view] += min(layout.rows_per_view - budgets[view], max(0, total - sum(budgets)))
        return budgets


METHOD = VlaAdp
