"""The rows that are still computed, on their way through the layers, and the attention that each layer calls."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from vla_bench_policies.token_cache.attention import additive, attended_eagerly, attention_of, visible_keys
from vla_bench_policies.token_cache.buffer import KeyValueBuffer
from vla_bench_policies.token_cache.clock import StageClock
from vla_bench_policies.token_cache.decoder import DecoderStack
from vla_bench_policies.token_cache.lane import Lane
from vla_bench_policies.token_cache.layout import RowLayout
from vla_bench_policies.token_cache.rule import Merge


class Stream:
    """The rows that are still computed, on their way through the layers."""

    def __init__(
        self,
        x: Tensor,
        layout: RowLayout,
        buffer: KeyValueBuffer,
        lanes: Sequence[Lane],
        stack: DecoderStack,
        clock: StageClock,
    ) -> None:
        self._clock, self._known_watches = clock, dict[tuple[int, bytes], _Watch]()
        self.x, self._layout, self._buffer, self._lanes, self._stack = x, layout, buffer, lanes, stack
        self.flops = [0] * len(lanes)
        """Operations so far, by lane; padding is nobody's."""
        self.bytes_read = [0] * len(lanes)
        """Of weights, keys and values so far, by lane; each has the weights in full, though a batch reads them once."""
        self._given = x.shape[1]
        self._eager = any(lane.rule.eager for lane in lanes)
        self._places = [np.arange(self._given) for _ in lanes]
        """The rows of the prompt that `x` holds, by lane; padding is in front."""
        self._shown: list[Tensor] = []
        self.rotation: tuple[Tensor, Tensor] = (x, x)

    def enter(self, layer: int, merges: Sequence[Merge | None]) -> None:
        """Let rows leave before a layer."""
        for index, merge in enumerate(merges):
            if merge is not None:
                self._merge(index, merge)
        if layer == 0 or any(layer in lane.plan.changes_at for lane in self._lanes):
            active = [self._rows_where(lane.plan.active(layer)) for lane in self._lanes]
            shown = [self._rows_where(lane.plan.visible(layer)) for lane in self._lanes]
            self._leave(active)
            self._arrange(active, shown)
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

    def attention(
        self, layer: int, watched: Sequence[np.ndarray | None], n_wanted: int | None = None
    ) -> tuple["RowAttention", int | None]:
        """Return what a layer calls, and how many last rows it has to compute; None for all.

        Args:
            layer: Of the decoder.
            watched: By lane, rows whose attention is harvested.
            n_wanted: Last rows whose states are wanted; None for all.
        """
        present, watches = self._present, self._watches(watched)
        if n_wanted is not None:  # whose attention is wanted has to look, too
            first = min((watch.first for watch in watches if watch is not None), default=self.x.shape[1])
            n_wanted = max(n_wanted, self.x.shape[1] - first)
        for index, (places, watch) in enumerate(zip(self._places, watches, strict=True)):
            n_keys = len(places) if present.mask is None else self._buffer.n_rows
            self.flops[index] += self._stack.cost.layer(len(places), n_keys, n_wanted)
            self.bytes_read[index] += self._stack.cost.bytes_read(n_keys)
            if watch is not None:
                self.flops[index] += self._stack.cost.scores(len(watch.at), self._buffer.n_rows)
        return RowAttention(self._buffer, layer, present, watches, self._eager, self._clock), n_wanted

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

    def _arrange(self, active: Sequence[np.ndarray], shown: Sequence[np.ndarray]) -> None:
        """Work out positions and mask for the rows that there are now."""
        self._known_watches.clear()
        device, most = self.x.device, self.x.shape[1]
        alike = all(np.array_equal(active[0], rows) for rows in active[1:])
        table = np.full((1 if alike else len(active), most), self._buffer.spare)
        for index in range(len(table)):
            table[index, most - len(active[index]) :] = active[index]
        rows = torch.from_numpy(table).to(device)
        self.rotation = self._stack.rotation(rows.clamp(max=self._buffer.n_rows - 1), self.x)
        visible = np.zeros((len(shown), self._buffer.n_rows), dtype=bool)
        for index, seen in enumerate(shown):
            visible[index, seen] = True
        self._visible = torch.from_numpy(visible).to(device)
        mask = None
        if not alike or not all(map(np.array_equal, active, shown)):
            keys = torch.arange(self._buffer.n_rows, device=device)[None]
            every = rows.expand(len(shown), -1)
            mask = additive(visible_keys(every, keys, self._visible, self._layout.bidirectional), self.x.dtype)
        self._present = Present(rows, mask, not self._layout.bidirectional, alike and most == self._given)

    def _watches(self, watched: Sequence[np.ndarray | None]) -> list["_Watch | None"]:
        """Return, by lane, where the watched rows are in the stream, and what they see."""
        found: list[_Watch | None] = []
        for index, rows in enumerate(watched):
            if rows is None:
                found.append(None)
                continue
            key = (index, rows.tobytes())
            if key not in self._known_watches:
                with self._clock.stage("gate"):
                    self._known_watches[key] = self._watch(index, rows)
            found.append(self._known_watches[key])
        return found

    def _watch(self, index: int, rows: np.ndarray) -> "_Watch":
        rows = rows[rows < self._given]  # places for rows that come after the prompt hold nothing yet
        places, device = self._places[index], self.x.device
        at = torch.from_numpy(np.searchsorted(places, rows) + self.x.shape[1] - len(places)).to(device)
        position = torch.from_numpy(np.asarray(rows)).to(device)[None]
        keys = torch.arange(self._buffer.n_rows, device=device)[None]
        shown = self._visible[index : index + 1]
        mask = additive(visible_keys(position, keys, shown, self._layout.bidirectional), torch.float32)
        return _Watch(at, int(at.min()), mask)

    def _merge(self, index: int, merge: Merge) -> None:
        """Overwrite rows by weighted means of rows, in the hidden stream."""
        places = self._places[index]
        front = self.x.shape[1] - len(places)
        first = self._layout.visual.start
        where = np.flatnonzero((places >= first) & (places < self._layout.visual.stop))
        weights = merge.weights[:, places[where] - first]
        self.flops[index] += 2 * weights.size * self.x.shape[-1]
        means = torch.from_numpy(weights).to(self.x) @ self.x[index, torch.from_numpy(where + front).to(self.x.device)]
        targets = np.searchsorted(places, merge.targets + first) + front
        self.x = self.x.clone()
        self.x[index, torch.from_numpy(targets).to(self.x.device)] = means


