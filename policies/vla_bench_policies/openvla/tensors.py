"""Tensors of a published checkpoint by name, read one at a time so that nothing is in memory twice."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vla_bench.progress import Progress
from vla_bench_policies.openvla.config import read_json
from vla_bench_policies.openvla.errors import PublishedCheckpointError

INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"


class TensorSource(Protocol):
    """Where the tensors of a checkpoint are."""

    @property
    def path(self) -> Path:
        """Return the folder or file, for messages."""
        ...

    @property
    def n_bytes(self) -> int:
        """Return the size of all tensors [byte]."""
        ...

    def names(self) -> Iterable[str]:
        """Return the names of all tensors, as the published layout has them."""
        ...

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor without reading it."""
        ...

    def read(self, name: str) -> Tensor:
        """Return a tensor in memory of its own or, for a pickle, of the mapped file."""
        ...


class Shards:
    """The safetensors files of a folder: several with an index, or one."""

    def __init__(self, folder: Path) -> None:
        """Look at the index and at the header of every shard.

        Raises:
            PublishedCheckpointError: If a shard is missing or broken, or lacks a tensor that the index promises.
        """
        self.path = folder
        if not folder.is_dir():
            raise PublishedCheckpointError(folder, "there is no such folder", "a folder with config.json and weights")
        promised = self._indexed() if (folder / INDEX).exists() else {}
        self._files: dict[str, str] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self.n_bytes = 0
        for file in sorted(set(promised.values())) or [self._single()]:
            self._look_into(file)
        if lost := sorted(set(promised) - set(self._shapes)):
            raise PublishedCheckpointError(
                folder / promised[lost[0]], f"it lacks the tensor {lost[0]!r}", f"it, as {INDEX} says"
            )

    def names(self) -> Iterable[str]:
        """Return the names of all tensors."""
        return self._shapes

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self._shapes[name]

    def read(self, name: str) -> Tensor:
        """Return a tensor; the shard is closed again, because the pages of a mapped file count as memory in use."""
        file = self.path / self._files[name]
        try:
            with safe_open(file, framework="pt") as stream:
                return stream.get_tensor(name).clone()
        except (SafetensorError, OSError) as caught:
            raise PublishedCheckpointError(file, f"{name!r} cannot be read ({caught})", "a whole shard") from caught

    def _indexed(self) -> dict[str, str]:
        files: dict[str, str] = read_json(self.path / INDEX).get("weight_map", {})
        missing = sorted(file for file in set(files.values()) if not (self.path / file).exists())
        if missing:
            count = f"{len(set(files.values())) - len(missing)} of {len(set(files.values()))} shards are there"
            raise PublishedCheckpointError(self.path, f"shard {missing[0]!r} is missing, {count}", f"all of {INDEX}")
        return files

    def _single(self) -> str:
        if not (self.path / WHOLE).exists():
            raise PublishedCheckpointError(self.path, f"there is neither {INDEX} nor {WHOLE}", "the one or the other")
        return WHOLE

    def _look_into(self, file: str) -> None:
        path = self.path / file
        try:
            with safe_open(path, framework="pt") as stream:
                for name in stream.keys():  # noqa: SIM118
                    self._shapes[name] = tuple(stream.get_slice(name).get_shape())
                    self._files[name] = file
        except (SafetensorError, OSError) as caught:
            raise PublishedCheckpointError(path, f"it cannot be read ({caught})", "a whole shard") from caught
        self.n_bytes += path.stat().st_size


class Intake:
    """Reads tensors in a given type onto a device, checks their shapes, shows progress, and hashes what it reads."""

    def __init__(
        self, source: TensorSource, dtype: torch.dtype, device: torch.device, bar: "Progress | None" = None
    ) -> None:
        self.source = source
        self._dtype, self._device, self._bar = dtype, device, bar
        self._digest = hashlib.sha256()
        self.taken: set[str] = set()
        """Names of what was read."""

    @property
    def sha256(self) -> str:
        """Return the hash of all that was read so far, names included."""
        return self._digest.hexdigest()

    def take(self, name: str, shape: tuple[int, ...], device: torch.device | None = None) -> Tensor:
        """Return a tensor of that shape, on another device if one is given.

        Raises:
            PublishedCheckpointError: If it is missing or has another shape.
        """
        if name not in self.source.names():
            raise PublishedCheckpointError(self.source.path, f"the tensor {name!r} is missing", f"one of shape {shape}")
        found = self.source.shape(name)
        if found != shape:
            raise PublishedCheckpointError(self.source.path, f"the tensor {name!r} has shape {found}", f"{shape}")
        tensor = self.source.read(name)
        self.taken.add(name)
        self._digest.update(name.encode() + str(tensor.dtype).encode())
        self._digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
        if self._bar is not None:
            self._bar.update(tensor.nbytes)
        return tensor.to(device=device or self._device, dtype=self._dtype)

    def fill(self, module: torch.nn.Module, prefix: str) -> None:
        """Give a module that was built without memory its weights, one by one."""
        state = module.state_dict()
        for name in state:
            weight = self.take(prefix + name, tuple(state[name].shape))
            module.load_state_dict({name: weight}, strict=False, assign=True)
        module.requires_grad_(False)
