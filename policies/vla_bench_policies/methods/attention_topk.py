"""Attention top-k: the control for methods that delete by attention."""

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
class AttentionTopk(TokenMethod):
    """Keep the visual rows that text, proprioception and action rows look at most in an early layer; delete the rest.

    Every row keeps its original position. What `fastv` does by one row, done by all that answer.
    """

    NAME: ClassVar[str] = "attention-topk"
    division: ClassVar[Division] = Division.LOSSY

    keep: float = 0.5
    """Share of the visual rows; 1 is the exact setting."""

    layer: int = 2
    """Layer of 32 whose attention counts; rows are gone from the next one on (choice)."""

    def __post_init__(self) -> None:
        """Refuse what is no share or no layer."""
        check_share(self.NAME, "keep", self.keep)
        check_layer(self.NAME, self.layer)

    def rule(self) -> CacheRule:
        """Return a new rule."""
        return _AttentionTopk(self.name, self.keep, self.layer, provenance="self", first_is_full=False)


@dataclass
class _AttentionTopk(CacheRule):
    keep: float = 0.5
    published_layer: int = 2

    def watched(self, layout: RowLayout, n_layers: int) -> dict[int, np.ndarray]:
        return {at_depth(self.published_layer + 1, n_layers) - 1: layout.answering()}

    def narrows_at(self, n_layers: int) -> tuple[int, ...]:
        return (at_depth(self.published_layer + 1, n_layers),)

    def narrow(self, plan: RowPlan, step: Step, inside: Inside) -> tuple[RowPlan, Merge | None]:
        n_rows = step.layout.n_visual
        looked = inside.attention[inside.layer - 1][:, step.layout.visual].mean(dim=0).cpu().numpy()
        return plan.delete(~chosen(highest(looked, round(n_rows * self.keep)), n_rows), from_layer=inside.layer), None


METHOD = AttentionTopk
