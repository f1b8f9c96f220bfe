"""Demonstrations as arrays: decoded once, kept on the disk, split by episode."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vla_bench import provenance
from vla_bench.demonstrations.dataset import HOLD_OUT_EVERY, Dataset
from vla_bench.errors import VlaBenchError
from vla_bench.progress import Progress

GRIPPER = 6
"""Entry of an action that closes the gripper."""

MANY = f"{HOLD_OUT_EVERY} of a task in one of the datasets, the last of which is held out"


class UnfitDemonstrationsError(VlaBenchError):
    """Refuse demonstrations that the model cannot be trained on."""

    def __init__(self, directory: Path, found: str, expected: str) -> None:
        super().__init__(f"{directory} has {found}; the recipe expects {expected}: choose other demonstrations")


class FrameCacheError(VlaBenchError):
    """Report that decoded frames cannot be kept."""

    def __init__(self, path: Path, n_bytes: int, cause: OSError) -> None:
        super().__init__(
            f"cannot write {n_bytes / 1e9:.1f} GB of decoded frames to {path} ({cause.strerror or cause}): make room, "
            f"or choose another place with --cache"
        )


@dataclass(frozen=True)
class Preparation:
    """What is done to every picture, once, as it is decoded."""

    name: str
    """Tells what it leaves on the disk from what others do."""

    px: int
    """Side of what it leaves [px]."""

    apply: Callable[[np.ndarray], np.ndarray]
    """Takes `uint8` (height, width, 3) and returns `uint8` (px, px, 3)."""


@dataclass(frozen=True)
class Demonstrations:
    """All frames of all datasets, in order; index i is the same frame in every array."""

    images: tuple[np.ndarray, ...]
    """By dataset: `uint8` (frames, cameras, height, width, 3), on the disk."""

    first: np.ndarray
    """Index of each dataset's first frame."""

    states: np.ndarray
    """`float32` (n, proprio)."""

    actions: np.ndarray
    """`float32` (n, action); the answer to each frame."""

    end: np.ndarray
    """Index after the last frame of each frame's episode (n,)."""

    sentence: np.ndarray
    """Index into `sentences` (n,)."""

    sentences: tuple[str, ...]

    held_out: np.ndarray
    """`bool` (n,): whether the frame's episode is for validation."""

    fingerprint: str
    """Hash of which episodes there are."""

    sources: tuple[dict[str, Any], ...] = ()
    """Of each dataset: name, episodes, frames, bytes, and the command that makes it again."""

    @cached_property
    def grasp(self) -> np.ndarray:
        """Return, for each frame, that before the gripper's next change of command, or its episode's last (n,)."""
        closes = self.actions[:, GRIPPER] > 0
        last = np.arange(1, len(closes) + 1) == self.end
        stops = np.flatnonzero(last | (closes != np.roll(closes, -1)))
        return stops[np.searchsorted(stops, np.arange(len(closes)))]

    @property
    def training(self) -> np.ndarray:
        """Return the indices that are trained on."""
        return np.flatnonzero(~self.held_out)

    @property
    def validation(self) -> np.ndarray:
        """Return the indices that are held out."""
        return np.flatnonzero(self.held_out)

    def pictures(self, index: np.ndarray) -> np.ndarray:
        """Return `uint8` (n, cameras, height, width, 3)."""
        dataset = np.searchsorted(self.first, index, side="right") - 1
        return np.stack([self.images[of][at - self.first[of]] for of, at in zip(dataset, index, strict=True)])

    def chunks(self, index: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the next `length` actions (n, length, action), and whether they are within the episode (n, length)."""
        wanted = index[:, None] + np.arange(length)
        within = wanted < self.end[index][:, None]
        return self.actions[np.minimum(wanted, self.end[index][:, None] - 1)], within


def load(
    directories: Sequence[Path],
    cameras: Sequence[str],
    image_px: int | None,
    cache: Path,
    preparation: Preparation | None = None,
) -> Demonstrations:
    """Return the demonstrations of some datasets; what is not decoded yet is decoded first, with a progress bar.

    Args:
        directories: Of the datasets.
        cameras: That are wanted.
        image_px: Side of their pictures; None for any.
        cache: Directory of decoded frames.
        preparation: Of each picture; none by default.

    Raises:
        NoDatasetError: If a directory has none.
        UnfitDemonstrationsError: If one lacks a camera or has images of another size.
        FrameCacheError: If the decoded frames find no room.
    """
    datasets = [Dataset(directory) for directory in directories]
    for dataset in datasets:
        _check(dataset, cameras, image_px)
    if not any(dataset.held_out.any() for dataset in datasets):
        raise UnfitDemonstrationsError(directories[0], f"fewer than {HOLD_OUT_EVERY} episodes of every task", MANY)
    rows = [row for dataset in datasets for row in dataset.episodes]
    lengths = np.array([row["length"] for row in rows])
    sentences = tuple(sorted({row["tasks"][0] for row in rows}))
    episodes = [dataset.load(index, cameras=()) for dataset in datasets for index in range(len(dataset))]
    frames = [sum(row["length"] for row in dataset.episodes) for dataset in datasets]
    return Demonstrations(
        images=tuple(_decoded(dataset, cameras, cache, preparation) for dataset in datasets),
        first=np.cumsum([0, *frames[:-1]]),
        states=np.concatenate([episode.states for episode in episodes]),
        actions=np.concatenate([episode.actions for episode in episodes]),
        end=np.repeat(np.cumsum(lengths), lengths),
        sentence=np.repeat([sentences.index(row["tasks"][0]) for row in rows], lengths),
        sentences=sentences,
        held_out=np.repeat(np.concatenate([dataset.held_out for dataset in datasets]), lengths),
        sources=tuple(map(_source, datasets)),
        fingerprint=hashlib.sha256("".join(dataset.fingerprint for dataset in datasets).encode()).hexdigest()[:12],
    )


def _source(dataset: Dataset) -> dict[str, Any]:
    """Return what a checkpoint's card says about a dataset."""
    made = provenance.read(dataset.directory)
    size = sum(path.stat().st_size for part in ("data", "videos") for path in (dataset.directory / part).rglob("*.*"))
    found = {
        "name": dataset.directory.name,
        "episodes": len(dataset),
        "frames": sum(row["length"] for row in dataset.episodes),
        "bytes": size,
    }
    if made is None:
        return found
    plan = made["plan"]
    preset = plan.get("preset", plan["protocol"]["name"])
    options = {"suite": plan["suite"], "protocol": preset, "episodes": plan["episodes"]}
    options |= {"seed": plan["seed"], "pushes-hz": plan["pushes_hz"]}
    if plan.get("driver"):
        options |= {"driver": plan["driver"], "method": plan["method"]}
    options |= {"lead": plan["lead"]} if plan.get("lead") else {}
    options |= {"out": plan["out"]}
    command = "vla-bench collect " + " ".join(f"--{key} {value}" for key, value in options.items())
    return found | {"command": "; ".join([command, *([plan["then"]] if plan.get("then") else [])])}


def _check(dataset: Dataset, cameras: Sequence[str], image_px: int | None) -> None:
    if set(cameras) - set(dataset.cameras):
        raise UnfitDemonstrationsError(dataset.directory, f"cameras {list(dataset.cameras)}", f"{list(cameras)}")
    for camera in cameras:
        shape = _shape(dataset, camera)
        if image_px is not None and shape != (image_px, image_px, 3):
            raise UnfitDemonstrationsError(dataset.directory, f"images {shape}", f"({image_px}, {image_px}, 3)")


def _shape(dataset: Dataset, camera: str) -> tuple[int, ...]:
    return tuple(dataset.info["features"][f"observation.images.{camera}"]["shape"])


def _decoded(dataset: Dataset, cameras: Sequence[str], cache: Path, preparation: Preparation | None) -> np.ndarray:
    n_frames = sum(row["length"] for row in dataset.episodes)
    size = _shape(dataset, cameras[0])[:2] if preparation is None else (preparation.px, preparation.px)
    shape = (n_frames, len(cameras), *size, 3)
    name = "-".join((dataset.fingerprint, *cameras, *([preparation.name] if preparation else ())))
    path = cache / f"{name}.frames"
    if not path.exists():
        _decode(dataset, cameras, shape, path, preparation)
    return np.memmap(path, dtype=np.uint8, mode="r", shape=shape)


def _decode(
    dataset: Dataset, cameras: Sequence[str], shape: tuple[int, ...], path: Path, preparation: Preparation | None
) -> None:
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as stream:
            for index in Progress(range(len(dataset)), desc=f"decode {dataset.directory.name}"):
                images = dataset.load(index, cameras=cameras).images
                if preparation is not None:
                    images = {name: [preparation.apply(one) for one in frames] for name, frames in images.items()}
                stream.write(np.stack([images[camera] for camera in cameras], axis=1).tobytes())
        partial.rename(path)
    except OSError as caught:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise FrameCacheError(path, int(np.prod(shape)), caught) from caught
