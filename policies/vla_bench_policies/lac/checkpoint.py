"""Trained gates on the disk: safetensors, with their shape, the policy they belong to and their history."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from vla_bench.errors import UnknownNameError, VlaBenchError
from vla_bench_policies.lac.gates import GateConfig, Gates
from vla_bench_policies.reference.checkpoint import CheckpointError, read_tensors, write_tensors

KIND = "vla-bench LAC gates, format 1"
HEADER = "vla_bench"
WEIGHTS = "weights"
"""Folder of the package that holds the gates that ship."""


class GatesError(VlaBenchError):
    """Refuse a file that holds no gates."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(
            f"{path} holds no gates of LAC: {problem}; expected a safetensors file written by 'vla-bench train lac'"
        )


class ForeignGatesError(VlaBenchError):
    """Refuse gates that were trained for another policy."""

    def __init__(self, path: Path, found: str, expected: str) -> None:
        super().__init__(
            f"the gates of {path} were trained for the weights {found}, the policy has {expected}: train gates for it "
            f"with 'vla-bench train lac', or choose the policy that they belong to"
        )


@dataclass(frozen=True)
class TrainedGates:
    """Gates and where they come from."""

    gates: Gates
    policy: str
    """Hash of the weights of the policy that they were trained for."""

    first_layer: int = 0
    """Layers before it recomputed every row while they were trained."""
    history: dict[str, Any] = field(default_factory=dict)
    """Data, recipe and measurements, for the card."""

    @property
    def sha256(self) -> str:
        """Return the hash of weights and shape."""
        digest = hashlib.sha256(json.dumps(asdict(self.gates.config), sort_keys=True).encode())
        for name, weight in sorted(self.gates.state_dict().items()):
            digest.update(name.encode() + weight.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Write the file in one step.

        Raises:
            CheckpointWriteError: If it cannot be written.
        """
        header = {
            "kind": KIND, "config": asdict(self.gates.config), "policy": self.policy,
            "first_layer": self.first_layer, "history": self.history,
        }  # fmt: skip
        tensors = {name: weight.detach().cpu().contiguous() for name, weight in self.gates.state_dict().items()}
        write_tensors(path, tensors, {HEADER: json.dumps(header)})


def load(path: Path) -> TrainedGates:
    """Return gates in evaluation mode.

    Raises:
        GatesError: If the file is missing, broken or something else.
    """
    try:
        tensors, metadata = read_tensors(path)
    except CheckpointError as caught:
        raise GatesError(path, str(caught.__cause__ or "there is no such file")) from caught
    try:
        header = json.loads(metadata[HEADER])
        if header["kind"] != KIND:
            raise GatesError(path, f"it is a {header['kind']!r}")
        lists = {name: tuple(value) for name, value in header["config"].items() if isinstance(value, list)}
        gates = Gates(GateConfig(**header["config"] | lists))
        gates.load_state_dict(tensors)
        frozen = gates.eval().requires_grad_(False)
        return TrainedGates(frozen, header["policy"], header["first_layer"], header["history"])
    except (KeyError, TypeError, ValueError, RuntimeError) as caught:
        raise GatesError(path, f"its header or weights are broken ({type(caught).__name__}: {caught})") from caught


def load_for(path: Path, policy: str) -> TrainedGates:
    """Return gates of a policy, given the hash of its weights or the hash's beginning.

    Raises:
        GatesError: If the file is missing, broken or something else.
        ForeignGatesError: If they were trained for another policy.
    """
    trained = load(path)
    if not trained.policy.startswith(policy):
        raise ForeignGatesError(path, trained.policy[:12], policy[:12])
    return trained


def find(weights: str) -> Path:
    """Return the file of gates that ship, or the path itself, without the hash behind it.

    Raises:
        UnknownNameError: If it is neither.
    """
    weights = weights.partition("@")[0]
    if weights.endswith(".safetensors") or "/" in weights:
        return Path(weights)
    folder = Path(str(files("vla_bench_policies.lac").joinpath(WEIGHTS)))
    known = {path.stem: path for path in sorted(folder.glob("*.safetensors"))}
    if weights not in known:
        raise UnknownNameError("operating point of LAC", weights, known)
    return known[weights]
