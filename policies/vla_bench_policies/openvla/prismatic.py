"""Checkpoints as training wrote them: one `.pt` file under `checkpoints`, with other names than the converted layout.

CogACT is published so. The decoder's shape is not in the folder but in that of Llama-2-7B; here the tensors tell it,
and what they cannot tell is a constant. Names: microsoft/CogACT, `vla/cogactvla.py`, `from_pretrained`, and
openvla/openvla, `vla-scripts/extern/convert_openvla_weights_to_hf.py`.
"""

from pathlib import Path
from typing import Any

from torch import Tensor

from vla_bench_policies.openvla.config import DecoderShape, read_json
from vla_bench_policies.openvla.errors import PublishedCheckpointError
from vla_bench_policies.openvla.model import LLAMA, PROJECTOR, VISION
from vla_bench_policies.openvla.pickles import Held, read_pickle
from vla_bench_policies.openvla.tensors import TensorSource

BASE = "prism-dinosiglip-224px+7b"
"""The vision-language model that CogACT was trained from: two towers, `resize-naive`, Llama-2-7B, plain prompts."""

TOWERS = {"dino_featurizer.": "featurizer.", "siglip_featurizer.": "fused_featurizer."}
LAYERS_OF_PROJECTOR = {"projector.0.": "fc1.", "projector.2.": "fc2.", "projector.4.": "fc3."}

LLAMA_HEADS, LLAMA_EPS = 32, 1e-5
"""Of Llama-2-7B, whose `config.json` training read; OpenVLA's converted files say 1e-6 for the norms instead."""


def read_checkpoint(folder: Path) -> tuple[Held, Held]:
    """Return the trunk's tensors under the converted names, and those of the action model.

    Raises:
        PublishedCheckpointError: If a file is missing, broken or something else.
    """
    if not folder.is_dir():
        raise PublishedCheckpointError(folder, "there is no such folder", "a folder with config.json and checkpoints")
    base = (read_json(folder / "config.json").get("vla") or {}).get("base_vlm")
    if base != BASE:
        raise PublishedCheckpointError(folder / "config.json", f"base_vlm {base!r}", f"{BASE!r}, the only one known")
    files = sorted((folder / "checkpoints").glob("*.pt"))
    if len(files) != 1:
        raise PublishedCheckpointError(folder / "checkpoints", f"{len(files)} files *.pt", "exactly one")
    parts: dict[str, Any] = read_pickle(files[0]).get("model", {})
    for part in ("vision_backbone", "projector", "llm_backbone", "action_model"):
        if part not in parts:
            raise PublishedCheckpointError(files[0], f"its 'model' has no part {part!r}", "all parts of a CogACT")
    trunk: dict[str, Tensor] = {}
    for name, tensor in parts["vision_backbone"].items():
        trunk[VISION + _renamed(name, TOWERS).replace(".gamma", ".scale_factor")] = tensor
    for name, tensor in parts["projector"].items():
        trunk[PROJECTOR + _renamed(name, LAYERS_OF_PROJECTOR)] = tensor
    for name, tensor in parts["llm_backbone"].items():
        trunk[LLAMA + name.removeprefix("llm.")] = tensor
    return Held(files[0], trunk), Held(files[0], dict(parts["action_model"]))


def decoder_shape(source: TensorSource) -> DecoderShape:
    """Return the shape that the tensors of a Llama have.

    Raises:
        PublishedCheckpointError: If there is no such decoder.
    """
    begin = f"{LLAMA}model.layers."
    numbers = [int(name.removeprefix(begin).split(".")[0]) for name in source.names() if name.startswith(begin)]
    needed = (f"{LLAMA}model.embed_tokens.weight", f"{begin}0.mlp.gate_proj.weight")
    for name in needed:
        if name not in source.names():
            raise PublishedCheckpointError(source.path, f"the tensor {name!r} is missing", "a Llama decoder")
    (vocabulary, width), (hidden, _) = (source.shape(name) for name in needed)
    return DecoderShape(width, hidden, max(numbers) + 1, LLAMA_HEADS, LLAMA_HEADS, vocabulary, LLAMA_EPS)


def _renamed(name: str, begins: dict[str, str]) -> str:
    for before, after in begins.items():
        if name.startswith(before):
            return after + name.removeprefix(before)
    return name
