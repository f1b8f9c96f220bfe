"""From tokens or normalised numbers to actions: bins, quantile statistics, the gripper's convention."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor

from vla_bench_policies.openvla.config import read_json
from vla_bench_policies.openvla.errors import StatisticsKeyError

STATISTICS = "dataset_statistics.json"
"""Beside the weights of every fine-tuned checkpoint; the others have `norm_stats` in `config.json`."""


@dataclass(frozen=True)
class Quantiles:
    """What a model calls -1 and 1, entry by entry."""

    low: Float64[np.ndarray, " size"]
    """The first percentile of the training data."""
    high: Float64[np.ndarray, " size"]
    """The 99th."""
    scaled: Bool[np.ndarray, " size"]
    """Which entries are scaled at all: not the gripper, which is 0 (closed) to 1 (open)."""

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "Quantiles":
        """Return the quantiles of `action` or `proprio`."""
        low, high = np.array(entry["q01"], dtype=np.float64), np.array(entry["q99"], dtype=np.float64)
        return cls(low, high, np.array(entry.get("mask", np.ones(len(low))), dtype=bool))

    def restore(self, values: Float64[np.ndarray, "*n size"], widened: float = 0.0) -> Float64[np.ndarray, "*n size"]:
        """Return values in the training data's units; OpenVLA-OFT counts the range `widened` by 1e-8."""
        restored = 0.5 * (values + 1) * (self.high - self.low + widened) + self.low
        return np.where(self.scaled, restored, values)

    def normalise(self, values: Float64[np.ndarray, " size"]) -> Float64[np.ndarray, " size"]:
        """Return what OpenVLA-OFT makes of proprioception: in [-1, 1], cut off beyond (`normalize_proprio`)."""
        scaled = 2 * (values - self.low) / (self.high - self.low + 1e-8) - 1
        return np.clip(np.where(self.scaled, scaled, values), -1.0, 1.0)


def read_statistics(folder: Path) -> dict[str, Any]:
    """Return the statistics of all data sets that a checkpoint was trained on, by name."""
    if (folder / STATISTICS).exists():
        return read_json(folder / STATISTICS)
    return read_json(folder / "config.json").get("norm_stats") or {}


def statistics_key(statistics: Mapping[str, Any], wanted: str, dataset: str, weights: Path) -> str:
    """Return the data set by whose statistics answers become actions.

    Args:
        statistics: By data set.
        wanted: As the user says; empty for the suite's own.
        dataset: The suite's own; empty if it has none, for which the only statistics will do.
        weights: For the message.

    Raises:
        StatisticsKeyError: If the checkpoint has no such statistics.
    """
    own = wanted or dataset
    for name in (own, f"{own}_no_noops"):  # the second: trained on a data set without idle steps
        if name in statistics:
            return name
    if not own and len(statistics) == 1:
        return next(iter(statistics))
    raise StatisticsKeyError(own, statistics, weights)


def to_tokens(values: Float[Tensor, "*n"], n_tokens: int, n_bins: int) -> Int[Tensor, "*n"]:
    """Return the action tokens of numbers in [-1, 1] (openvla/openvla, `prismatic/vla/action_tokenizer.py`)."""
    edges = torch.linspace(-1, 1, n_bins, dtype=torch.float64, device=values.device)
    return n_tokens - torch.bucketize(values.double().clamp(-1, 1), edges, right=True)


def of_tokens(tokens: Int[np.ndarray, "*n"], n_tokens: int, n_bins: int) -> Float64[np.ndarray, "*n"]:
    """Return the numbers in (-1, 1) that action tokens stand for.

    The last token is the lowest bin. There are `n_bins` edges, so one bin less; what is no action token goes to the
    ends (openvla/openvla, `OpenVLAForActionPrediction.predict_action`).
    """
    edges = np.linspace(-1, 1, n_bins)
    centres = (edges[:-1] + edges[1:]) / 2.0
    return centres[np.clip(n_tokens - tokens - 1, 0, n_bins - 2)]


def for_libero(actions: Float64[np.ndarray, "n size"], low: float = -1.0, high: float = 1.0) -> np.ndarray:
    """Return actions as LIBERO applies them: the gripper as a decision that is positive where it closes.

    Models say 0 for closed and 1 for open (`normalize_gripper_action` and `invert_gripper_action` of openvla/openvla,
    `experiments/robot/robot_utils.py`). LIBERO's controller cuts the rest off at its limits; it is done here already.
    """
    applied = actions.copy()
    applied[:, -1] = -np.sign(2 * actions[:, -1] - 1)
    return np.clip(applied, low, high)


def of_libero(actions: Float64[np.ndarray, "*n size"]) -> Float64[np.ndarray, "*n size"]:
    """Return LIBERO's actions as models say them: the gripper 0 for closed and 1 for open.

    Source: openvla/openvla, `prismatic/vla/datasets/rlds/oxe/transforms.py`, `libero_dataset_transform`.
    """
    said = actions.copy()
    said[..., -1] = 1 - np.clip(actions[..., -1], 0, 1)
    return said
