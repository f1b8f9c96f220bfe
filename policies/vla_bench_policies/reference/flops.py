"""Floating-point operations of a step, by formula: a multiply-add is two; a test counts the same with torch.

Left out, as torch's counter leaves them out: norms, activations, softmax, embeddings; under 1 % here.
"""

from dataclasses import dataclass
from itertools import pairwise

from vla_bench_policies.reference.actions import N_BINS
from vla_bench_policies.reference.model import Head, ModelConfig
from vla_bench_policies.reference.vision import stem_widths


@dataclass(frozen=True)
class Flops:
    """Of one query, by stage."""

    vision: int
    """Patch embedding, vision transformer and projector, all cameras."""

    decoder: int
    """All layers, decoding included."""

    heads: int
    """Proprioception in, actions out."""

    @property
    def total(self) -> int:
        """Return the sum."""
        return self.vision + self.decoder + self.heads

    @property
    def decoder_share(self) -> float:
        """Return the part that a token method can save from."""
        return self.decoder / self.total


def of_query(config: ModelConfig, n_text: int, head: Head = "oft") -> Flops:
    """Return the operations of one query at batch 1, full computation."""
    c = config
    n_prompt = c.n_visual + n_text + 2
    proprio = _linear(1, len(c.proprio_entries), c.width) + _linear(1, c.width, c.width)
    if head == "oft":
        decoder = _decoder(c, n_prompt + c.chunk, n_prompt + c.chunk, n_wanted=c.chunk)
        answer = _linear(c.chunk, c.width, c.width) + _linear(c.chunk, c.width, c.action_size)
    else:
        n_rows = n_prompt + c.action_size - 1
        decoder = _decoder(c, n_prompt, n_prompt, n_wanted=1) + (c.action_size - 1) * _decoder(c, 1, n_rows, n_wanted=1)
        answer = c.action_size * _linear(1, c.width, N_BINS)
    return Flops(vision=len(c.cameras) * _camera(c), decoder=decoder, heads=proprio + answer)


def _decoder(config: ModelConfig, n_active: int, n_seen: int, n_wanted: int) -> int:
    """Return the cost of `n_active` rows that look at `n_seen`; every pair counts, masked or not.

    In the last layer only `n_wanted` rows go on after queries, keys and values.
    """
    before = 3 * _linear(n_active, config.width, config.width)
    rows = (config.layers - 1) * n_active + n_wanted
    after = _linear(rows, config.width, config.width) + 3 * _linear(rows, config.width, config.hidden)
    return config.layers * before + after + 4 * rows * n_seen * config.width


def _camera(config: ModelConfig) -> int:
    rows, wide = config.rows_per_view, config.vision_width
    attention = _linear(rows, wide, 4 * wide) + 4 * rows * rows * wide
    block = attention + 2 * _linear(rows, wide, 4 * wide)
    projector = _linear(rows, wide, config.width) + _linear(rows, config.width, config.width)
    return _patches(config) + config.vision_layers * block + projector


def _patches(config: ModelConfig) -> int:
    convolutions, size = 0, config.image_px
    for narrow, wide in pairwise(stem_widths(config.patch_px, config.vision_width)):
        size //= 2
        convolutions += _linear(size * size, 9 * narrow, wide)
    return convolutions + _linear(config.rows_per_view, config.vision_width, config.vision_width)


def _linear(rows: int, inputs: int, outputs: int) -> int:
    return 2 * rows * inputs * outputs
