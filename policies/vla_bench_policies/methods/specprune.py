"""SpecPrune-VLA (Wang et al. 2025, arXiv:2509.05614): keep what moves, what is asked for and what was looked at last.

After the paper's first version and alexwhz-sjtu/SpecPrune-VLA: `modeling_llama.py` and, in
`openvla-oft/experiments/robot`, `openvla_utils.py` and `spec_prune_constants.py`. Differences from the paper:

- the reference is the frame of the last inference, there one as many frames ago as speed says (Sec. 4.2);
- rows are not pruned again in deeper layers (Sec. 5; switched off in the released evaluation);
- movement is judged by travel, there by commanded translation, rotation and height (Sec. 6.2).

The released code, unlike the paper, hands on no rows of the last step.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from torch import Tensor

from vla_bench.policy import Division
from vla_bench_policies.token_cache.layout import RowLayout
from vla_bench_policies.token_cache.method import TokenMethod, check_share
from vla_bench_policies.token_cache.patches import chosen, cosine_similarity, highest
from vla_bench_policies.token_cache.plan import RowPlan
from vla_bench_policies.token_cache.rule import CacheRule, Inside, Merge, Step, at_depth

STILL = 0.986
"""Least cosine between a patch's pixels now and at the last inference for it to be still (tau in the paper). Source:
`openvla_utils.py`."""

MOST_STILL = (200 / 256, 220 / 256)
"""Share of a view's rows that counts as still at most, in coarse and in precise movement. Source:
`spec_prune_constants.py`; the paper keeps the K_D rows that changed most instead."""

EARLY = 3
"""How many times as many rows stay for the text between the first and the second layer. Source: `modeling_llama.py`."""

RECENT_LAYER = 15
"""Of 32, whose attention in the last step counts. Choice."""

COARSE_M = 0.02
"""Travel of the end effector since the last inference [m] from which the movement is coarse. Choice; the thresholds of
the released code are on normalised commands."""

POSITION = slice(0, 3)
"""Entries of the proprioception that are the end effector's position [m]."""


@dataclass(frozen=True)
class SpecPrune(TokenMethod):
    """Delete, after each of two layers, rows that are still, unread by the text and unread in the last step."""

    NAME: ClassVar[str] = "specprune"
    division: ClassVar[Division] = Division.LOSSY

    coarse: float = 24 / 256
    """Share of each view's rows kept for the text of each layer, and of the last step, in coarse movement (paper, App.
    10.2, alpha 1; the released code has 16 rows of the main and 12 of the wrist view). 1 is exact."""

    precise: float = 40 / 256
    """The same share in precise movement (there too; 25 and 19 rows in the released code)."""

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        check_share(self.NAME, "coarse", self.coarse)
        check_share(self.NAME, "precise", self.precise)

    def rule(self) -> CacheRule:
        """Return a new rule."""
        return _SpecPrune(self.name, self.coarse, self.precise, provenance="self", compares=True)


@dataclass
class _SpecPrune(CacheRule):
    coarse: float = 24 / 256
    precise: float = 40 / 256
    position: np.ndarray | None = None
    count: int = 0
    kept: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))

    def reset(self) -> None:
        self.position = None

    def overruled(self, step: Step) -> None:
        self.position = step.proprio[POSITION]

    def watched(self, layout: RowLayout, n_layers: int) -> dict[int, np.ndarray]:
        text = np.arange(layout.text.start, layout.text.stop)
        return {layer: text for layer in (0, 1, at_depth(RECENT_LAYER, n_layers)) if layer < n_layers}

    def narrows_at(self, n_layers: int) -> tuple[int, ...]:
        return (1, 2) if n_layers > 2 else (1,)

    def plan(self, step: Step) -> RowPlan:
        position, layout = step.proprio[POSITION], step.layout
        slow = self.position is not None and float(np.linalg.norm(position - self.position)) < COARSE_M
        self.position = position
        self.count = round((self.precise if slow else self.coarse) * layout.rows_per_view)
        recent = _read(step.attention[at_depth(RECENT_LAYER, step.n_layers)], layout)
        self.kept = moved(step, MOST_STILL[slow]) | _top(recent, self.count, layout)
        return step.full()

    def narrow(self, plan: RowPlan, step: Step, inside: Inside) -> tuple[RowPlan, Merge | None]:
        """Keep more for the text after the first layer; after the second, what both layers read most."""
        read = _read(inside.attention[inside.layer - 1], step.layout)
        read = np.where(plan.active(inside.layer), read, -1.0)
        early = _top(read, EARLY * self.count, step.layout) if inside.layer == 1 else False
        self.kept = self.kept | _top(read, self.count, step.layout)
        return plan.delete(~(self.kept | early), from_layer=inside.layer), None


def moved(step: Step, most_still: float) -> np.ndarray:
    """Return the rows (visual,) that are not still: `most_still` of a view are at most."""
    assert step.reference is not None
    alike = cosine_similarity(step.frames, step.reference, step.layout.grid)
    still = _top(alike, round(most_still * step.layout.rows_per_view), step.layout) & (alike >= STILL)
    return ~still


def _read(attention: Tensor, layout: RowLayout) -> np.ndarray:
    """Return how much the text (rows, keys) reads each visual row (paper, Eq. 1)."""
    return attention[:, layout.visual].mean(dim=0).cpu().numpy()


def _top(scores: np.ndarray, count: int, layout: RowLayout) -> np.ndarray:
    """Return a mask of the highest `count` rows of each view."""
    views = map(layout.view, range(layout.n_views))
    return np.concatenate([chosen(highest(scores[view], count), layout.rows_per_view) for view in views])


METHOD = SpecPrune
