"""The partial forward: a decoder over the rows that are to be computed, with remembered keys and values of the rest."""

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from vla_bench_policies.token_cache.attention import additive, attended_eagerly, attention_of, visible_keys
from vla_bench_policies.token_cache.buffer import NEVER, KeyValueBuffer, Ledger
from vla_bench_policies.token_cache.decoder import DecoderStack
from vla_bench_policies.token_cache.layout import RowLayout
from vla_bench_policies.token_cache.plan import PlanError, RowPlan
from vla_bench_policies.token_cache.report import CacheReport, report
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


class TokenCache:
    """Decoder states of a batch of environments, each with a rule of its own.

    What is remembered of an environment is forgotten at its `reset`, when its prompt or the layout changes, and when a
    step raises; the step after that is full.
    """

    def __init__(self, stack: DecoderStack, rules: Sequence[CacheRule]) -> None:
        """Remember nothing yet.

        Args:
            stack: The decoder.
            rules: One for each environment of a batch.
        """
        self._stack = stack
        self._lanes = [_Lane(rule, stack.n_layers) for rule in rules]
        self._buffer: KeyValueBuffer | None = None
        self._layout: RowLayout | None = None
        self._decoding: list[Tensor] = []
        self.gate_ms = 0.0
        """Time that the rules took in the last step; a part of the step's."""

    @property
    def reports(self) -> list[CacheReport]:
        """Return what caching did in the last step, by environment."""
        return [lane.report for lane in self._lanes if lane.report is not None]

    @property
    def rules(self) -> list[CacheRule]:
        """Return the rules, by environment."""
        return [lane.rule for lane in self._lanes]

    def reset(self, index: int, seed: int) -> None:
        """Begin an episode of one environment."""
        self._lanes[index].rng = np.random.default_rng(seed)
        self._lanes[index].forget()

    @torch.inference_mode()
    def step(self, x: Float[Tensor, "b rows d"], layout: RowLayout, seen: Sequence[Seen]) -> Float[Tensor, "b tail d"]:
        """Return the hidden states of the rows behind the visual ones.

        Args:
            x: The embedded rows of the prompt, all of them; what is reused is not looked at.
            layout: Which rows are what. Rows of the layout behind those of `x` are places for `extend`.
            seen: What each environment shows.

        Raises:
            PlanError: If a rule's plan cannot be followed.
        """
        try:
            return self._step(x, layout, seen)
        except BaseException:
            for lane in self._lanes:  # half of a step is written: nothing of it may be reused
                lane.forget()
            raise

    @torch.inference_mode()
    def extend(self, x: Float[Tensor, "b d"], row: int) -> Float[Tensor, "b d"]:
        """Return the hidden state of one more row, computed after `step` and seen by those that follow it."""
        assert self._buffer is not None
        rows = torch.tensor([[row]], device=x.device)
        hidden, rotation = x[:, None], self._stack.rotation(rows, x)
        before = torch.arange(self._buffer.n_rows, device=x.device) <= row
        for index in range(self._stack.n_layers):
            mask = additive(before & self._decoding[index], x.dtype)[:, None, None]
            hidden = self._stack.layer(index, hidden, rotation, _Attention(self._buffer, index, rows, mask))
        return self._stack.norm(hidden)[:, 0]

    def _step(self, x: Tensor, layout: RowLayout, seen: Sequence[Seen]) -> Tensor:
        self._prepare(x, layout)
        assert self._buffer is not None
        self.gate_ms = 0.0
        steps = [
            lane.look(one, layout, rows, self._stack.project)
            for lane, one, rows in zip(self._lanes, seen, x, strict=True)
        ]
        for lane, step in zip(self._lanes, steps, strict=True):
            self._timed(lane.decide, step)
        stream = _Stream(x, layout, self._buffer, self._lanes)
        for index in range(self._stack.n_layers):
            merges = [
                self._timed(lane.narrow, step, index, stream.hidden(which)) if index in lane.narrows else None
                for which, (lane, step) in enumerate(zip(self._lanes, steps, strict=True))
            ]
            stream.enter(index, self._stack, merges)
            attention = stream.attention(index, [lane.watched.get(index) for lane in self._lanes])
            stream.x = self._stack.layer(index, stream.x, stream.rotation, attention)
            for lane, found in zip(self._lanes, attention.found, strict=True):
                if found is not None:
                    lane.attention[index] = found
        n_rest = x.shape[1] - layout.n_visual
        for lane, one in zip(self._lanes, seen, strict=True):
            lane.close(one, n_rest)
        self._decoding = stream.shown_by_layer()
        return self._stack.norm(stream.x[:, layout.visual.stop - x.shape[1] :])

    def _timed(self, ask, *arguments):
        began = time.perf_counter()
        answer = ask(*arguments)
        self.gate_ms += (time.perf_counter() - began) * 1e3
        return answer

    def _prepare(self, x: Tensor, layout: RowLayout) -> None:
        """Make room if the layout is new, and forget what had its places in another one."""
        if layout == self._layout:
            return
        stack, self._layout = self._stack, layout
        self._buffer = KeyValueBuffer(stack.n_layers, len(x), stack.kv_heads, layout.n_rows, stack.head_width, x)
        for lane in self._lanes:
            lane.enter(layout)


