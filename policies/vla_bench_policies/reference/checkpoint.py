"""Weights on the disk: safetensors with the model's shape, its ranges and its history in the header; never a pickle."""

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vla_bench.errors import VlaBenchError
from vla_bench.types import ActionSpec
from vla_bench_policies.reference.actions import Range
from vla_bench_policies.reference.model import ModelConfig, ReferenceVLA
from vla_bench_policies.reference.tokenizer import tokenizer

KIND = "vla-bench reference VLA, format 1"
_HEADER = "vla_bench"
_SHAPE = ("config", "actions", "states", "tokens")


class CheckpointError(VlaBenchError):
    """Refuse a file that is no whole checkpoint of the reference VLA."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(
            f"{path} is no checkpoint of the reference VLA: {problem}; expected a safetensors file written by "
            f"'vla-bench train reference'. Fetch it again, or run its training again, which only goes on"
        )


class CheckpointWriteError(VlaBenchError):
    """Report that weights cannot be written; what was there before is whole."""

    def __init__(self, path: Path, cause: Exception) -> None:
        reason = getattr(cause, "strerror", None) or cause
        super().__init__(
            f"cannot write {path} ({reason}): what was there before is whole; make room, then run the same command "
            f"again to go on"
        )


@dataclass(frozen=True)
class Checkpoint:
    """Everything a policy needs."""

    model: ReferenceVLA
    actions: Range
    """What the model calls -1 and 1 in an action."""
    states: Range
    """The same for proprioception."""
    history: dict[str, Any] = field(default_factory=dict)
    """Recipe, demonstrations and measurements, for the card."""
    action_spec: ActionSpec = field(default_factory=ActionSpec)
    """What its actions mean. The header of a checkpoint for LIBERO does not say it, as none did before there were
    others."""

    commanded: bool = False
    """Whether it is given the pose that the hand was sent to, and not the one that is measured."""

    @property
    def sha256(self) -> str:
        """Return the hash of what decides the answers: weights, shape, ranges, vocabulary and meaning of actions."""
        return _digest(self.model.state_dict(), self._shape())

    def save(self, path: Path) -> None:
        """Write the file in one step; weights are rounded to half precision, which halves it.

        Raises:
            CheckpointWriteError: If it cannot be written.
        """
        tensors = {name: tensor.half().cpu().contiguous() for name, tensor in self.model.state_dict().items()}
        shape = self._shape()
        header = {"kind": KIND, **shape, "history": self.history, "sha256": _digest(tensors, shape)}
        header["history_sha256"] = _digest({}, {"history": self.history})
        write_tensors(path, tensors, {_HEADER: json.dumps(header)})

    def _shape(self) -> dict[str, Any]:
        return {
            "config": asdict(self.model.config),
            "actions": asdict(self.actions),
            "states": asdict(self.states),
            "tokens": len(tokenizer()),
            **({} if self.action_spec == ActionSpec() else {"action_spec": asdict(self.action_spec)}),
            **({"commanded": True} if self.commanded else {}),
        }


def load(path: Path) -> Checkpoint:
    """Return a checkpoint in single precision.

    Raises:
        CheckpointError: If the file is missing, truncated, altered or something else.
    """
    tensors, metadata = read_tensors(path)
    header = _header(path, metadata)
    shape = {key: header[key] for key in _SHAPE}
    shape |= {key: header[key] for key in ("action_spec", "commanded") if key in header}
    if _digest(tensors, shape) != header["sha256"]:
        raise CheckpointError(path, "its weights do not have the hash of its header, so one of them was altered")
    history = {"history": header["history"]}
    if header.get("history_sha256", _digest({}, history)) != _digest({}, history):  # the first checkpoints have none
        raise CheckpointError(path, "its history does not have the hash of its header, so one of them was altered")
    if shape["tokens"] != len(tokenizer()):
        raise CheckpointError(path, f"it knows {shape['tokens']} words, this version's vocabulary {len(tokenizer())}")
    if odd := sorted({own.name for own in fields(ModelConfig)} ^ set(shape["config"])):
        raise CheckpointError(path, f"its shape and this version's differ in {odd[0]!r}, so another version wrote it")
    lists = {name: tuple(value) for name, value in shape["config"].items() if isinstance(value, list)}
    config = ModelConfig(**shape["config"] | lists)
    model = ReferenceVLA(config)
    try:
        model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except RuntimeError as caught:
        raise CheckpointError(path, f"its weights do not fit its shape ({caught})") from caught
    ranges = [Range(tuple(shape[key]["low"]), tuple(shape[key]["high"])) for key in ("actions", "states")]
    spec = ActionSpec(**shape.get("action_spec", {}))
    commanded = bool(shape.get("commanded", False))
    return Checkpoint(model.eval(), *ranges, history=header["history"], action_spec=spec, commanded=commanded)


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file so that it is there whole or not at all.

    Raises:
        CheckpointWriteError: If it cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial, metadata=metadata)
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        partial.chmod(0o644)  # safetensors lets nobody else read it
        partial.replace(path)
    except (SafetensorError, OSError) as caught:  # safetensors has its own error for a full disk
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise CheckpointWriteError(path, caught) from caught


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file.

    Raises:
        CheckpointError: If there is no such file, or it is not a whole one.
    """
    try:
        with safe_open(path, framework="pt") as stream:
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
            return tensors, stream.metadata() or {}
    except FileNotFoundError:
        raise CheckpointError(path, "there is no such file") from None
    except (SafetensorError, OSError) as caught:
        raise CheckpointError(path, f"it cannot be read ({caught}), so it is truncated or another format") from caught


def _header(path: Path, metadata: dict[str, str]) -> dict[str, Any]:
    try:
        header = json.loads(metadata[_HEADER])
        kind = header["kind"]
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(path, "its header does not say what it is, so another program wrote it") from None
    if kind != KIND:
        raise CheckpointError(path, f"it is a {kind!r}, not a {KIND!r}")
    if lacking := [name for name in (*_SHAPE, "history", "sha256") if name not in header]:
        raise CheckpointError(path, f"its header has no {lacking[0]!r}, so it was altered")
    return header


def _digest(tensors: dict[str, Tensor], shape: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(shape, sort_keys=True).encode())
    for name in sorted(tensors):
        half = tensors[name].detach().half().cpu().contiguous()
        digest.update(name.encode() + str(tuple(half.shape)).encode() + half.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
