"""A Llama over rows in static buffers: all of them, a bucket, or fewer from some layer on."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from vla_bench_policies.static.pointwise import PLAIN, Kernels
from vla_bench_policies.static.weights import LlamaWeights
from vla_bench_policies.token_cache.attention import additive, attention_of
from vla_bench_policies.token_cache.layout import RowLayout

ALIGNED = 16
"""Slots are a multiple of it: fused attention copies masks whose rows begin elsewhere."""


@dataclass(frozen=True)
class Watch:
    """The attention of some rows behind the visual ones to the visual rows, in one layer."""

    layer: int
    rows: slice
    """Of the prompt."""
    into: Float[Tensor, " visual"]
    """Where the mean over heads and rows is put."""


@dataclass(frozen=True)
class _Present:
    """The rows that some layers compute."""

    cosine: Float[Tensor, "rows w"]
    sine: Float[Tensor, "rows w"]
    slots: Int[Tensor, " rows"] | None
    """Where their keys and values are kept; None where nobody looks at them later."""
    mask: Float[Tensor, "rows slots"] | None = None
    """Added to the scores of slots; None where rows see all of them, or only each other."""
    among: bool = False
    """Whether they look at each other only."""


class StaticDecoder:
    """Layers over the rows of one prompt. Nothing is allocated that outlives a step, and nothing waits for the host.

    `rows` holds what is embedded; whoever sees pictures or words writes there. Slots of keys and values are original
    positions; the one behind the last row takes what padding writes, and no row of the prompt sees it.
    """

    def __init__(self, weights: LlamaWeights, layout: RowLayout, n_given: int, kernels: Kernels = PLAIN) -> None:
        """Reserve the buffers.

        Args:
            weights: Shared with whom it may concern; they are not changed.
            layout: Of the prompt.
            n_given: Rows of the prompt; the layout may have places behind them for tokens that are decoded later.
            kernels: Between the matrix products.
        """
        self.weights, self.layout, self.n_given, self.kernels = weights, layout, n_given, kernels
        shape, like = weights.shape, weights.norm
        self.head_width = shape.width // shape.heads
        self._n_turned = shape.heads + shape.kv_heads
        self.n_slots = -(-(layout.n_rows + 1) // ALIGNED) * ALIGNED
        self.rows: Float[Tensor, "slots d"] = like.new_zeros(self.n_slots, shape.width)
        size = (shape.kv_heads, self.n_slots, self.head_width)
        self.keys = [like.new_zeros(size) for _ in range(shape.layers)]
        self.values = [like.new_zeros(size) for _ in range(shape.layers)]
        self.position = torch.arange(self.n_slots, device=like.device)
        self.kept = torch.ones(self.n_slots, dtype=torch.bool, device=like.device)
        """Slots that later rows see in layers behind a cut."""
        self._cosine, self._sine = _turns(self.n_slots, self.head_width, shape.rope_theta, like)
        self._every = self.position[:n_given].clone()

    def whole(self, n_wanted: int, keep: bool = True, watch: Watch | None = None) -> Float[Tensor, "wanted d"]:
        """Return the last states of all rows.

        Args:
            n_wanted: Last rows whose states are wanted; the last layer computes no others.
            keep: Whether keys and values are kept for later rows and steps.
            watch: Attention that is looked at.
        """
        present = self._present(self._every if keep else None, among=True)
        x, y = self._begun(self.rows[: self.n_given])
        return self._through(range(self.weights.shape.layers), x, y, present, n_wanted, watch)[1]

    def partial(
        self, rows: Int[Tensor, " bucket"], n_wanted: int, watch: Watch | None = None
    ) -> Float[Tensor, "wanted d"]:
        """Return the last states when only some rows are computed, and keys and values of the rest are the last ones.

        Args:
            rows: Original positions; those behind the visual rows last, and the spare slot for padding.
            n_wanted: Last rows whose states are wanted.
            watch: Attention that is looked at.
        """
        mask = None if self.layout.bidirectional else self._mask(self.position <= rows[:, None])
        x, y = self._begun(self.rows.index_select(0, rows))
        present = self._present(rows, mask)
        return self._through(range(self.weights.shape.layers), x, y, present, n_wanted, watch)[1]

    def deleted(
        self,
        cut: int,
        choose: Callable[[], Int[Tensor, " left"]],
        n_wanted: int,
        keep: bool = True,
        watch: Watch | None = None,
    ) -> Float[Tensor, "wanted d"]:
        """Return the last states when from one layer on the chosen rows are alone.

        Args:
            cut: The first layer without the others.
            choose: Returns the original positions of the rows that stay, in order and without padding; it is asked
                before the cut and may look at what was watched.
            n_wanted: Last rows whose states are wanted.
            keep: Whether keys and values are kept for later rows.
            watch: Attention that is looked at, in a layer before the cut.
        """
        n_layers = self.weights.shape.layers
        every = self._present(self._every if keep else None, among=True)
        x, y = self._begun(self.rows[: self.n_given])
        x, y = self._through(range(cut), x, y, every, None, watch)
        left = choose()
        if keep:
            self.kept[: self.n_given].fill_(False)
            self.kept.index_fill_(0, left, True)
        present = self._present(left, among=True, keep=keep)
        x, y = x.index_select(0, left), y.index_select(0, left)
        return self._through(range(cut, n_layers), x, y, present, n_wanted, None)[1]

    def one_more(
        self, x: Float[Tensor, "1 d"], position: Int[Tensor, " 1"], cut: int | None = None
    ) -> Float[Tensor, "1 d"]:
        """Return the last state of a row behind the prompt, which sees what is kept and those before it.

        Args:
            x: Embedded.
            position: On the GPU.
            cut: The layer from which rows were deleted; None if none were.
        """
        n_layers = self.weights.shape.layers
        before = self.position <= position[:, None]
        x, y = self._begun(x)
        first = n_layers if cut is None else cut
        for layers, seen in ((range(first), before), (range(first, n_layers), before & self.kept)):
            if layers:
                x, y = self._through(layers, x, y, self._present(position, self._mask(seen)), None, None)
        return y

    def _present(
        self, rows: Tensor | None, mask: Tensor | None = None, among: bool = False, keep: bool = True
    ) -> _Present:
        if rows is None or rows is self._every:
            cosine, sine = self._cosine[: self.n_given], self._sine[: self.n_given]
        else:
            cosine, sine = self._cosine.index_select(0, rows), self._sine.index_select(0, rows)
        return _Present(cosine, sine, rows if keep else None, mask, among)

    def _begun(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return rows, and the rows as the first layer's matrices get them."""
        return x, self.kernels.normed(x, self.weights.layers[0].norm_in, self.weights.shape.eps)

    def _through(
        self, layers: range, x: Tensor, y: Tensor, present: _Present, n_wanted: int | None, watch: Watch | None
    ) -> tuple[Tensor, Tensor]:
        """Return rows after some layers, and the rows as what follows gets them: normed."""
        last = self.weights.shape.layers - 1
        for index in layers:
            watched = watch if watch is not None and watch.layer == index else None
            x, y = self._layer(index, x, y, present, n_wanted if index == last else None, watched)
        return x, y

    def _layer(
        self, index: int, x: Tensor, y: Tensor, present: _Present, n_wanted: int | None, watch: Watch | None
    ) -> tuple[Tensor, Tensor]:
        """Return the rows after one layer, and as what follows gets them."""
        kernels, eps, own = self.kernels, self.weights.shape.eps, self.weights.layers[index]
        fused = own.qkv.times(y, kernels).unflatten(-1, (-1, self.head_width))
        if present.slots is None:
            both = kernels.turned(fused[:, : self._n_turned], present.cosine, present.sine)
        else:
            both = kernels.turned_and_kept(
                fused, present.cosine, present.sine, present.slots, self.keys[index], self.values[index]
            )
        query, key, value = self._looking(index, both, fused, present)
        if watch is not None:
            self._harvest(watch, query, key, present)
        if n_wanted is not None:
            query, x = query[:, -n_wanted:], x[-n_wanted:]
        x, y = kernels.added_normed(
            x, own.out.times(self._attended(query, key, value, present), kernels), own.norm_out, eps
        )
        changed = own.down.times(kernels.gated(own.gate_up.times(y, kernels)), kernels)
        following = self.weights.layers[index + 1].norm_in if index < self.weights.shape.layers - 1 else None
        return kernels.added_normed(x, changed, self.weights.norm if following is None else following, eps)

    def _looking(self, index: int, both: Tensor, fused: Tensor, present: _Present) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries (heads, rows, w), and the keys and values (kv_heads, seen, w) that they look at."""
        heads = self.weights.shape.heads
        query = both[:, :heads].transpose(0, 1)
        if present.among:
            return query, both[:, heads:].transpose(0, 1), fused[:, self._n_turned :].transpose(0, 1)
        n_seen = self.n_slots if present.mask is not None else self.layout.n_rows
        return query, self.keys[index][:, :n_seen], self.values[index][:, :n_seen]

    def _attended(self, query: Tensor, key: Tensor, value: Tensor, present: _Present) -> Float[Tensor, "rows d"]:
        """Return what the queries have seen; they may be fewer than the present rows, the last of them."""
        n_rows, mask = query.shape[1], present.mask
        causal = present.among and not self.layout.bidirectional
        if mask is not None:
            mask = mask[-n_rows:]
        elif causal and 1 < n_rows < key.shape[1]:
            mask, causal = self._order(n_rows, key.shape[1]), False
        seen = F.scaled_dot_product_attention(
            query[None], key[None], value[None], None if mask is None else mask[None, None],
            is_causal=causal and n_rows > 1, enable_gqa=query.shape[0] != key.shape[0],
        )  # fmt: skip
        return seen[0].transpose(0, 1).flatten(1)

    def _harvest(self, watch: Watch, query: Tensor, key: Tensor, present: _Present) -> None:
        """Keep the attention of the watched rows; they are counted from the end, where every bucket has them."""
        n_rows = query.shape[1]
        own = slice(n_rows - self.n_given + watch.rows.start, n_rows - self.n_given + watch.rows.stop)
        mask = present.mask
        if mask is None and not self.layout.bidirectional:
            mask = self._order(n_rows, n_rows)
        looked = attention_of(query[None, :, own], key[None], None if mask is None else mask[None, None, own])
        watch.into.copy_(looked[0, :, self.layout.visual].mean(dim=0))

    def _order(self, n_rows: int, n_keys: int) -> Float[Tensor, "rows keys"]:
        """Return the mask of the last rows of some, each of which sees those before it."""
        keys = self.position[:n_keys]
        return self._mask(keys <= keys[n_keys - n_rows :, None])

    def _mask(self, visible: Tensor) -> Tensor:
        return additive(visible, self.rows.dtype)


def _turns(n_rows: int, head_width: int, theta: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosine and sine of every position (n_rows, head_width); the sine's first half is negative."""
    steps = torch.arange(0, head_width, 2, device=like.device, dtype=torch.float32)
    positions = torch.arange(n_rows, device=like.device, dtype=torch.float32)
    angle = positions[:, None] * theta ** (-steps / head_width)
    cosine, sine = angle.cos(), angle.sin()
    return torch.cat((cosine, cosine), -1).to(like.dtype), torch.cat((-sine, sine), -1).to(like.dtype)