@dataclass(frozen=True)
class _Watch:
    at: Int[Tensor, " rows"]
    """Where the watched rows are in the stream."""
    first: int
    """The first of these places."""
    mask: Float[Tensor, "1 1 rows n_rows"]


@dataclass(frozen=True)
class Present:
    """The rows that some layers compute, and what they see."""

    rows: Int[Tensor, "#b q"]
    """Their places."""

    mask: Float[Tensor, "#b 1 q n_rows"] | None
    """Added to the scores of all places; None where nothing is reused, so that the rows see no others than each other:
    then the kernel's own causal order will do."""

    causal: bool
    """Whether, without a mask, each sees those before it only."""

    whole: bool = False
    """Whether they are all rows of the prompt."""


class RowAttention:
    """Attention at one layer: keeps keys and values, and lets the queries look at what they may see."""

    def __init__(
        self,
        buffer: KeyValueBuffer,
        layer: int,
        present: Present,
        watches: Sequence[_Watch | None] = (),
        eager: bool = False,
        clock: StageClock | None = None,
    ) -> None:
        self._buffer, self._layer, self._present = buffer, layer, present
        self._watches, self._eager, self._clock = watches, eager, clock
        self.found: list[Float[Tensor, "rows n_rows"] | None] = [None] * len(watches)

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Return what the queries (b, heads, q, w) have seen; there may be fewer than keys, those of the last rows."""
        rows, mask, n_queries = self._present.rows, self._present.mask, query.shape[2]
        first = key.shape[2] - n_queries
        self._buffer.write(self._layer, rows, key, value, self._present.whole)
        if any(self._watches):
            assert self._clock is not None
            with self._clock.stage("gate"):
                self._harvest(query, first)
        causal = mask is None and self._present.causal
        if mask is not None:
            key, value, mask = *self._buffer.all_rows(self._layer), mask[:, :, first:]
        elif causal and first:
            visible = torch.ones(n_queries, key.shape[2], dtype=torch.bool, device=key.device).tril(first)
            mask, causal = additive(visible, key.dtype)[None, None], False
        if self._eager:
            return attended_eagerly(query, key, value, mask, causal)
        shared = query.shape[1] != key.shape[1]
        return F.scaled_dot_product_attention(query, key, value, mask, is_causal=causal, enable_gqa=shared)

    def _harvest(self, query: Tensor, first: int) -> None:
        """Keep the attention of the watched rows; `first` is the place of the first query in the stream."""
        every, _ = self._buffer.all_rows(self._layer)
        for index, watch in enumerate(self._watches):
            if watch is not None:
                one = slice(index, index + 1)
                self.found[index] = attention_of(query[one, :, watch.at - first], every[one], watch.mask)[0]
