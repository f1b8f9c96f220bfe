"""The frozen policy as training sees it: a dense decoder in which reused keys and values are blended in.

In every layer `K = K_old + m (K_new - K_old)` and `V` alike on the visual rows, with m = 1 where a row is recomputed.
With a mask of zeros and ones this equals the token cache's sparse forward: a row that is reused still runs through
the dense layers, and nobody sees it.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from vla_bench_policies.reference.decoder import Layer, below_diagonal, rotary, rotated
from vla_bench_policies.reference.model import ReferenceVLA
from vla_bench_policies.token_cache.attention import additive, attention_of
from vla_bench_policies.token_cache.layout import RowLayout
from vla_bench_policies.token_cache.rule import at_depth

ALIGNED_LAYER = 15
"""Of 32: whose attention stage I imitates. Choice, the middle; the paper does not say."""


@dataclass(frozen=True)
class Remembered:
    """Rotated keys and values of the visual rows, by layer, on which nothing depends."""

    keys: tuple[Float[Tensor, "b heads visual w"], ...]
    values: tuple[Float[Tensor, "b heads visual w"], ...]


@dataclass(frozen=True)
class Looked:
    """What the policy answers in one step."""

    chunk: Float[Tensor, "b chunk action"]
    """Normalised actions."""

    remembered: Remembered
    """For the next step."""

    attention: Float[Tensor, "b visual"]
    """Mean attention of text, proprioception and action rows to each visual row at the aligned layer."""


class Teacher:
    """Runs a frozen reference VLA over prompts of equal length."""

    def __init__(self, model: ReferenceVLA, first_layer: int = 0) -> None:
        """Freeze a model.

        Args:
            model: In evaluation mode from now on, without gradients of its own.
            first_layer: Layers before it are always computed in full.
        """
        self.model = model.eval().requires_grad_(False)
        self._first = first_layer
        self._aligned = at_depth(ALIGNED_LAYER, model.config.layers)

    @torch.no_grad()
    def rows(
        self, images: Float[Tensor, "b views 3 px px"], tokens: Int[Tensor, "b text"], proprio: Float[Tensor, "b p"]
    ) -> Float[Tensor, "b rows width"]:
        """Return the embedded rows of a prompt and its action queries."""
        return self.model.rows(self.model.prompt(self.model.see(images), tokens, proprio), "oft")

    @torch.no_grad()
    def window_rows(
        self,
        images: Float[Tensor, "b window views px px 3"],
        tokens: Int[Tensor, "b text"],
        proprio: Float[Tensor, "b window p"],
    ) -> tuple[Float[Tensor, "b window rows width"], RowLayout]:
        """Return the rows of every inference of some windows, and what they are."""
        n, window = images.shape[:2]
        pictures = images.permute(0, 1, 2, 5, 3, 4).flatten(0, 1)
        rows = self.rows(pictures, tokens.repeat_interleave(window, dim=0), proprio.flatten(0, 1))
        return rows.unflatten(0, (n, window)), self.model.layout(tokens.shape[1])

    def look(
        self,
        rows: Float[Tensor, "b rows width"],
        layout: RowLayout,
        mask: Float[Tensor, "b visual"] | None = None,
        remembered: Remembered | None = None,
        shown: Bool[Tensor, "b visual"] | None = None,
    ) -> Looked:
        """Return the answer; without a mask everything is recomputed.

        Args:
            rows: What `rows` returns.
            layout: Which of them are visual.
            mask: 1 where a row is recomputed, 0 where what is remembered serves.
            remembered: Of an earlier step.
            shown: False where a row is deleted before the first layer; none is, by default.
        """
        decoder, visual = self.model.decoder, layout.visual
        positions = torch.arange(rows.shape[1], device=rows.device)[None]
        turn = rotary(positions, decoder.head_width, rows.dtype)
        x, keys, values = rows, [], []
        attention = rows.new_zeros(len(rows), layout.n_visual)
        seeing = below_diagonal(rows) if shown is None else self._seeing(rows, layout, shown)
        for index, layer in enumerate(decoder.layers):
            assert isinstance(layer, Layer)
            query, key, value = layer.self_attn.projected(layer.input_layernorm(x))
            query, key = rotated(query, *turn), rotated(key, *turn)
            if mask is not None and remembered is not None and index >= self._first:
                key = _blended(key, remembered.keys[index], mask, visual)
                value = _blended(value, remembered.values[index], mask, visual)
            keys.append(key[:, :, visual].detach())
            values.append(value[:, :, visual].detach())
            if index == self._aligned:
                attention = self._attention(query.detach(), key.detach(), layout)
            if index == self.model.config.layers - 1:  # only the action rows answer
                x, query, seeing = x[:, layout.action], query[:, :, layout.action], seeing[..., layout.action, :]
            seen = F.scaled_dot_product_attention(query, key, value, seeing)
            x = x + layer.self_attn.o_proj(seen.transpose(1, 2).flatten(-2))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        return Looked(self.model.chunk_head(decoder.norm(x)), Remembered(tuple(keys), tuple(values)), attention)

    def _seeing(self, rows: Tensor, layout: RowLayout, shown: Tensor) -> Float[Tensor, "b 1 q q"]:
        """Return the additive mask in which nobody but itself sees a row that is not shown."""
        visible = torch.ones(rows.shape[:2], dtype=torch.bool, device=rows.device)
        visible[:, layout.visual] = shown
        every = torch.arange(rows.shape[1], device=rows.device)
        causal = (every <= every[:, None]) & visible[:, None]
        return additive(causal | torch.eye(len(every), dtype=torch.bool, device=rows.device), rows.dtype)[:, None]

    def _attention(self, query: Tensor, key: Tensor, layout: RowLayout) -> Float[Tensor, "b visual"]:
        answering = torch.from_numpy(layout.answering()).to(query.device)
        seen = torch.arange(key.shape[2], device=query.device) <= answering[:, None]
        looked = attention_of(query[:, :, answering], key, additive(seen, torch.float32)[None, None])
        return looked[:, :, layout.visual].mean(dim=1)


def alignment_target(attention: Float[Tensor, "b visual"]) -> Float[Tensor, "b visual"]:
    """Return S_VLA: attention scaled to [0, 1] in each frame (choice 2 of the method's table)."""
    low, high = attention.amin(dim=1, keepdim=True), attention.amax(dim=1, keepdim=True)
    return (attention - low) / (high - low).clamp(min=1e-12)


def imitation_loss(
    chunk: Float[Tensor, "b chunk action"],
    demonstrated: Float[Tensor, "b chunk action"],
    within: Bool[Tensor, "b chunk"],
    full: Float[Tensor, "b chunk action"] | None = None,
) -> Float[Tensor, ""]:
    """Return the policy's own loss of a step: L1 over the actions that the episode still has.

    Args:
        chunk: Answered.
        demonstrated: In the recording.
        within: Which of its actions the episode still has.
        full: What the full computation answers: half of the loss is the L1 to it then.
    """
    loss = ((chunk - demonstrated).abs().mean(dim=-1) * within).sum() / within.sum().clamp(min=1)
    return loss if full is None else (loss + (chunk - full).abs().mean()) / 2


def _blended(new: Tensor, old: Tensor, mask: Float[Tensor, "b visual"], visual: slice) -> Tensor:
    part = old + mask[:, None, :, None] * (new[:, :, visual] - old)
    return torch.cat((new[:, :, : visual.start], part, new[:, :, visual.stop :]), dim=2)
