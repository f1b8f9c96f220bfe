"""Tensors in `.pt` files, as OpenVLA-OFT and CogACT publish a part or all of theirs. Never any other object."""

import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vla_bench_policies.openvla.errors import PublishedCheckpointError


class Held:
    """Tensors that are there already, or mapped from a file; satisfies `TensorSource`."""

    def __init__(self, path: Path, tensors: dict[str, Tensor]) -> None:
        self.path, self._tensors = path, tensors

    @property
    def n_bytes(self) -> int:
        """Return the size of all tensors [byte]."""
        return sum(tensor.nbytes for tensor in self._tensors.values())

    def names(self) -> Iterable[str]:
        """Return the names of all tensors."""
        return self._tensors

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return tuple(self._tensors[name].shape)

    def read(self, name: str) -> Tensor:
        """Return a tensor, and forget it."""
        return self._tensors.pop(name).clone()


def read_pickle(path: Path) -> Any:
    """Return the tensors of a `.pt` file, mapped and not read, in the dictionaries that they are in.

    Raises:
        PublishedCheckpointError: If it is broken, or holds anything but tensors.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError:
        raise PublishedCheckpointError(path.parent, f"there is no {path.name}", "one") from None
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError) as caught:
        reason = str(caught).partition("\n")[0]
        raise PublishedCheckpointError(path, f"it cannot be read ({reason})", "tensors as torch saves them") from caught


def component(folder: Path, part: str) -> Held:
    """Return the tensors of a component that lies beside the shards: `action_head--150000_checkpoint.pt`.

    The number is that of training steps. Names begin with `module.` if several GPUs trained it (moojink/openvla-oft,
    `experiments/robot/openvla_utils.py`, `find_checkpoint_file` and `load_component_state_dict`).

    Raises:
        PublishedCheckpointError: If there is none, or more than one.
    """
    files = sorted(path for path in folder.iterdir() if part in path.name and "checkpoint" in path.name)
    if len(files) != 1:
        found = f"{len(files)} files of {part!r}" + (f" ({', '.join(path.name for path in files)})" if files else "")
        raise PublishedCheckpointError(folder, found, f"exactly one, such as {part}--150000_checkpoint.pt")
    tensors: dict[str, Tensor] = read_pickle(files[0])
    return Held(files[0], {name.removeprefix("module."): tensor for name, tensor in tensors.items()})
