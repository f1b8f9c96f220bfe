"""Vision towers that are told the words (FiLM), as OpenVLA-OFT+ has them for ALOHA: their own file beside the shards.

Every block is wrapped: its parts are under `block`, and `scale` and `shift` make of the mean word what is multiplied
and added between attention and feed-forward network. The file was saved in training, so its matrices are still apart
from their low-rank updates (LoRA), which are added here. Source: moojink/openvla-oft,
`prismatic/models/film_vit_wrapper.py` and `experiments/robot/openvla_utils.py`, `_apply_film_to_vla`.
"""

from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from vla_bench_policies.openvla.model import VISION
from vla_bench_policies.openvla.pickles import Held, component
from vla_bench_policies.openvla.tensors import Shards

MOST_ALPHA = 16
"""`lora_alpha` is the rank, but at most this; an update counts alpha / rank."""


class FilmTowers:
    """The shards of a checkpoint, with the towers taken from the file of FiLM; satisfies `TensorSource`."""

    def __init__(self, folder: Path) -> None:
        """Look for both.

        Raises:
            PublishedCheckpointError: If one of them is missing or broken.
        """
        self._shards = Shards(folder)
        self._towers = _merged(component(folder, "vision_backbone"))
        self.path, self.n_bytes = folder, self._shards.n_bytes

    def names(self) -> Iterable[str]:
        """Return the names of all tensors that count."""
        return {name for name in self._shards.names() if not name.startswith(VISION)} | set(self._towers.names())

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return (self._towers if name.startswith(VISION) else self._shards).shape(name)

    def read(self, name: str) -> Tensor:
        """Return a tensor."""
        return (self._towers if name.startswith(VISION) else self._shards).read(name)


def _merged(held: Held) -> Held:
    """Return the towers under the names that they have without FiLM and LoRA."""
    merged: dict[str, Tensor] = {}
    names = [name for name in held.names() if ".lora_" not in name]
    for name in names:
        plain = name.replace(".base_layer.", ".").replace(".block.", ".")
        down, up = (name.replace(".base_layer.weight", f".lora_{part}.default.weight") for part in "AB")
        tensor = held.read(name)
        if down != name and down in set(held.names()):
            rank = held.shape(down)[0]
            update = held.read(up).float() @ held.read(down).float() * (min(rank, MOST_ALPHA) / rank)
            tensor = (tensor.float() + update).to(tensor.dtype)
        merged[plain] = tensor
    return Held(held.path, merged)
