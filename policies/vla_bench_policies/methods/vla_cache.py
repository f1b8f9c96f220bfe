"""VLA-Cache (Xu et al. 2025, arXiv:2502.02175): reuse what is still and not attended to, more of it in deeper layers.

Constants and steps are those of siyuhsu/vla-cache, `src/openvla*/experiments/robot/vla_cache_utils.py` and
`openvla_utils.py`, and of its fork siyuhsu/transformers; none was checked against the paper. Differences, on purpose:

- candidates come most similar first, there in raster order;
- the reference is the frame of the last inference; the OpenVLA-OFT evaluation there compares the frame with itself;
- entropy is that of the text, proprioception and action rows, which are never reused; there of all computed rows.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from vla_bench.errors import OptionError
from vla_bench.policy import Division
from vla_bench_policies.token_cache.layout import RowLayout
from vla_bench_policies.token_cache.method import TokenMethod
from vla_bench_policies.token_cache.patches import chosen, cosine_similarity, highest
from vla_bench_policies.token_cache.plan import RowPlan
from vla_bench_policies.token_cache.rule import CacheRule, Step, at_depth

PUBLISHED_ROWS = 256
"""Visual rows of a view in OpenVLA, of which counts are given."""

STILL = {1: 130, 2: 150}
"""Most rows of a view that count as still, by number of views. Source: `get_vla_action` of OpenVLA and OpenVLA-OFT."""

RELEVANT = {1: 120, 2: 100}
"""Rows of a view that text attends to most, which are never reused, by number of views. Source:
`task_relevant_selection` of OpenVLA and OpenVLA-OFT."""

ATTENTION_LAYER = 15
"""Of 32, whose attention says what is relevant. Source: `token_attention_merge`."""

SCHEDULE_LAYERS = (2, 6, 9, 11)
"""Of 32, at which more candidates are reused. Source: siyuhsu/transformers, `LlamaModel.pruning_loc`."""

GROWTH = 0.55
"""Damping where the share grows from one layer to the next. Source: `get_layer_mask_schedule`."""


@dataclass(frozen=True)
class VlaCache(TokenMethod):
    """Reuse still, irrelevant rows: share by layer, from the entropy of the last forward's attention."""

    NAME: ClassVar[str] = "vla-cache"
    division: ClassVar[Division] = Division.TEMPORAL_CACHE

    similarity: float = 0.996
    """Least cosine between a patch's pixels now and at the last inference (`find_static_patches`). Above 1 nothing is
    still, which is the exact setting."""

    def __post_init__(self) -> None:
        """Refuse what is no similarity."""
        if isinstance(self.similarity, bool) or not isinstance(self.similarity, int | float):
            raise OptionError(f"{self.NAME}: similarity", self.similarity, "a number, as in 'vla-cache:0.996'")

    def rule(self) -> CacheRule:
        """Return a new rule."""
        return _VlaCache(self.name, self.similarity, provenance="self", compares=True)


@dataclass
class _VlaCache(CacheRule):
    similarity: float = 0.996

    def watched(self, layout: RowLayout, n_layers: int) -> dict[int, np.ndarray]:
        return {layer: layout.answering() for layer in range(n_layers)}

    def plan(self, step: Step) -> RowPlan:
        candidates = self._candidates(step)
        shares = growth_limited([_entropy(step.attention[layer]) for layer in range(step.n_layers)])
        plan, count = step.full(), 1  # at least one candidate, as released
        for layer in sorted({at_depth(layer, step.n_layers) for layer in SCHEDULE_LAYERS}):
            count = max(count, int(shares[layer] * len(candidates)))
            plan = plan.reuse(chosen(candidates[:count], step.layout.n_visual), from_layer=layer)
        return plan

    def _candidates(self, step: Step) -> np.ndarray:
        """Return the rows that are still and not relevant, most similar first."""
        assert step.reference is not None
        layout = step.layout
        alike = cosine_similarity(step.frames, step.reference, layout.grid)
        text = slice(0, layout.n_text)  # of the watched rows
        attention = step.attention[at_depth(ATTENTION_LAYER, step.n_layers)]
        looked = attention[text, layout.visual].mean(dim=0).cpu().numpy()
        views = min(layout.n_views, max(STILL))
        keep = np.zeros(layout.n_visual, dtype=bool)
        for view in map(layout.view, range(layout.n_views)):
            n_still, n_relevant = (count[views] * layout.rows_per_view // PUBLISHED_ROWS for count in (STILL, RELEVANT))
            still = highest(alike[view], n_still)
            still = still[alike[view][still] >= self.similarity]
            relevant = highest(looked[view], n_relevant)
            keep[np.setdiff1d(still, relevant) + view.start] = True
        return np.array([row for row in highest(alike, layout.n_visual) if keep[row]], dtype=np.int64)


def growth_limited(entropies: list[float]) -> np.ndarray:
    """Return the share of candidates that each layer reuses (`get_layer_mask_schedule`): certain layers reuse more."""
    entropy = np.array(entropies)
    spread = entropy.max() - entropy.min()
    shares = 1 - (entropy - entropy.min()) / spread if spread > 0 else np.ones(len(entropy))
    for layer in range(1, len(shares)):
        if shares[layer] > shares[layer - 1]:
            shares[layer] = shares[layer - 1] + GROWTH * (shares[layer] - shares[layer - 1])
    return shares


def _entropy(attention: Tensor) -> float:
    """Return the mean entropy [nat] of rows of attention that sum to 1."""
    shares = attention.double().clamp(min=1e-12)
    return float(-(shares * shares.log()).sum(dim=-1).mean())


METHOD = VlaCache
