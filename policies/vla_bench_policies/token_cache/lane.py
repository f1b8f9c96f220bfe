"""What is remembered of one environment, apart from keys and values: its rule, its ledger, the last frame."""

import warnings
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from vla_bench_policies.token_cache.buffer import NEVER, KeyValueBuffer, Ledger
from vla_bench_policies.token_cache.clock import StageClock
from vla_bench_policies.token_cache.decoder import DecoderStack
from vla_bench_policies.token_cache.layout import RowLayout
from vla_bench_policies.token_cache.plan import PlanError, RowPlan
from vla_bench_policies.token_cache.report import CacheReport
from vla_bench_policies.token_cache.rule import Attention, CacheRule, Inside, Merge, Step


class SelfComparisonWarning(UserWarning):
    """A frame is compared with itself: everything looks still, and a reuse rule reuses everything.

    Published evaluators have had this fault with action chunks. Pictures of a simulator can be equal when nothing
    moves; more often the caller hands over the same buffer twice.
    """


@dataclass(frozen=True)
class Seen:
    """What one environment shows in one step, besides its embedded rows."""

    frames: UInt8[np.ndarray, "views px px 3"]
    """What the vision tower sees; an array of its own, which nobody writes to afterwards."""

    proprio: Float[np.ndarray, " p"]

    prompt: str
    """Whatever must not change while rows are remembered: the instruction."""


class Lane:
    """What is remembered of one environment, apart from keys and values."""

    def __init__(self, rule: CacheRule, n_layers: int) -> None:
        self.rule, self.n_layers = rule, n_layers
        self.rng = np.random.default_rng(0)
        self.narrows = rule.narrows_at(n_layers)
        self.watched: dict[int, Int[np.ndarray, " rows"]] = {}
        self.plan = RowPlan.full(0, n_layers)
        self.report: CacheReport | None = None
        self.layout: RowLayout | None = None
        self.buffer: KeyValueBuffer | None = None
        self.forget()

    def begin(self, seed: int) -> None:
        """Begin an episode."""
        self.rng = np.random.default_rng(seed)
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self.rule.reset()
        self.prompt: str | None = None
        self.ledger: Ledger | None = None
        self.reference: np.ndarray | None = None
        self.attention: Attention = {}
        self.index = 0
        self._gate_flops = 0
        self._warned = False

    def enter(self, layout: RowLayout, stack: DecoderStack, like: Tensor) -> None:
        """Begin anew if the layout is another one: what was remembered had its places in the old one."""
        if layout == self.layout:
            return
        self.forget()
        self.layout = layout
        self.buffer = KeyValueBuffer.empty(stack.n_layers, stack.kv_heads, layout.n_rows, stack.head_width, like)
        self.watched = self.rule.watched(layout, self.n_layers)

    def look(self, seen: Seen, layout: RowLayout, rows: Tensor, stack: DecoderStack, clock: StageClock) -> Step:
        """Return what the rule may look at."""
        if self.prompt != seen.prompt:
            self.forget()
            self.prompt = seen.prompt
        if self.ledger is None:
            self.ledger = Ledger(self.n_layers, layout.n_visual)
            self._reused = np.zeros(layout.n_visual, dtype=bool)
        self._warn_of_self_comparison(seen.frames)
        self._gate_flops = 0
        return Step(
            layout, self.n_layers, seen.frames, self.reference, seen.proprio, rows, partial(self._project, stack),
            self.ledger.ages, self.attention, self.index, self.rng, self._spend, clock.stage,
        )  # fmt: skip

    def decide(self, step: Step) -> None:
        """Ask the rule."""
        first = self.index == 0 and self.rule.first_is_full
        self.plan = step.full() if first else self.rule.plan(step)
        self._check(step.layout)
        self._because = "first" if first else "rule" if self.plan.is_full else ""
        meant = None if first else self.rule.nominal
        self._nominal = 1.0 - self.plan.computed_share() if meant is None else meant
        self.narrows = () if first else self.rule.narrows_at(self.n_layers)
        self.attention = {}

    def narrow(self, step: Step, layer: int, hidden: Tensor) -> Merge | None:
        """Ask the rule again, now that it can look at this step's attention and hidden states."""
        earlier = self.plan
        self.plan, merge = self.rule.narrow(earlier, step, Inside(layer, self.attention, hidden))
        self.plan.check_follows(earlier, layer)
        self._check(step.layout)
        return merge

    def close(self, seen: Seen, n_rest: int, flops: int, bytes_read: int) -> None:
        """Report the step, and remember what the next one will compare with.

        Args:
            seen: What was shown.
            n_rest: Rows that are not visual.
            flops: Operations of the layers, without what the rule itself has spent.
            bytes_read: Of weights, keys and values, by the layers.
        """
        assert self.ledger is not None
        self.ledger.advance(self.plan.active_until)
        self.report = CacheReport.of(
            self.rule, self._because, self._nominal, self.plan, n_rest, flops + self._gate_flops, bytes_read,
            self._reused, self.ledger.ages,
        )  # fmt: skip
        self._reused = self.plan.visible_until > self.plan.active_until
        self.reference = seen.frames
        self.index += 1

    def _project(self, stack: DecoderStack, layer: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return a layer's queries and keys for a rule, and count them."""
        self._spend(stack.cost.projection(len(rows)))
        return stack.project(layer, rows)

    def _spend(self, flops: int) -> None:
        self._gate_flops += flops

    def _warn_of_self_comparison(self, frames: np.ndarray) -> None:
        """Warn, once an episode, when a rule that compares frames is given the same one twice."""
        if self._warned or not self.rule.compares or self.reference is None:
            return
        if np.array_equal(self.reference, frames):
            self._warned = True
            warnings.warn("the frame equals the one of the last inference bit for bit", SelfComparisonWarning, 4)

    def _check(self, layout: RowLayout) -> None:
        """Refuse a plan for another number of rows, or one that reuses what was never computed."""
        assert self.ledger is not None
        if len(self.plan.active_until) != layout.n_visual or self.plan.n_layers != self.n_layers:
            found = f"is for {len(self.plan.active_until)} rows and {self.plan.n_layers} layers"
            raise PlanError(found, f"{layout.n_visual} rows and {self.n_layers} layers")
        if self.plan.is_full:
            return
        layers = np.arange(self.n_layers)[:, None]
        reused = (layers >= self.plan.active_until) & (layers < self.plan.visible_until)
        if (unknown := reused & (self.ledger.ages == NEVER)).any():
            layer, row = np.argwhere(unknown)[0]
            raise PlanError(f"reuses row {row} at layer {layer}, which was never computed there", "it to be recomputed")
