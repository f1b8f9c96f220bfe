"""What OpenVLA, OpenVLA-OFT and CogACT share: two vision towers, a projector, and a Llama that a cache drives.

    row      0    1 ... n        then
    holds    BOS  visual rows    [proprioception]  the rest of the prompt  [action rows]

Source of the order: openvla/openvla, `PrismaticForConditionalGeneration.forward`: patches go behind the first token.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from vla_bench.progress import Progress
from vla_bench_policies.openvla.config import DecoderShape
from vla_bench_policies.openvla.errors import PublishedCheckpointError
from vla_bench_policies.openvla.placement import BITS, Placement
from vla_bench_policies.openvla.tensors import Intake, TensorSource
from vla_bench_policies.openvla.vision import PREFIXES, FusedTowers, Projector, TowerShape
from vla_bench_policies.token_cache.decoder import PackedLlama

VISION, PROJECTOR, LLAMA = "vision_backbone.", "projector.", "language_model."


@dataclass(frozen=True)
class Trunk:
    """Pictures and words to decoder rows, and hidden states to scores of tokens."""

    towers: FusedTowers
    projector: Projector
    words: Float[Tensor, "vocabulary width"]
    """Embedding of the tokens."""
    stack: PackedLlama
    scorer: Float[Tensor, "vocabulary width"] | None
    """Turns a hidden state into scores of tokens; None where nobody asks for tokens."""
    sha256: str
    """Of all weights that decide an answer, as they are in the files."""
    placement: Placement

    @property
    def device(self) -> torch.device:
        """Return where the weights are."""
        return self.words.device

    @property
    def rows_per_view(self) -> int:
        """Return the visual rows of a picture."""
        return self.towers.featurizer.shape.grid**2

    def see(
        self, images: Float[Tensor, "b views 6 px px"], text: Float[Tensor, "b d"] | None = None
    ) -> Float[Tensor, "b visual d"]:
        """Return the visual rows; `text` is the mean of the words, for towers with FiLM."""
        return self.projector(self.towers(images, text))

    def embed(self, tokens: Int[Tensor, "b tokens"]) -> Float[Tensor, "b tokens d"]:
        """Return the rows of tokens."""
        return F.embedding(tokens, self.words)

    def prompt(
        self, visual: Float[Tensor, "b visual d"], tokens: Int[Tensor, "b tokens"], state: Tensor | None = None
    ) -> Float[Tensor, "b prompt d"]:
        """Return the rows of a prompt.

        Args:
            visual: What `see` returns.
            tokens: With BOS in front.
            state: A row (b, 1, d) between the visual ones and the text: OpenVLA-OFT's proprioception.
        """
        words = self.embed(tokens)
        between = () if state is None else (state,)
        return torch.cat((words[:, :1], visual, *between, words[:, 1:]), dim=1)

    def scores(self, hidden: Float[Tensor, "*b d"]) -> Float[Tensor, "*b vocabulary"]:
        """Return the score of every token to come next."""
        assert self.scorer is not None
        return F.linear(hidden, self.scorer).float()


def load_trunk(
    source: TensorSource,
    shape: DecoderShape,
    placement: Placement,
    scored: bool = True,
    film: bool = False,
) -> Trunk:
    """Return the trunk of a checkpoint; at no moment is more than a piece of one layer in memory twice.

    Args:
        source: Tensors under the names of the published safetensors.
        shape: Of the decoder.
        placement: Where to, and in what form.
        scored: Whether tokens will be scored.
        film: Whether the towers are told the text.

    Raises:
        PublishedCheckpointError: Naming the first tensor that is missing, or of another shape, or too many.
    """
    with Progress(total=source.n_bytes, desc=f"load {source.path.name}", unit="B", unit_scale=True) as bar:
        intake = Intake(source, placement.dtype, placement.device, bar)
        first, second = (TowerShape.of(source, f"{VISION}{prefix}.") for prefix in PREFIXES)
        with torch.device("meta"):
            towers = FusedTowers((first, second), shape.width if film else None)
            projector = Projector(towers.width, shape.width)
        intake.fill(towers, VISION)
        intake.fill(projector, PROJECTOR)
        words = intake.take(f"{LLAMA}model.embed_tokens.weight", (shape.vocabulary, shape.width))
        scorer = intake.take(f"{LLAMA}lm_head.weight", (shape.vocabulary, shape.width)) if scored else None
        weights = _DecoderWeights(intake, shape, placement)
        _check_nothing_is_left(source, intake.taken | {f"{LLAMA}model.{name}" for name in weights.names()}, scored)
        stack = PackedLlama(
            weights, shape.heads, shape.kv_heads, shape.rope_theta, shape.eps, placement.packed, placement.product(),
            BITS.get(placement.quantise, 0),
        )  # fmt: skip
    return Trunk(towers.eval(), projector.eval(), words, stack, scorer, intake.sha256, placement)


class _DecoderWeights:
    """The decoder's weights, each read when it is taken, onto the device of its layer."""

    def __init__(self, intake: Intake, shape: DecoderShape, placement: Placement) -> None:
        self._intake, self._placement, self._n_layers = intake, placement, shape.layers
        self._shapes = _decoder_shapes(shape)

    def names(self) -> Iterable[str]:
        return self._shapes

    def shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def take(self, name: str) -> Tensor:
        place = self._placement.device
        if name.startswith("layers."):
            place = self._placement.of_layer(int(name.split(".")[1]), self._n_layers)
        return self._intake.take(f"{LLAMA}model.{name}", self._shapes[name], place)


def _decoder_shapes(shape: DecoderShape) -> dict[str, tuple[int, ...]]:
    """Return the weights of the decoder and their shapes, by name."""
    shared = shape.width // shape.heads * shape.kv_heads
    sizes = {
        "self_attn.q_proj": (shape.width, shape.width),
        "self_attn.k_proj": (shared, shape.width),
        "self_attn.v_proj": (shared, shape.width),
        "self_attn.o_proj": (shape.width, shape.width),
        "mlp.gate_proj": (shape.hidden, shape.width),
        "mlp.up_proj": (shape.hidden, shape.width),
        "mlp.down_proj": (shape.width, shape.hidden),
        "input_layernorm": (shape.width,),
        "post_attention_layernorm": (shape.width,),
    }
    layers = {f"layers.{index}.{part}.weight": size for index in range(shape.layers) for part, size in sizes.items()}
    return layers | {"norm.weight": (shape.width,)}


def _check_nothing_is_left(source: TensorSource, taken: set[str], scored: bool) -> None:
    """Refuse weights that nobody has asked for, except those that the published forward does not use either."""
    unused = [rf"{VISION}{tower}\.(norm|attn_pool|fc_norm|blocks\.{_last(source, tower)})\..*" for tower in PREFIXES]
    unused.append(r".*rotary_emb\.inv_freq")
    if not scored:
        unused.append(rf"{LLAMA}lm_head\.weight")
    for name in sorted(set(source.names()) - taken):
        if not any(re.fullmatch(pattern, name) for pattern in unused):
            raise PublishedCheckpointError(source.path, f"there is a tensor {name!r} too many", "a model without it")


def _last(source: TensorSource, tower: str) -> int:
    begin = f"{VISION}{tower}.blocks."
    return max(int(name.removeprefix(begin).split(".")[0]) for name in source.names() if name.startswith(begin))
