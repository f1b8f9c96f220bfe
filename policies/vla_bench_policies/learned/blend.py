"""A frozen decoder run densely, in which keys and values that are reused are blended in.

In every layer `K = K_old + m (K_new - K_old)` and `V` alike on the visual rows, with m = 1 where a row is recomputed.
With a mask of zeros and ones this equals the token cache's sparse forward: a row that is reused still runs through
the dense layers, and nobody sees it.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vla_bench_policies.token_cache.attention import additive, attention_of
from vla_bench_policies.token_cache.decoder import Attend
from vla_bench_policies.token_cache.layout import RowLayout
from vla_bench_policies.token_cache.rule import at_depth

ALIGNED_LAYER = 15
"""Of 32: whose attention stage I imitates. Choice, the middle; the paper does not say."""


class Layers(Protocol):
    """What of a `DecoderStack` is run; gradients must go through it to the rows."""

    @property
    def n_layers(self) -> int:
        """Return the number of layers."""
        ...

    def rotation(self, positions: Int[Tensor, "b q"], like: Tensor) -> tuple[Tensor, Tensor]:
        """Return what turns queries and keys."""
        ...

    def layer(
        self, index: int, x: Tensor, rotation: tuple[Tensor, Tensor], attend: Attend, n_wanted: int | None = None
    ) -> Tensor:
        """Return the last `n_wanted` rows after one layer, or all."""
        ...

    def norm(self, x: Tensor) -> Tensor:
        """Return the hidden states after the last norm."""
        ...


@dataclass(frozen=True)
class Remembered:
    """Rotated keys and values of the visual rows, by layer, on which nothing depends."""

    keys: tuple[Float[Tensor, "b heads visual w"], ...]
    values: tuple[Float[Tensor, "b heads visual w"], ...]


@dataclass(frozen=True)
class Passed:
    """What one forward leaves."""

    tail: Float[Tensor, "b wanted width"]
    """Hidden states of the last rows, after the norm."""

    remembered: Remembered
    """For the next step."""

    attention: Float[Tensor, "b visual"]
    """Mean attention of text, proprioception and action rows to each visual row at the aligned layer."""


@dataclass(frozen=True)
class _Forward:
    """What all layers of one forward share."""

    layout: RowLayout
    rotation: tuple[Tensor, Tensor]
    seeing: Float[Tensor, "*b q q"] | None
    mask: Float[Tensor, "b visual"] | None
    remembered: Remembered | None
    n_wanted: int


class DenseDecoder:
    """Runs a decoder's layers over prompts of equal length."""

    def __init__(self, layers: Layers, first_layer: int = 0, recomputed: bool = False) -> None:
        """Take layers.

        Args:
            layers: Frozen.
            first_layer: Layers before it are always computed in full.
            recomputed: Whether a layer is computed again for its gradient, instead of everything in it being kept: a
                third more time, and a tenth of the memory.
        """
        self._layers, self._first, self._recomputed = layers, first_layer, recomputed
        self._aligned = at_depth(ALIGNED_LAYER, layers.n_layers)

    def run(
        self,
        rows: Float[Tensor, "b rows width"],
        layout: RowLayout,
        n_wanted: int,
        mask: Float[Tensor, "b visual"] | None = None,
        remembered: Remembered | None = None,
        shown: Bool[Tensor, "b visual"] | None = None,
    ) -> Passed:
        """Return the hidden states of the last rows; without a mask everything is recomputed.

        Args:
            rows: Embedded, those that answer included.
            layout: Which of them are what.
            n_wanted: How many of the last ones answer.
            mask: 1 where a row is recomputed, 0 where what is remembered serves.
            remembered: Of an earlier step.
            shown: False where a row is deleted before the first layer; none is, by default.
        """
        positions = torch.arange(rows.shape[1], device=rows.device)[None]
        rotation = self._layers.rotation(positions, rows)
        forward = _Forward(layout, rotation, _seeing(rows, layout, shown), mask, remembered, n_wanted)
        x, keys, values = rows, [], []
        attention = rows.new_zeros(len(rows), layout.n_visual)
        again = self._recomputed and torch.is_grad_enabled()
        for index in range(self._layers.n_layers):
            given = (index, x, forward)
            x, key, value, looked = (
                checkpoint(self._layer, *given, use_reentrant=False) if again else self._layer(*given)
            )
            keys.append(key)
            values.append(value)
            attention = attention if looked is None else looked
        tail = self._layers.norm(x[:, -n_wanted:])
        return Passed(tail, Remembered(tuple(keys), tuple(values)), attention)

    def _layer(self, index: int, x: Tensor, forward: _Forward) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Return the rows after a layer, its visual keys and values, and the attention if this is the aligned layer."""
        visual, old, mask = forward.layout.visual, forward.remembered, forward.mask
        kept: list[Tensor] = []
        looked: list[Tensor] = []

        def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            if mask is not None and old is not None and index >= self._first:
                key = _blended(key, old.keys[index], mask, visual)
                value = _blended(value, old.values[index], mask, visual)
            kept.extend((key[:, :, visual].detach(), value[:, :, visual].detach()))
            if index == self._aligned:
                looked.append(_attention(query.detach(), key.detach(), forward.layout))
            first = key.shape[2] - query.shape[2]
            seeing = None if forward.seeing is None else forward.seeing[..., first:, :]
            shared = query.shape[1] != key.shape[1]
            return F.scaled_dot_product_attention(query, key, value, seeing, enable_gqa=shared)

        last = index == self._layers.n_layers - 1 and index != self._aligned  # whose attention is of all rows
        x = self._layers.layer(index, x, forward.rotation, attend, forward.n_wanted if last else None)
        return x, kept[0], kept[1], looked[0] if looked else None


def _seeing(rows: Tensor, layout: RowLayout, shown: Tensor | None) -> Float[Tensor, "*b q q"] | None:
    """Return the additive mask; in it nobody but itself sees a row that is not shown. None if all see all."""
    n_rows = rows.shape[1]
    if shown is None:
        if layout.bidirectional:
            return None
        return torch.full((n_rows, n_rows), -torch.inf, dtype=rows.dtype, device=rows.device).triu(1)
    visible = torch.ones(rows.shape[:2], dtype=torch.bool, device=rows.device)
    visible[:, layout.visual] = shown
    every = torch.arange(n_rows, device=rows.device)
    seen = visible[:, None] if layout.bidirectional else (every <= every[:, None]) & visible[:, None]
    return additive(seen | torch.eye(n_rows, dtype=torch.bool, device=rows.device), rows.dtype)[:, None]


def _attention(query: Tensor, key: Tensor, layout: RowLayout) -> Float[Tensor, "b visual"]:
    answering = torch.from_numpy(layout.answering()).to(query.device)
    seen = torch.arange(key.shape[2], device=query.device) <= answering[:, None]
    mask = None if layout.bidirectional else additive(seen, torch.float32)[None, None]
    return attention_of(query[:, :, answering], key, mask)[:, :, layout.visual].mean(dim=1)


def _blended(new: Tensor, old: Tensor, mask: Float[Tensor, "b visual"], visual: slice) -> Tensor:
    """Return the blend, computed in the mask's precision: a half-precision sum of hard parts is not a part."""
    wide = torch.promote_types(new.dtype, mask.dtype)
    now, before = new[:, :, visual].to(wide), old.to(wide)
    part = before + mask[:, None, :, None] * (now - before)
    return torch.cat((new[:, :, : visual.start], part.to(new.dtype), new[:, :, visual.stop :]), dim=2)
