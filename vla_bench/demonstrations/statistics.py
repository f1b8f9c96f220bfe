"""Minimum, maximum, mean and standard deviation of what an episode holds, and of many episodes."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

Statistics: TypeAlias = dict[str, list]
"""`min`, `max`, `mean` and `std` in the shape of one value (of a scalar: a list of one), and `count`, a list of one.

LeRobot adds quantiles, which cannot be pooled; they are left out.
"""


def of_values(values: np.ndarray) -> Statistics:
    """Return the statistics over the first axis of (n,) or (n, size)."""
    values = np.asarray(values, dtype=np.float64).reshape(len(values), -1)
    return {
        "min": values.min(axis=0).tolist(),
        "max": values.max(axis=0).tolist(),
        "mean": values.mean(axis=0).tolist(),
        "std": values.std(axis=0).tolist(),
        "count": [len(values)],
    }


def of_frames(frames: np.ndarray) -> Statistics:
    """Return the statistics of each colour of frames (n, height, width, 3), scaled to [0, 1], in shape (3, 1, 1)."""
    grey = np.arange(256) / 255
    counts = np.stack([np.bincount(frames[..., colour].ravel(), minlength=256) for colour in range(3)])
    shares = counts / counts.sum(axis=1, keepdims=True)
    mean = shares @ grey
    present = counts > 0
    found = {
        "min": grey[present.argmax(axis=1)],
        "max": grey[255 - present[:, ::-1].argmax(axis=1)],
        "mean": mean,
        "std": np.sqrt((shares * (grey - mean[:, None]) ** 2).sum(axis=1)),
    }
    return {key: value.reshape(3, 1, 1).tolist() for key, value in found.items()} | {"count": [len(frames)]}


def pooled(parts: Sequence[Statistics]) -> Statistics:
    """Return the statistics of all values together; exact, as the variance of a mixture is."""
    counts = np.array([part["count"][0] for part in parts], dtype=np.float64)
    means, deviations = (np.array([part[key] for part in parts], dtype=np.float64) for key in ("mean", "std"))
    shares = (counts / counts.sum()).reshape(-1, *[1] * (means.ndim - 1))
    mean = (shares * means).sum(axis=0)
    variance = (shares * (deviations**2 + (means - mean) ** 2)).sum(axis=0)
    return {
        "min": np.min([part["min"] for part in parts], axis=0).tolist(),
        "max": np.max([part["max"] for part in parts], axis=0).tolist(),
        "mean": mean.tolist(),
        "std": np.sqrt(variance).tolist(),
        "count": [int(counts.sum())],
    }
