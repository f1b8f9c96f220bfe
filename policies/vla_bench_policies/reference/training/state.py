"""What resuming needs: weights, averaged weights and the optimiser's moments, at one step."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from vla_bench.errors import VlaBenchError
from vla_bench_policies.reference.checkpoint import CheckpointError, read_tensors, write_tensors


class OtherTrainingError(VlaBenchError):
    """Refuse to go on with a training that was begun otherwise."""

    def __init__(self, path: Path, what: str, found: str, expected: str) -> None:
        super().__init__(
            f"{path} was begun with {what} {found}, this command means {expected}: train into another directory with "
            f"--out, or restore what was used"
        )


@dataclass
class State:
    """A training at one step."""

    model: nn.Module
    averaged: dict[str, Tensor]
    """Exponential moving average of the weights, by name."""
    optimiser: torch.optim.AdamW
    step: int = 0
    seconds: float = 0.0
    """Time spent on training so far, all sessions together."""

    def average(self, decay: float) -> None:
        """Move the averaged weights towards the weights; in the beginning faster than `decay` says."""
        decay = min(decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            weights = self.model.state_dict()
            averaged = [self.averaged[name] for name in weights]
            torch._foreach_lerp_(averaged, list(weights.values()), 1 - decay)  # pyright: ignore[reportPrivateImportUsage]

    def save(self, path: Path, origin: dict[str, str]) -> None:
        """Write everything, whole or not at all.

        Args:
            path: The file.
            origin: What must be equal when the training goes on, in words.

        Raises:
            CheckpointWriteError: If it cannot be written; the last state is still there.
        """
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"averaged.{name}": tensor for name, tensor in self.averaged.items()}
        for name, weight in self.model.named_parameters():
            for moment, tensor in self.optimiser.state.get(weight, {}).items():
                tensors[f"{moment}.{name}"] = tensor
        at = {"step": str(self.step), "seconds": repr(self.seconds), "origin": json.dumps(origin)}
        write_tensors(path, {name: tensor.contiguous() for name, tensor in tensors.items()}, at)

    def restore(self, path: Path, origin: dict[str, str]) -> None:
        """Take up the state that was saved.

        Raises:
            CheckpointError: If the file is broken.
            OtherTrainingError: If it was begun with another origin.
        """
        tensors, at = read_tensors(path)
        try:
            before = json.loads(at["origin"])
            step, seconds = int(at["step"]), float(at["seconds"])
        except (KeyError, ValueError):
            raise CheckpointError(path, "it does not say which training it belongs to") from None
        for what in sorted(before.keys() | origin.keys()):
            found, expected = before.get(what, "none"), origin.get(what, "none")
            if found != expected:
                raise OtherTrainingError(path, what, str(found), expected)
        parts: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            kind, _, rest = name.partition(".")
            parts.setdefault(kind, {})[rest] = tensor
        self.model.load_state_dict(parts["model"])
        device = next(self.model.parameters()).device
        self.averaged = {name: tensor.to(device) for name, tensor in parts["averaged"].items()}
        moments = [kind for kind in parts if kind not in ("model", "averaged")]
        for name, weight in self.model.named_parameters():
            kept = {kind: parts[kind][name] for kind in moments if name in parts[kind]}
            self.optimiser.state[weight] = {kind: kept[kind].to(weight.device) for kind in kept}
        self.step, self.seconds = step, seconds
