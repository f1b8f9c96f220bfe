"""SpecPrune-VLA (arXiv:2509.05614): keep what moves, what is asked for and what was looked at last."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vla_bench_policies.token_cache.layout import RowLayout
from vla_bench_policies.token_cache.method import TokenMethod, check_share
from vla_bench_policies.token_cache.patches import chosen, cosine_similarity, highest
from vla_bench_policies.token_cache.plan import RowPlan
from vla_bench_policies.token_cache.rule import CacheRule, Inside, Merge, Step, at_depth

STILL = 0.986
"""Least cosine between a patch's pixels now and at the last inference for it to be still. Source: the paper."""

RECENT_LAYER = 15
"""Of 32, whose attention in the last step counts. Choice: the middle."""

COARSE_M = 0.02
"""Travel of the end effector since the last inference [m] from which the movement is coarse. Choice: the paper compares
the speed with a threshold of its robot."""

POSITION = slice(0, 3)
"""Entries of the proprioception that are the end effector's position [m]."""


@dataclass(frozen=True)
class SpecPrune(TokenMethod):
    """Delete, after two layers, rows that are still, unread by the text and unattended in the last step."""

    NAME: ClassVar[str] = "specprune"

    coarse: float = 0.2
    """Share of the visual rows kept for the text, and again for the last step, in coarse movement. 1 is exact."""

    precise: float = 0.4
    """The same share in precise movement (choice; the paper has two budgets)."""

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        check_share(self.NAME, "coarse", self.coarse)
        check_share(self.NAME, "precise", self.precise)

    def rule(self) -> CacheRule:
        """Return a new rule."""
        return _SpecPrune(self.name, self.coarse, self.precise, provenance="self", compares=True)


@dataclass
class _SpecPrune(CacheRule):
    coarse: float = 0.2
    precise: float = 0.4
    position: np.ndarray | None = None
    count: int = 0

    def reset(self) -> None:
        self.position = None

    def watched(self, layout: RowLayout, n_layers: int) -> dict[int, np.ndarray]:
        rows = layout.answering()
        return {layer: rows for layer in (0, 1, at_depth(RECENT_LAYER, n_layers)) if layer < n_layers}

    def narrows_at(self, n_layers: int) -> tuple[int, ...]:
        return (1, 2) if n_layers > 2 else (1,)

    def plan(self, step: Step) -> RowPlan:
        position, n_rows = step.proprio[POSITION], step.layout.n_visual
        slow = self.position is None or float(np.linalg.norm(position - self.position)) < COARSE_M
        self.position = position
        self.count = round((self.precise if slow else self.coarse) * n_rows)
        return step.full()

    def narrow(self, plan: RowPlan, step: Step, inside: Inside) -> tuple[RowPlan, Merge | None]:
        """Keep three sets after the first layer; after the second ask the text again."""
        assert step.reference is not None
        n_rows, text = step.layout.n_visual, slice(0, step.layout.n_text)
        read = inside.attention[inside.layer - 1][text, step.layout.visual].mean(dim=0).cpu().numpy()
        read = np.where(plan.active(inside.layer), read, -1.0)
        recent = step.attention[at_depth(RECENT_LAYER, step.n_layers)][:, step.layout.visual].mean(dim=0).cpu().numpy()
        moved = cosine_similarity(step.frames, step.reference, step.layout.grid) < STILL
        kept = chosen(highest(read, self.count), n_rows) | chosen(highest(recent, self.count), n_rows) | moved
        return plan.delete(~kept, from_layer=inside.layer), None


METHOD = SpecPrune