class _Lane:
    """What is remembered of one environment, apart from keys and values."""

    def __init__(self, rule: CacheRule, n_layers: int) -> None:
        self.rule, self.n_layers = rule, n_layers
        self.rng = np.random.default_rng(0)
        self.narrows = rule.narrows_at(n_layers)
        self.watched: dict[int, Int[np.ndarray, " rows"]] = {}
        self.plan = RowPlan.full(0, n_layers)
        self.report: CacheReport | None = None
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self.rule.reset()
        self.prompt: str | None = None
        self.ledger: Ledger | None = None
        self.reference: np.ndarray | None = None
        self.attention: Attention = {}
        self.index = 0
        self._warned = False

    def enter(self, layout: RowLayout) -> None:
        """Begin anew in another layout."""
        self.forget()
        self.watched = self.rule.watched(layout, self.n_layers)

    def look(self, seen: Seen, layout: RowLayout, rows: Tensor, project: Callable) -> Step:
        """Return what the rule may look at."""
        if self.prompt != seen.prompt:
            self.forget()
            self.prompt = seen.prompt
        if self.ledger is None:
            self.ledger = Ledger(self.n_layers, layout.n_visual)
        self._warn_of_self_comparison(seen.frames)
        return Step(
            layout, self.n_layers, seen.frames, self.reference, seen.proprio, rows, project, self.ledger.ages,
            self.attention, self.index, self.rng,
        )  # fmt: skip

    def decide(self, step: Step) -> None:
        """Ask the rule."""
        first = self.index == 0 and self.rule.first_is_full
        self.plan = step.full() if first else self.rule.plan(step)
        self._check(step.layout)
        self._because = "first" if first else "rule" if self.plan.is_full else ""
        self._nominal = 1.0 - self.plan.computed_share()
        self.narrows = () if first else self.rule.narrows_at(self.n_layers)
        self.attention = {}

    def narrow(self, step: Step, layer: int, hidden: Tensor) -> Merge | None:
        """Ask the rule again, now that it can look at this step's attention and hidden states."""
        earlier = self.plan
        self.plan, merge = self.rule.narrow(earlier, step, Inside(layer, self.attention, hidden))
        self.plan.check_follows(earlier, layer)
        self._check(step.layout)
        return merge

    def close(self, seen: Seen, n_rest: int) -> None:
        """Remember what the next step will compare with."""
        assert self.ledger is not None
        self.ledger.advance(self.plan.active_until)
        self.report = report(
            self.rule.name, self.rule.provenance, self._because, self._nominal, self.plan, n_rest, self.ledger.ages
        )
        self.reference = seen.frames
        self.index += 1

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


