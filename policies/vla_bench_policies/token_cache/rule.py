"""What decides which rows are recomputed: the only place where token methods differ."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from vla_bench_policies.token_cache.layout import RowLayout
from vla_bench_policies.token_cache.plan import RowPlan

Provenance = Literal["clean", "self"]
"""Whether a gate reads inputs only, or what the accelerated forward itself produced, such as attention: its own errors
corrupt that, unless all layers before were full."""

Attention = dict[int, Float[Tensor, "rows keys"]]
"""By layer: the attention of the watched rows to all rows of the prompt, mean over heads."""

PUBLISHED_LAYERS = 32
"""Layers of the model (Llama-2-7B) for which papers give their constants."""


@dataclass(frozen=True)
class Step:
    """All that a rule may look at in one step of one environment."""

    layout: RowLayout
    n_layers: int

    frames: UInt8[np.ndarray, "views px px 3"]
    """What the vision tower sees now, in the order of the views."""

    reference: UInt8[np.ndarray, "views px px 3"] | None
    """What it saw at the last inference; None in the first step after a reset."""

    proprio: Float[np.ndarray, " p"]
    """As observed, in the environment's units."""

    rows: Float[Tensor, "rows d"]
    """All rows of the prompt as the decoder gets them now."""

    project: Callable[[int, Tensor], tuple[Tensor, Tensor]]
    """Returns the queries and keys (heads, rows, w) that a layer makes of rows (rows, d), before their rotation."""

    ages: Int[np.ndarray, "layers visual"]
    """Steps since each row was computed at each layer, before this step; `buffer.NEVER` after a reset."""

    attention: Attention
    """Watched in the last forward."""

    index: int
    """Inferences since the reset."""

    rng: np.random.Generator
    """For whatever is random, seeded by the episode."""

    spend: Callable[[int], None]
    """Takes the floating-point operations of matrix products that the rule does itself; `project` counts its own."""

    stage: Callable[[str], AbstractContextManager[None]]
    """Around a part of the rule that is a stage of its own, such as `flow`; the rest is `gate`."""

    @property
    def visual(self) -> Float[Tensor, "visual d"]:
        """Return the visual rows as the decoder gets them now."""
        return self.rows[self.layout.visual]

    @property
    def just_computed(self) -> Bool[np.ndarray, " visual"]:
        """Return which visual rows were computed at every layer in the last inference."""
        return self.ages.max(axis=0) == 0

    def full(self) -> RowPlan:
        """Return the plan that recomputes everything."""
        return RowPlan.full(self.layout.n_visual, self.n_layers)


@dataclass(frozen=True)
class Inside:
    """What a rule may look at in the middle of a forward, before some layer."""

    layer: int

    attention: Attention
    """Watched in the layers before it."""

    hidden: Float[Tensor, "visual d"]
    """Visual rows in the stream; zero where a row has left it."""


@dataclass(frozen=True)
class Merge:
    """Some active visual rows become weighted means of active visual rows, in the hidden stream."""

    targets: Int[np.ndarray, " merged"]
    """Visual rows that are overwritten."""

    weights: Float[np.ndarray, "merged visual"]
    """Of the rows that are averaged; rows that are not active must have weight 0."""


@dataclass
class CacheRule:
    """Decide a plan before the decoder runs and, for rules that read its attention, narrow it at some layers.

    A rule is asked for one environment; for several there are several. What it keeps between steps it forgets at
    `reset`.
    """

    name: str = "full"
    """The specification that makes it, as in the tables."""

    provenance: Provenance = field(default="clean", kw_only=True)

    first_is_full: bool = field(default=True, kw_only=True)
    """Whether the rule is not asked in the first step after a reset, because it reuses or compares."""

    compares: bool = field(default=False, kw_only=True)
    """Whether the rule compares frames, so that a frame compared with itself is worth a warning."""

    nominal: float | None = field(default=None, kw_only=True)
    """Share of the rows that the rule meant to leave out, set by `plan` where the plan leaves out another: one that
    recomputes some of them for safety. None means what the plan says."""

    eager: bool = field(default=False, kw_only=True)
    """Whether attention is computed as whole maps instead of by the fused kernel: the slow reference of some papers."""

    def reset(self) -> None:
        """Forget the episode."""

    def plan(self, step: Step) -> RowPlan:
        """Return what to do with each visual row; everything is recomputed by default."""
        return step.full()

    def overruled(self, step: Step) -> None:
        """Take note of a step that is full for another reason, so that `plan` is not asked; nothing by default."""

    def watched(self, layout: RowLayout, n_layers: int) -> dict[int, Int[np.ndarray, " rows"]]:
        """Return, by layer, the rows (of the prompt) whose attention is wanted; none by default."""
        return {}

    def narrows_at(self, n_layers: int) -> tuple[int, ...]:
        """Return the layers before which `narrow` is asked; none by default."""
        return ()

    def narrow(self, plan: RowPlan, step: Step, inside: Inside) -> tuple[RowPlan, Merge | None]:
        """Return the plan from `inside.layer` on, and what to merge before the rows that leave are gone."""
        return plan, None


def at_depth(layer: int, n_layers: int) -> int:
    """Return the layer at the depth of a published one (of `PUBLISHED_LAYERS`), at least 1 where that is."""
    return min(n_layers - 1, max(min(layer, 1), round(layer / PUBLISHED_LAYERS * n_layers)))
