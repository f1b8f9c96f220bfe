"""VLA-Pruner (arXiv:2511.16449): keep what the prompt reads, and what recent actions looked at."""

from collections import deque
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vla_bench_policies.token_cache.layout import RowLayout
from vla_bench_policies.token_cache.method import TokenMethod, check_share
from vla_bench_policies.token_cache.patches import chosen, highest
from vla_bench_policies.token_cache.plan import RowPlan
from vla_bench_policies.token_cache.rule import CacheRule, Inside, Merge, Step, at_depth

LAYER = 3
"""Of 32, from which rows are gone (paper)."""

WINDOW = 3
"""Steps of action-to-vision attention that count; the first ones are full (paper)."""

DECAY = 0.5
"""Weight of a step relative to the next newer one. Choice: the paper's value is not given in what was read."""

ACTION_LAYER = 15
"""Of 32, whose action-to-vision attention is kept. Choice: the middle, as in VLA-Cache."""


@dataclass(frozen=True)
class VlaPruner(TokenMethod):
    """Delete at one layer all but the union of two rankings, thinned to the rows that differ most."""

    NAME: ClassVar[str] = "vla-pruner"

    keep: float = 0.5
    """Share of the visual rows that stays; 1 is the exact setting."""

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        check_share(self.NAME, "keep", self.keep)

    def rule(self) -> CacheRule:
        """Return a new rule."""
        return _VlaPruner(self.name, self.keep, provenance="self", first_is_full=False)


@dataclass
class _VlaPruner(CacheRule):
    keep: float = 0.5
    looked: deque[np.ndarray] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def reset(self) -> None:
        self.looked.clear()

    def watched(self, layout: RowLayout, n_layers: int) -> dict[int, np.ndarray]:
        rows = np.arange(layout.proprio, layout.n_rows)  # the prompt's last row, then those that answer
        return {at_depth(LAYER, n_layers) - 1: rows, at_depth(ACTION_LAYER, n_layers): rows}

    def narrows_at(self, n_layers: int) -> tuple[int, ...]:
        return (at_depth(LAYER, n_layers),)

    def plan(self, step: Step) -> RowPlan:
        if step.attention:
            answers = step.attention[at_depth(ACTION_LAYER, step.n_layers)][1:]
            self.looked.append(answers[:, step.layout.visual].mean(dim=0).cpu().numpy())
        return step.full()

    def narrow(self, plan: RowPlan, step: Step, inside: Inside) -> tuple[RowPlan, Merge | None]:
        if len(self.looked) < WINDOW:
            return plan, None
        n_rows = step.layout.n_visual
        count = round(self.keep * n_rows)
        prefill = inside.attention[inside.layer - 1][0, step.layout.visual].cpu().numpy()
        weights = DECAY ** np.arange(WINDOW - 1, -1, -1)
        recent = weights @ np.stack(self.looked) / weights.sum()
        union = np.union1d(highest(prefill, count), highest(recent, count))
        kept = spread(union, step.visual, count) if len(union) > count else union
        return plan.delete(~chosen(kept, n_rows), from_layer=inside.layer), None


def spread(rows: np.ndarray, visual: Tensor, count: int) -> np.ndarray:
    """Return `count` of the rows, each the farthest by cosine from those before it (greedy)."""
    features = F.normalize(visual[torch.from_numpy(rows).to(visual.device)].float(), dim=-1).cpu()
    distance = 1 - features @ features.T
    picked = [int(distance.mean(dim=1).argmax())]
    nearest = distance[picked[0]].clone()
    while len(picked) < count:
        nearest[picked] = -1.0
        picked.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, distance[picked[-1]])
    return np.sort(rows[picked])


METHOD = VlaPruner
