"""FastV (Chen et al. 2024, "An Image is Worth 1/2 Tokens After Layer 2", arXiv:2403.06764).

As released: pkunlp-icler/FastV, `src/FastV/llava-hf/transformers/src/transformers/models/llama/modeling_llama.py`. By
the paper (Sec. 4.1) rows are ranked by the attention they get from all others, not from the last one alone.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vla_bench.policy import Division
from vla_bench_policies.token_cache.layout import RowLayout
from vla_bench_policies.token_cache.method import TokenMethod, check_layer, check_share
from vla_bench_policies.token_cache.patches import chosen, highest
from vla_bench_policies.token_cache.plan import RowPlan
from vla_bench_policies.token_cache.rule import CacheRule, Inside, Merge, Step, at_depth


@dataclass(frozen=True)
class FastV(TokenMethod):
    """Delete, at one layer, the visual rows that the prompt's last row looks at least in the layer before.

    Attention is the mean over heads; rows keep their positions. Nothing is kept from one step to the next. The layers
    before are full, so what it looks at is undamaged.
    """

    NAME: ClassVar[str] = "fastv"
    division: ClassVar[Division] = Division.LOSSY

    delete: float = 0.5
    """Share R of the visual rows that is deleted; 0.5, 0.75 and 0.9 in the paper's Table 1. 0 is the exact setting."""

    layer: int = 3
    """Layer K of 32 from which they are gone; 3 in the released example (README), mostly 2 in the paper (Sec. 5.3)."""

    def __post_init__(self) -> None:
        """Refuse what is no share or no layer."""
        check_share(self.NAME, "delete", self.delete)
        check_layer(self.NAME, self.layer)

    def rule(self) -> CacheRule:
        """Return a new rule."""
        return _FastV(self.name, self.delete, self.layer, provenance="self", first_is_full=False)


@dataclass
class _FastV(CacheRule):
    share: float = 0.5
    published_layer: int = 3

    def watched(self, layout: RowLayout, n_layers: int) -> dict[int, np.ndarray]:
        return {at_depth(self.published_layer, n_layers) - 1: np.array([layout.proprio])}

    def narrows_at(self, n_layers: int) -> tuple[int, ...]:
        return (at_depth(self.published_layer, n_layers),)

    def narrow(self, plan: RowPlan, step: Step, inside: Inside) -> tuple[RowPlan, Merge | None]:
        n_rows = step.layout.n_visual
        looked = inside.attention[inside.layer - 1][0, step.layout.visual].cpu().numpy()
        kept = highest(looked, round(n_rows * (1 - self.share)))
        return plan.delete(~chosen(kept, n_rows), from_layer=inside.layer), None


METHOD = FastV
