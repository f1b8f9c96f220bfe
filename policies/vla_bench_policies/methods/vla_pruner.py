"""VLA-Pruner (Liu et al. 2025, arXiv:2511.16449): keep what the prompt reads, and what recent actions looked at.

As released: MINT-SJTU/VLA-Pruner, `src/openvla/prismatic/extern/hf/modeling_prismatic.py` (the memory) and
`src/openvla/transformers/src/transformers/models/llama/modeling_llama.py` (the choice); not checked against the paper.
Of the released criteria this is `use_prefil_attention`, the paper's by the README. In the released memory the oldest
step weighs most; here the newest does.
"""

from collections import deque
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vla_bench.policy import Division
from vla_bench_policies.token_cache.layout import RowLayout
from vla_bench_policies.token_cache.method import TokenMethod, check_share
from vla_bench_policies.token_cache.patches import chosen, highest
from vla_bench_policies.token_cache.plan import RowPlan
from vla_bench_policies.token_cache.rule import CacheRule, Inside, Merge, Step, at_depth

LAYER = 3
"""Of 32, from which rows are gone. Source: `fastv_k`."""

WINDOW = 3
"""Steps of action-to-vision attention that count; the first ones are full. Source: `temporal_w`."""

DECAY = 0.8
"""Weight of a step relative to the next newer one. Source: `temporal_gamma`."""

ACTION_LAYER = 15
"""Of 32, whose action-to-vision attention is kept. Source: `predict_action`."""


@dataclass(frozen=True)
class VlaPruner(TokenMethod):
    """Delete at one layer all but the union of two rankings, thinned to the rows that differ most."""

    NAME: ClassVar[str] = "vla-pruner"
    division: ClassVar[Division] = Division.LOSSY

    keep: float = 0.5
    """Share of the visual rows that stays; released scripts have 0.5, 0.25 and 0.125. 1 is the exact setting."""

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
        prompt, acting = np.arange(layout.proprio + 1), np.arange(layout.proprio, layout.n_rows)
        return {at_depth(LAYER, n_layers) - 1: prompt, at_depth(ACTION_LAYER, n_layers): acting}

    def narrows_at(self, n_layers: int) -> tuple[int, ...]:
        return (at_depth(LAYER, n_layers),)

    def plan(self, step: Step) -> RowPlan:
        self.overruled(step)
        return step.full()

    def overruled(self, step: Step) -> None:
        if step.attention:
            acting = step.attention[at_depth(ACTION_LAYER, step.n_layers)]
            self.looked.append(acting[:, step.layout.visual].mean(dim=0).cpu().numpy())

    def narrow(self, plan: RowPlan, step: Step, inside: Inside) -> tuple[RowPlan, Merge | None]:
        if len(self.looked) < WINDOW:
            return plan, None
        n_rows = step.layout.n_visual
        count = round(self.keep * n_rows)
        prefill = inside.attention[inside.layer - 1][:, step.layout.visual].mean(dim=0).cpu().numpy()
        weights = DECAY ** np.arange(WINDOW - 1, -1, -1)
        recent = weights @ np.stack(self.looked) / weights.sum()
        union = np.union1d(highest(prefill, count), highest(recent, count))
        kept = union
        if len(union) > count:
            step.spend(2 * len(union) ** 2 * step.visual.shape[1])
            kept = spread(union, step.visual, count)
        return plan.delete(~chosen(kept, n_rows), from_layer=inside.layer), None


def spread(rows: np.ndarray, visual: Tensor, count: int) -> np.ndarray:
    """Return `count` of the rows: the one farthest from its nearest, then each the farthest from those before it.

    Distance is by cosine, the choice greedy (`_redundancy_minization`).
    """
    features = F.normalize(visual[torch.from_numpy(rows).to(visual.device)].float(), dim=-1).cpu()
    distance = 1 - features @ features.T
    picked = [int(distance.topk(2, dim=1, largest=False).values[:, 1].argmax())]
    nearest = distance[picked[0]].clone()
    while len(picked) < count:
        nearest[picked] = -1.0
        picked.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, distance[picked[-1]])
    return np.sort(rows[picked])


METHOD = VlaPruner
