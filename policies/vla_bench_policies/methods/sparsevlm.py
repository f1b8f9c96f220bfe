"""SparseVLM (Zhang et al. 2024, arXiv:2410.04417): delete what the text does not ask for, and recycle some of it.

As released, version 1: Gumpest/SparseVLMs, `score.py`, `modelling_sparse_llama.py` and `utils.py` in
`llava/model/language_model`. The paper takes the number of rows from the rank of the attention (Eq. 7), assigns rows to
centres by cosine and adds them up (Sec. 3.3); the released code has fixed numbers, assigns by distance and averages.
There rows are renumbered when some are gone; here they keep their positions, and a merged row has its centre's.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from vla_bench.errors import OptionError
from vla_bench.policy import Division
from vla_bench_policies.token_cache.layout import RowLayout
from vla_bench_policies.token_cache.method import TokenMethod, check_share
from vla_bench_policies.token_cache.patches import chosen, highest
from vla_bench_policies.token_cache.plan import RowPlan
from vla_bench_policies.token_cache.rule import CacheRule, Inside, Merge, Step, at_depth

STAGES = ((3, 300 / 576), (7, 200 / 576), (16, 110 / 576))
"""Layer of 32, and share of the visual rows that are left from it on, merged ones not counted.

Source: `score.py`, the list for 192 rows on average. Layers 2, 6 and 15 are computed in full and rank the rows.
"""

RECYCLED = 0.3
"""Of the rows that are dropped, the share that is merged (tau in the paper). Source: `modelling_sparse_llama.py`."""

ROWS_PER_CLUSTER = 10
"""The inverse of theta in the paper. Source: `modelling_sparse_llama.py`."""


@dataclass(frozen=True)
class SparseVlm(TokenMethod):
    """Keep, at three depths, the rows that the rater words attend to most; merge the best of the rest."""

    NAME: ClassVar[str] = "sparsevlm"
    division: ClassVar[Division] = Division.LOSSY

    budget: float = 1.0
    """Multiplies the published budgets, at most to all rows; 2.0 keeps everything in the first stage."""

    recycled: float = RECYCLED
    """Share of the dropped rows that is merged into new ones; 0 only deletes."""

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        check_share(self.NAME, "recycled", self.recycled)
        if isinstance(self.budget, bool) or not isinstance(self.budget, int | float) or not 0 <= self.budget <= 6:
            raise OptionError(f"{self.NAME}: budget", self.budget, "a number from 0 to 6, as in 'sparsevlm:1.0'")

    def rule(self) -> CacheRule:
        """Return a new rule."""
        return _SparseVlm(self.name, self.budget, self.recycled, provenance="self", first_is_full=False)


@dataclass
class _SparseVlm(CacheRule):
    budget: float = 1.0
    recycled: float = RECYCLED
    raters: Tensor = field(default_factory=lambda: torch.empty(0))

    def plan(self, step: Step) -> RowPlan:
        text, visual = step.rows[step.layout.text], step.visual
        step.spend(2 * visual.numel() * len(text))
        self.raters = raters(text, visual)
        return step.full()

    def watched(self, layout: RowLayout, n_layers: int) -> dict[int, np.ndarray]:
        text = np.arange(layout.text.start, layout.text.stop)
        return {layer - 1: text for layer in self._kept(n_layers)}

    def narrows_at(self, n_layers: int) -> tuple[int, ...]:
        return tuple(self._kept(n_layers))

    def narrow(self, plan: RowPlan, step: Step, inside: Inside) -> tuple[RowPlan, Merge | None]:
        n_rows = step.layout.n_visual
        looked = inside.attention[inside.layer - 1][self.raters, step.layout.visual].mean(dim=0).cpu().numpy()
        active = plan.active(inside.layer)
        looked = np.where(active, looked, -1.0)
        n_kept = min(int(active.sum()), round(self._kept(step.n_layers)[inside.layer] * n_rows))
        ranked = highest(looked, int(active.sum()))
        kept, dropped = ranked[:n_kept], ranked[n_kept:]
        recycled = dropped[: int(self.recycled * len(dropped)) + 1] if self.recycled else dropped[:0]
        merge = merged(recycled, inside.hidden) if len(recycled) else None
        stays = np.concatenate((kept, merge.targets)) if merge is not None else kept
        return plan.delete(~chosen(stays, n_rows), from_layer=inside.layer), merge

    def _kept(self, n_layers: int) -> dict[int, float]:
        """Return the share that is left, by layer; where several stages fall on one layer, the last one's."""
        return {at_depth(layer, n_layers): min(1.0, share * self.budget) for layer, share in STAGES}


def raters(text: Tensor, visual: Tensor) -> Tensor:
    """Return the words whose mean softmax relevance to the image is at least the mean (paper, Eq. 5 and 6)."""
    relevance = (visual @ text.T).softmax(dim=-1).mean(dim=0)
    return torch.nonzero(relevance >= relevance.mean())[:, 0]


def merged(rows: np.ndarray, hidden: Tensor) -> Merge:
    """Return the merge of rows around density peaks: each cluster becomes its mean, at its centre's place.

    Density and distance are Eq. 8 and 9 of the paper, with as many neighbours as clusters, a row being its own nearest
    (`cluster_and_merge`, which adds noise so that no two are equally dense; here the lower row is the denser).
    """
    n_clusters = len(rows) // ROWS_PER_CLUSTER + 1
    features = hidden[torch.from_numpy(rows).to(hidden.device)].float().cpu()
    distance = torch.cdist(features, features, compute_mode="donot_use_mm_for_euclid_dist") / features.shape[1] ** 0.5
    nearest = distance.topk(n_clusters, largest=False).values
    density = (-(nearest**2).mean(dim=1)).exp()
    rank = torch.from_numpy(highest(density.numpy(), len(rows))).argsort()
    denser = rank[None] < rank[:, None]
    to_denser = distance.masked_fill(~denser, float("inf")).min(dim=1).values
    to_denser = torch.where(torch.isinf(to_denser), distance.max(), to_denser)
    centres = highest((density * to_denser).numpy(), n_clusters)
    member = distance[:, torch.from_numpy(centres)].argmin(dim=1).numpy()
    member[centres] = np.arange(n_clusters)
    weights = np.zeros((n_clusters, len(hidden)))
    for cluster in range(n_clusters):
        own = rows[member == cluster]
        weights[cluster, own] = 1 / len(own)
    return Merge(rows[centres], weights)


METHOD = SparseVlm
