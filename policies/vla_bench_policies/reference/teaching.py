"""The reference VLA as training of gates sees it: its one-pass head, and its own decoder layer by layer."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vla_bench_policies.learned.blend import DenseDecoder, Remembered
from vla_bench_policies.learned.recipe import LoopRecipe
from vla_bench_policies.learned.teacher import Looked, Sight, Teaching, imitation_loss
from vla_bench_policies.learned.windows import WindowBatch
from vla_bench_policies.reference import checkpoint as checkpoints
from vla_bench_policies.reference.checkpoint import Checkpoint
from vla_bench_policies.reference.decoder import Decoder, Layer, rotary, rotated
from vla_bench_policies.reference.model import ReferenceVLA
from vla_bench_policies.reference.tokenizer import tokenizer
from vla_bench_policies.token_cache.decoder import Attend
from vla_bench_policies.token_cache.layout import RowLayout


class ReferenceTeacher:
    """Runs a frozen reference VLA over prompts of equal length."""

    def __init__(self, model: ReferenceVLA, first_layer: int = 0) -> None:
        """Freeze a model.

        Args:
            model: In evaluation mode from now on, without gradients of its own.
            first_layer: Layers before it are always computed in full.
        """
        self.model = model.eval().requires_grad_(False)
        self._decoder = DenseDecoder(PlainLayers(model.decoder), first_layer)

    @property
    def sight(self) -> Sight:
        """Return what it sees with."""
        config = self.model.config
        return Sight(len(config.cameras), config.image_px // config.patch_px, config.image_px, config.width)

    @torch.no_grad()
    def rows(
        self, images: Float[Tensor, "b views 3 px px"], tokens: Int[Tensor, "b text"], proprio: Float[Tensor, "b p"]
    ) -> Float[Tensor, "b rows width"]:
        """Return the embedded rows of a prompt and its action queries."""
        return self.model.rows(self.model.prompt(self.model.see(images), tokens, proprio), "oft")

    @torch.no_grad()
    def window_rows(self, batch: WindowBatch) -> tuple[Float[Tensor, "b window rows width"], RowLayout]:
        """Return the rows of every inference of some windows, and what they are."""
        n, window = batch.images.shape[:2]
        pictures = batch.images.permute(0, 1, 2, 5, 3, 4).flatten(0, 1)
        rows = self.rows(pictures, batch.tokens.repeat_interleave(window, dim=0), batch.proprio.flatten(0, 1))
        return rows.unflatten(0, (n, window)), self.model.layout(batch.tokens.shape[1])

    @torch.no_grad()
    def black(self) -> Float[Tensor, "1 visual width"]:
        """Return the visual rows of black pictures."""
        config = self.model.config
        device = next(self.model.parameters()).device
        return self.model.see(torch.zeros(1, len(config.cameras), 3, config.image_px, config.image_px, device=device))

    def look(
        self,
        rows: Float[Tensor, "b rows width"],
        layout: RowLayout,
        mask: Float[Tensor, "b visual"] | None = None,
        remembered: Remembered | None = None,
        shown: Bool[Tensor, "b visual"] | None = None,
    ) -> Looked:
        """Return the answer, normalised actions (b, chunk, action); without a mask everything is recomputed."""
        passed = self._decoder.run(rows, layout, layout.n_action, mask, remembered, shown)
        return Looked(self.model.chunk_head(passed.tail), passed.remembered, passed.attention)

    def loss(
        self,
        answer: Float[Tensor, "b chunk action"],
        demonstrated: Float[Tensor, "b chunk action"],
        within: Bool[Tensor, "b chunk"],
        full: Float[Tensor, "b chunk action"] | None,
        generator: torch.Generator,
    ) -> Float[Tensor, ""]:
        """Return the L1 to the recording; nothing is drawn."""
        return imitation_loss(answer, demonstrated, within, full)

    def distance(
        self, answer: Float[Tensor, "b chunk action"], full: Float[Tensor, "b chunk action"]
    ) -> Float[Tensor, ""]:
        """Return the mean absolute difference."""
        return (answer - full).abs().mean()


class ReferenceReader:
    """Turns demonstrations into what the reference VLA is given, and should answer."""

    picture_px: int
    preparation = None
    stride = LoopRecipe.stride

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        config = checkpoint.model.config
        self.cameras, self.picture_px, self.chunk = config.cameras, config.image_px, config.chunk

    def tokens(self, sentence: str) -> Sequence[int]:
        """Return an instruction's tokens."""
        return tokenizer().encode(sentence)

    def given(self, states: Float[np.ndarray, "*n p"]) -> Float[Tensor, "*n p"]:
        """Return normalised proprioception."""
        return self._checkpoint.states.normalise(torch.from_numpy(states))

    def wanted(self, actions: Float[np.ndarray, "*n action"]) -> Float[Tensor, "*n action"]:
        """Return normalised actions."""
        return self._checkpoint.actions.normalise(torch.from_numpy(actions))


def reference_teaching(weights: Path, device: str, first_layer: int = 0) -> Teaching:
    """Return what training asks of a checkpoint of the reference VLA.

    Raises:
        CheckpointError: If it is broken or something else.
    """
    checkpoint = checkpoints.load(weights)
    checkpoint.model.to(device)
    return Teaching(checkpoint.sha256, ReferenceTeacher(checkpoint.model, first_layer), ReferenceReader(checkpoint))


class PlainLayers:
    """The model's own layers, unpacked, one by one."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    @property
    def n_layers(self) -> int:
        """Return the number of layers."""
        return len(self._decoder.layers)

    def rotation(self, positions: Int[Tensor, "b q"], like: Tensor) -> tuple[Tensor, Tensor]:
        """Return what turns queries and keys."""
        return rotary(positions, self._decoder.head_width, like.dtype)

    def layer(
        self, index: int, x: Tensor, rotation: tuple[Tensor, Tensor], attend: Attend, n_wanted: int | None = None
    ) -> Tensor:
        """Return the last `n_wanted` rows after one layer, or all."""
        layer = self._decoder.layers[index]
        assert isinstance(layer, Layer)
        first = 0 if n_wanted is None else x.shape[1] - n_wanted
        query, key, value = layer.self_attn.projected(layer.input_layernorm(x))
        query, key = rotated(query, *rotation), rotated(key, *rotation)
        seen = attend(query[:, :, first:], key, value)
        x = x[:, first:] + layer.self_attn.o_proj(seen.transpose(1, 2).flatten(-2))
        return x + layer.mlp(layer.post_attention_layernorm(x))

    def norm(self, x: Tensor) -> Tensor:
        """Return the hidden states after the last norm."""
        return self._decoder.norm(x)