class _Stream:
    """The rows that are still computed, on their way through the layers."""

    def __init__(self, x: Tensor, layout: RowLayout, buffer: KeyValueBuffer, lanes: Sequence[_Lane]) -> None:
        self.x, self._layout, self._buffer, self._lanes = x, layout, buffer, lanes
        self._given = x.shape[1]
        self._eager = any(lane.rule.eager for lane in lanes)
        self._places = [np.arange(self._given) for _ in lanes]
        """The rows of the prompt that `x` holds, by lane; padding is in front."""
        self._shown: list[Tensor] = []
        self.rotation: tuple[Tensor, Tensor] = (x, x)

    def enter(self, layer: int, stack: DecoderStack, merges: Sequence[Merge | None]) -> None:
        """Let rows leave before a layer."""
        for index, merge in enumerate(merges):
            if merge is not None:
                self._merge(index, merge)
        if layer == 0 or any(layer in lane.plan.changes_at for lane in self._lanes):
            active = [self._rows_where(lane.plan.active(layer)) for lane in self._lanes]
            shown = [self._rows_where(lane.plan.visible(layer)) for lane in self._lanes]
            self._leave(active)
            self._arrange(active, shown, stack)
        self._shown.append(self._visible)

    def hidden(self, index: int) -> Float[Tensor, "visual d"]:
        """Return the visual rows of a lane, zero where one has left."""
        places, first = self._places[index], self._layout.visual.start
        where = np.flatnonzero((places >= first) & (places < self._layout.visual.stop))
        rows = self.x.new_zeros(self._layout.n_visual, self.x.shape[-1])
        device, front = self.x.device, self.x.shape[1] - len(places)
        rows[torch.from_numpy(places[where] - first).to(device)] = self.x[
            index, torch.from_numpy(where + front).to(device)
        ]
        return rows

    def attention(self, layer: int, watched: Sequence[np.ndarray | None]) -> "_Attention":
        """Return what a layer calls."""
        own = None if self._own is None else (self._own, self._layout.bidirectional)
        return _Attention(self._buffer, layer, self._rows, self._mask, own, self._watches(watched), self._eager)

    def shown_by_layer(self) -> list[Tensor]:
        """Return, by layer, which rows of the buffer are seen by rows that come after the prompt (b, n_rows)."""
        later = torch.arange(self._buffer.n_rows, device=self.x.device) >= self._given
        return [shown | later for shown in self._shown]

    def _rows_where(self, visual: np.ndarray) -> np.ndarray:
        """Return the prompt's rows that are no visual rows, or such as are wanted, in order."""
        wanted = np.ones(self._given, dtype=bool)
        wanted[self._layout.visual] = visual
        return np.flatnonzero(wanted)

    def _leave(self, active: Sequence[np.ndarray]) -> None:
        """Drop rows from the stream; lanes with fewer rows are padded in front."""
        most = max(map(len, active))
        if most == self.x.shape[1] and all(map(np.array_equal, active, self._places)):
            return
        width = self.x.shape[1]
        picked = np.zeros((len(active), most), dtype=np.int64)
        for index, (rows, places) in enumerate(zip(active, self._places, strict=True)):
            picked[index, most - len(rows) :] = np.searchsorted(places, rows) + width - len(places)
        device = self.x.device
        if len(active) == 1:
            self.x = self.x.index_select(1, torch.from_numpy(picked[0]).to(device))
        else:
            chosen = torch.from_numpy(picked).to(device)[..., None].expand(-1, -1, self.x.shape[-1])
            self.x = self.x.gather(1, chosen)
        self._places = list(active)

    def _arrange(self, active: Sequence[np.ndarray], shown: Sequence[np.ndarray], stack: DecoderStack) -> None:
        """Work out positions and mask for the rows that there are now."""
        device, most = self.x.device, self.x.shape[1]
        alike = all(np.array_equal(active[0], rows) for rows in active[1:])
        table = np.full((1 if alike else len(active), most), self._buffer.spare)
        for index in range(len(table)):
            table[index, most - len(active[index]) :] = active[index]
        self._rows = torch.from_numpy(table).to(device)
        self.rotation = stack.rotation(self._rows.clamp(max=self._buffer.n_rows - 1), self.x)
        visible = np.zeros((len(shown), self._buffer.n_rows), dtype=bool)
        for index, rows in enumerate(shown):
            visible[index, rows] = True
        self._visible = torch.from_numpy(visible).to(device)
        self._own, self._mask = None, None
        if alike and all(map(np.array_equal, active, shown)):
            self._own = self._rows  # nothing is reused: rows see each other, and the kernel's own causal order will do
        else:
            keys = torch.arange(self._buffer.n_rows, device=device)[None]
            rows = self._rows.expand(len(shown), -1)
            self._mask = additive(visible_keys(rows, keys, self._visible, self._layout.bidirectional), self.x.dtype)

    def _watches(self, watched: Sequence[np.ndarray | None]) -> list["_Watch | None"]:
        """Return, by lane, where the watched rows are in the stream, and what they see."""
        found: list[_Watch | None] = []
        for index, rows in enumerate(watched):
            if rows is None:
                found.append(None)
                continue
            rows = rows[rows < self._given]  # places for rows that come after the prompt hold nothing yet
            places = self._places[index]
            at = torch.from_numpy(np.searchsorted(places, rows) + self.x.shape[1] - len(places)).to(self.x.device)
            position = torch.from_numpy(np.asarray(rows)).to(self.x.device)[None]
            keys = torch.arange(self._buffer.n_rows, device=self.x.device)[None]
            shown = self._visible[index : index + 1]
            mask = additive(visible_keys(position, keys, shown, self._layout.bidirectional), torch.float32)
            found.append(_Watch(at, mask))
        return found

    def _merge(self, index: int, merge: Merge) -> None:
        """Overwrite rows by weighted means of rows, in the hidden stream."""
        places = self._places[index]
        front = self.x.shape[1] - len(places)
        first = self._layout.visual.start
        where = np.flatnonzero((places >= first) & (places < self._layout.visual.stop))
        weights = merge.weights[:, places[where] - first]
        means = torch.from_numpy(weights).to(self.x) @ self.x[index, torch.from_numpy(where + front).to(self.x.device)]
        targets = np.searchsorted(places, merge.targets + first) + front
        self.x = self.x.clone()
        self.x[index, torch.from_numpy(targets).to(self.x.device)] = means


