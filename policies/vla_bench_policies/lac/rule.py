"""The rule that follows trained gates, with stochastic recovery of what was reused."""

from dataclasses import dataclass, field

import numpy as np
import torch

from vla_bench_policies.lac.flow import Flow, flow_named
from vla_bench_policies.lac.gates import Gates, n_reused, prepared
from vla_bench_policies.token_cache.patches import chosen, lowest
from vla_bench_policies.token_cache.plan import RowPlan
from vla_bench_policies.token_cache.rule import CacheRule, Step


@dataclass(frozen=True)
class Recovery:
    """What is recomputed although the gates would reuse it."""

    probability: float = 0.1
    """That a step recovers anything. Choice 13 of the method's table: the paper gives no number."""

    share: float = 0.25
    """Of the reused rows, drawn uniformly. Choice 13."""

    max_age: int = 0
    """Inferences after which a row is recomputed for certain; 0 means never. Not in the paper."""


@dataclass
class LacRule(CacheRule):
    """Reuse the rows of lowest score, as many as the chosen ratio says."""

    gates: Gates = field(kw_only=True)
    ratio: float | None = None
    """Instead of what the predictor chooses."""

    recovery: Recovery = field(default_factory=Recovery)
    first_layer: int = 0
    """Layers before it recompute every row."""

    flow: Flow = field(init=False)

    def __post_init__(self) -> None:
        """Make the flow that the gates were trained with."""
        self.flow = flow_named(self.gates.config.flow)

    def plan(self, step: Step) -> RowPlan:
        """Return the plan of a step after the first."""
        assert step.reference is not None  # the first step is full
        scores, ratio = self._asked(step)
        self.nominal = ratio * (1 - self.first_layer / step.n_layers)
        reused = chosen(lowest(scores, n_reused(ratio, len(scores))), len(scores))
        return step.full().reuse(reused & ~self._recovered(reused, step), from_layer=self.first_layer)

    def _asked(self, step: Step) -> tuple[np.ndarray, float]:
        """Return the rows' scores and the ratio."""
        assert step.reference is not None
        moved = torch.from_numpy(self.flow(step.reference, step.frames))
        seen = prepared(torch.from_numpy(step.frames).float(), moved, self.gates.config.px)[None]
        scores, logits = self.gates(seen, step.rows[None, step.layout.text])
        ratio = self.gates.config.ratios[int(logits[0].argmax())] if self.ratio is None else self.ratio
        return scores[0].numpy(), ratio

    def _recovered(self, reused: np.ndarray, step: Step) -> np.ndarray:
        """Return which of the rows to reuse are recomputed nevertheless."""
        back = np.zeros_like(reused)
        if step.rng.random() < self.recovery.probability:
            rows = np.flatnonzero(reused)
            back[step.rng.choice(rows, int(self.recovery.share * len(rows)), replace=False)] = True
        if self.recovery.max_age:
            back |= step.ages.max(axis=0) >= self.recovery.max_age
        return back
