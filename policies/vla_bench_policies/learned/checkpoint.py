"""Trained networks on the disk: safetensors, with their shape, the policy they belong to and their history."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vla_bench.errors import UnknownNameError, VlaBenchError
from vla_bench_policies.reference.checkpoint import CheckpointError, read_tensors, write_tensors

HEADER = "vla_bench"
WEIGHTS = "weights"
"""Folder of a method's package that holds what ships."""


@dataclass(frozen=True)
class Kind:
    """What a file can hold: the networks of one method."""

    method: str
    """As in messages."""

    package: str
    """Of the method; its folder `weights` holds what ships."""

    command: str
    """Writes such files."""

    config: type
    """Of a network: a frozen dataclass."""

    network: Callable[[Any], nn.Module]
    """Makes a network of a config, which it keeps as `config`."""

    @property
    def name(self) -> str:
        """Return what stands in the header."""
        return f"vla-bench {self.method} networks, format 2"


class NetworksError(VlaBenchError):
    """Refuse a file that holds no networks of a method."""

    def __init__(self, path: Path, kind: Kind, problem: str) -> None:
        super().__init__(
            f"{path} holds no networks of {kind.method}: {problem}; expected a safetensors file written by "
            f"'{kind.command}'"
        )


class ForeignNetworksError(VlaBenchError):
    """Refuse networks that were trained for another policy."""

    def __init__(self, path: Path, kind: Kind, found: str, expected: str) -> None:
        super().__init__(
            f"the networks of {path} were trained for the weights {found}, the policy has {expected}: train them for "
            f"it with '{kind.command}', or choose the policy that they belong to"
        )


@dataclass(frozen=True)
class Trained:
    """Networks and where they come from."""

    kind: Kind
    network: Any
    """What `kind.network` makes."""

    policy: str
    """Hash of the weights of the policy that they were trained for."""

    first_layer: int = 0
    """Layers before it recomputed every row while they were trained."""

    history: dict[str, Any] = field(default_factory=dict)
    """Data, recipe and measurements, for the card."""

    @property
    def sha256(self) -> str:
        """Return the hash of weights and shape."""
        digest = hashlib.sha256(json.dumps(asdict(self.network.config), sort_keys=True).encode())
        for name, weight in sorted(self.network.state_dict().items()):
            digest.update(name.encode() + weight.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, path: Path, dtype: torch.dtype = torch.float32) -> None:
        """Write the file in one step, its weights rounded to `dtype`.

        Raises:
            CheckpointWriteError: If it cannot be written.
        """
        header = {
            "kind": self.kind.name, "config": asdict(self.network.config), "policy": self.policy,
            "first_layer": self.first_layer, "history": self.history,
        }  # fmt: skip
        weights = self.network.state_dict().items()
        tensors = {name: weight.detach().to("cpu", dtype).contiguous() for name, weight in weights}
        write_tensors(path, tensors, {HEADER: json.dumps(header)})


def load(path: Path, kind: Kind) -> Trained:
    """Return networks in evaluation mode.

    Raises:
        NetworksError: If the file is missing, broken or something else.
    """
    try:
        tensors, metadata = read_tensors(path)
    except CheckpointError as caught:
        raise NetworksError(path, kind, str(caught.__cause__ or "there is no such file")) from caught
    try:
        header = json.loads(metadata[HEADER])
        if header["kind"] != kind.name:
            raise NetworksError(path, kind, f"it is a {header['kind']!r}")
        lists = {name: tuple(value) for name, value in header["config"].items() if isinstance(value, list)}
        network = kind.network(kind.config(**header["config"] | lists))
        network.load_state_dict(tensors)
        frozen = network.eval().requires_grad_(False)
        return Trained(kind, frozen, header["policy"], header["first_layer"], header["history"])
    except (KeyError, TypeError, ValueError, RuntimeError) as caught:
        problem = f"its header or weights are broken ({type(caught).__name__}: {caught})"
        raise NetworksError(path, kind, problem) from caught


def load_for(path: Path, kind: Kind, policy: str) -> Trained:
    """Return networks of a policy, given the hash of its weights or the hash's beginning.

    Raises:
        NetworksError: If the file is missing, broken or something else.
        ForeignNetworksError: If they were trained for another policy.
    """
    trained = load(path, kind)
    if not trained.policy.startswith(policy):
        raise ForeignNetworksError(path, kind, trained.policy[:12], policy[:12])
    return trained


def find(weights: str, kind: Kind) -> Path:
    """Return the file of networks that ship, or the path itself, without the hash behind it.

    Raises:
        UnknownNameError: If it is neither.
    """
    weights = weights.partition("@")[0]
    if weights.endswith(".safetensors") or "/" in weights:
        return Path(weights)
    folder = Path(str(files(kind.package).joinpath(WEIGHTS)))
    known = {path.stem: path for path in sorted(folder.glob("*.safetensors"))}
    if weights not in known:
        raise UnknownNameError(f"operating point of {kind.method}", weights, known)
    return known[weights]


def hashed(weights: str, kind: Kind) -> str:
    """Return a path with the beginning of its networks' hash behind it, so that a record says which they were.

    Args:
        weights: Name of what ships, which stays as it is, or a path.
        kind: Whose.

    Raises:
        NetworksError: If a path holds none.
        ValueError: If the path has a hash behind it that is another; its message is the right one.
    """
    path, _, given = weights.partition("@")
    if not path.endswith(".safetensors"):
        return weights
    right = f"{path}@{load(find(path, kind), kind).sha256[:8]}"
    if given and weights != right:
        raise ValueError(right)
    return right