@dataclass(frozen=True)
class _Watch:
    at: Int[Tensor, " rows"]
    """Where the watched rows are in the stream."""
    mask: Float[Tensor, "1 1 rows n_rows"]


class _Attention:
    """Attention at one layer: keeps keys and values, and lets the queries look at what they may see."""

    def __init__(
        self,
        buffer: KeyValueBuffer,
        layer: int,
        rows: Int[Tensor, "#b q"],
        mask: Tensor | None,
        own: tuple[Tensor, bool] | None = None,
        watches: Sequence[_Watch | None] = (),
        eager: bool = False,
    ) -> None:
        self._buffer, self._layer, self._rows, self._mask, self._own = buffer, layer, rows, mask, own
        self._watches, self._eager = watches, eager
        self.found: list[Float[Tensor, "rows n_rows"] | None] = [None] * len(watches)

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return what the queries (b, heads, q, w) have seen."""
        self._buffer.write(self._layer, self._rows, key, value)
        for index, watch in enumerate(self._watches):
            if watch is not None:
                every, _ = self._buffer.all_rows(self._layer)
                one = slice(index, index + 1)
                self.found[index] = attention_of(query[one, :, watch.at], every[one], watch.mask)[0]
        causal = False
        if self._own is None:
            key, value = self._buffer.all_rows(self._layer)
        else:
            causal = not self._own[1]
        if self._eager:
            return attended_eagerly(query, key, value, self._mask, causal)
        shared = query.shape[1] != key.shape[1]
        return F.scaled_dot_product_attention(query, key, value, self._mask, is_causal=causal, enable_gqa=shared)
