"""What the JSON files of a published checkpoint say: the decoder's shape, the bins, how pictures are prepared.

Field names and defaults: openvla/openvla, `prismatic/extern/hf/configuration_prismatic.py` and
`processing_prismatic.py`; the decoder's defaults are those of `LlamaConfig` in transformers 4.40.1, from which the
published files only write differences.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vla_bench_policies.openvla.errors import PublishedCheckpointError

TOWERS = ("vit_large_patch14_reg4_dinov2.lvd142m", "vit_so400m_patch14_siglip_224")
"""timm's names of the two vision towers, in the order of their features: DINOv2, then SigLIP."""

MEANS_AND_DEVIATIONS = (
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
)
"""Of red, green and blue in [0, 1], by tower. Source: timm's data configuration of the two towers."""

RESIZE = "resize-naive"
"""How all published OpenVLA models fit a picture: straight to the square, whatever its sides."""


@dataclass(frozen=True)
class DecoderShape:
    """Of the Llama decoder."""

    width: int = 4096
    hidden: int = 11008
    """Width inside the feed-forward network."""
    layers: int = 32
    heads: int = 32
    kv_heads: int = 32
    vocabulary: int = 32064
    """Rows of the embedding: Llama-2's 32000 tokens, filled up by `pad_to_multiple_of`."""
    eps: float = 1e-6
    """Of the norms: `LlamaConfig`'s default, not Llama-2's own 1e-5."""
    rope_theta: float = 10000.0


@dataclass(frozen=True)
class PublishedConfig:
    """What `config.json` and `preprocessor_config.json` of a folder decide."""

    decoder: DecoderShape
    n_tokens: int = 32000
    """Tokens of the tokenizer: `vocabulary` without what it was filled up by. Action bins are counted from its end."""
    n_bins: int = 256
    """Edges of the action bins, both ends included."""
    image_px: int = 224
    """Height and width that the towers see [px]."""
    normalisation: tuple[tuple[tuple[float, ...], tuple[float, ...]], ...] = MEANS_AND_DEVIATIONS
    """Mean and deviation of the colours, by tower."""


def read_json(path: Path) -> dict[str, Any]:
    """Return what a JSON file of a checkpoint says.

    Raises:
        PublishedCheckpointError: If it is missing or no JSON.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PublishedCheckpointError(path.parent, f"there is no {path.name}", "one, beside the weights") from None
    except ValueError as caught:
        raise PublishedCheckpointError(path, f"it is no JSON ({caught})", "the file as published") from None
    if not isinstance(found, dict):
        raise PublishedCheckpointError(path, f"it holds a {type(found).__name__}", "an object with named fields")
    return found


def read_config(folder: Path) -> PublishedConfig:
    """Return what decides a published model's shape and what it sees.

    Raises:
        PublishedCheckpointError: If a file is missing, or the model has other towers or another preparation.
    """
    path = folder / "config.json"
    config = read_json(path)
    towers = tuple(config.get("timm_model_ids") or ())
    if towers != TOWERS:
        raise PublishedCheckpointError(path, f"vision towers {list(towers)}", f"{list(TOWERS)}, the only ones known")
    text = config.get("text_config") or {}
    if text.get("model_type", "llama") != "llama":
        raise PublishedCheckpointError(path, f"a decoder {text['model_type']!r}", "'llama'")
    heads = text.get("num_attention_heads", DecoderShape.heads)
    decoder = DecoderShape(
        width=text.get("hidden_size", DecoderShape.width),
        hidden=text.get("intermediate_size", DecoderShape.hidden),
        layers=text.get("num_hidden_layers", DecoderShape.layers),
        heads=heads,
        kv_heads=text.get("num_key_value_heads") or heads,
        vocabulary=text.get("vocab_size", 32000),
        eps=text.get("rms_norm_eps", DecoderShape.eps),
        rope_theta=text.get("rope_theta", DecoderShape.rope_theta),
    )
    n_tokens = decoder.vocabulary - config.get("pad_to_multiple_of", 64)
    image_px = _one_size(path, config.get("image_sizes", [224, 224]))
    return PublishedConfig(decoder, n_tokens, config.get("n_action_bins", 256), image_px, _normalisation(folder))


def _normalisation(folder: Path) -> tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]:
    """Return mean and deviation of the colours as the published image processor uses them.

    The conversion to this layout ran in bfloat16 and wrote the rounded numbers as `tvf_normalize_params`; loading the
    processor sets these over the exact `means` and `stds`, at training as at evaluation, so they are the true ones.
    """
    path = folder / "preprocessor_config.json"
    config = read_json(path)
    strategy = config.get("image_resize_strategy", "letterbox")
    if strategy != RESIZE:
        raise PublishedCheckpointError(path, f"image_resize_strategy {strategy!r}", f"{RESIZE!r}, the only one known")
    odd = [name for name in config.get("interpolations", ["bicubic", "bicubic"]) if name != "bicubic"]
    if odd:
        raise PublishedCheckpointError(path, f"interpolation {odd[0]!r}", "'bicubic' for both towers")
    rounded = config.get("tvf_normalize_params")
    if rounded:
        pairs = [(one["mean"], one["std"]) for one in rounded]
    else:
        pairs = list(zip(config.get("means", ()), config.get("stds", ()), strict=True))
    if len(pairs) != len(TOWERS):
        raise PublishedCheckpointError(path, f"colours for {len(pairs)} towers", f"for {len(TOWERS)}")
    return tuple((tuple(mean), tuple(deviation)) for mean, deviation in pairs)


def _one_size(path: Path, sizes: list[int]) -> int:
    if len(set(sizes)) != 1:
        raise PublishedCheckpointError(path, f"image_sizes {sizes}", "one size for both towers")
    return sizes[0]
