"""The rule that follows trained gates, with stochastic recovery of what was reused."""

from dataclasses import dataclass, field

import numpy as np
import torch

from vla_bench.errors import VlaBenchError
from vla_bench_policies.lac.flow import Flow, averaged, flow_named, reduced
from vla_bench_policies.lac.gates import Gates, gate_flops, n_reused, prepared
from vla_bench_policies.token_cache.patches import Since, chosen, lowest, of_pixels
from vla_bench_policies.token_cache.plan import RowPlan
from vla_bench_policies.token_cache.rule import CacheRule, Step


class GateShapeError(VlaBenchError):
    """Refuse gates for another number of rows."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(f"the gates of LAC are for {found}, the policy has {expected}: train gates for this policy")


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

    flow_px: int = 0
    """Side to which frames are averaged down before flow is computed [px]; 0 means not at all."""

    since: Since = "inference"
    """The frames that flow starts from."""

    flow: Flow = field(init=False)
    _then: np.ndarray | None = field(init=False, default=None)
    """Frames whose patches are as they were when their rows were computed."""

    def __post_init__(self) -> None:
        """Make the flow that the gates were trained with."""
        flow = flow_named(self.gates.config.flow)
        self.flow = reduced(flow, self.flow_px) if self.flow_px else flow

    def reset(self) -> None:
        """Forget the episode."""
        self._then = None

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
        config, device = self.gates.config, step.rows.device
        if (config.grid, config.text_width or step.rows.shape[1]) != (step.layout.grid, step.rows.shape[1]):
            found = f"{config.grid} x {config.grid} rows a view and text of width {config.text_width}"
            raise GateShapeError(found, f"{step.layout.grid} x {step.layout.grid}, width {step.rows.shape[1]}")
        step.spend(gate_flops(config, step.layout.n_views))
        with step.stage("flow"):
            moved = torch.from_numpy(self.flow(self._reference(step), step.frames)).to(device)
        frames = averaged(step.frames, config.px)  # floats of whole frames would be pages to be mapped in each step
        seen = prepared(torch.from_numpy(frames).to(device).float(), moved, config.px)[None]
        if self.gates.selector.weight.device != device:  # `to` visits every module, even where none has to move
            self.gates.to(device)
        scores, logits = self.gates(seen, step.rows[None, step.layout.text].to(seen.dtype))
        ratio = config.ratios[int(logits[0].argmax())] if self.ratio is None else self.ratio
        return scores[0].cpu().numpy(), ratio

    def _reference(self, step: Step) -> np.ndarray:
        """Return the frames that flow starts from (views, px, px, 3)."""
        assert step.reference is not None
        if self.since == "computed":
            computed = of_pixels(step.just_computed, step.frames, step.layout.grid)
            self._then = step.reference if self._then is None else np.where(computed, step.reference, self._then)
            return self._then
        return step.reference

    def _recovered(self, reused: np.ndarray, step: Step) -> np.ndarray:
        """Return which of the rows to reuse are recomputed nevertheless."""
        back = np.zeros_like(reused)
        if step.rng.random() < self.recovery.probability:
            rows = np.flatnonzero(reused)
            back[step.rng.choice(rows, int(self.recovery.share * len(rows)), replace=False)] = True
        if self.recovery.max_age:
            back |= step.ages.max(axis=0) >= self.recovery.max_age
        return back
