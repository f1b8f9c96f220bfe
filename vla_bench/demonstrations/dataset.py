"""Reads demonstrations in the layout of LeRobotDataset v3.0; LeRobot is not needed."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from jaxtyping import Bool

from vla_bench import provenance, video
from vla_bench.demonstrations import layout
from vla_bench.demonstrations.layout import ACTION, STATE, place, video_key
from vla_bench.errors import OptionError, VlaBenchError
from vla_bench.types import ActionSpec

HOLD_OUT_EVERY = 10
"""Of each sentence of a dataset, every tenth episode is for validation and never trained on."""


class NoDatasetError(VlaBenchError):
    """Refuse to read demonstrations where there are none."""

    def __init__(self, directory: Path) -> None:
        super().__init__(
            f"{directory} has no {layout.EPISODES}, so it is no LeRobot dataset with an episode: make demonstrations "
            f"with 'vla-bench collect --out {directory}'"
        )


@dataclass(frozen=True)
class LoadedEpisode:
    """A demonstration as it is read."""

    sentence: str
    """What the robot was told."""

    images: dict[str, np.ndarray]
    """`uint8` (n, height, width, 3) by camera, row 0 on top; compressed, so near what was recorded, not equal."""

    states: np.ndarray
    """`float32` (n, size of a state); row t was observed with image t."""

    actions: np.ndarray
    """`float32` (n, size of an action); action t answers observation t."""

    timestamps_s: np.ndarray
    """`float32` (n,), from the episode's start."""


class Dataset:
    """Reads a dataset that lies in one directory, this project's or any LeRobotDataset v3.0 with videos."""

    def __init__(self, directory: Path) -> None:
        """Read what episodes there are.

        Raises:
            NoDatasetError: If there is no dataset, or one without episodes.
        """
        self.directory = directory
        self.episodes = read_rows(directory)
        """The rows of `meta/episodes`, in order."""
        if not self.episodes or not (directory / layout.INFO).exists():
            raise NoDatasetError(directory)
        self.info: dict[str, Any] = json.loads((directory / layout.INFO).read_text())
        self.cameras = tuple(
            key.removeprefix("observation.images.")
            for key, feature in self.info["features"].items()
            if feature["dtype"] == "video"
        )

    def __len__(self) -> int:
        return len(self.episodes)

    @property
    def state_names(self) -> tuple[str, ...]:
        """Return the entries of a state."""
        feature = self.info["features"][STATE]
        return tuple(feature["names"] or map(str, range(feature["shape"][0])))

    @cached_property
    def action_spec(self) -> ActionSpec:
        """Return what an action means; LIBERO's where nobody has written it down, as was the custom before SIMPLER."""
        made = provenance.read(self.directory)
        return ActionSpec(**(made["plan"].get("action_spec", {}) if made else {}))

    @cached_property
    def held_out(self) -> Bool[np.ndarray, " episodes"]:
        """Return which episodes are for validation."""
        told = np.array([row["tasks"][0] for row in self.episodes])
        nth = np.array([np.count_nonzero(told[: index + 1] == told[index]) for index in range(len(told))])
        return nth % HOLD_OUT_EVERY == 0

    @cached_property
    def fingerprint(self) -> str:
        """Return a hash of what tells this dataset from any other: every episode's statistics are in its row."""
        rows = json.dumps(self.episodes, sort_keys=True, default=str)
        return hashlib.sha256(rows.encode()).hexdigest()[:16]

    def load(self, index: int, cameras: Sequence[str] | None = None) -> LoadedEpisode:
        """Return an episode, with the images of `cameras` only, of all by default.

        Raises:
            OptionError: If there is no such episode.
        """
        if not 0 <= index < len(self):
            raise OptionError("episode", index, f"an index from 0 to {len(self) - 1} ({self.directory})")
        row = self.episodes[index]
        path = self.info["data_path"].format(**{name: row[f"data/{name}"] for name in place(0)})
        table = pq.read_table(self.directory / path, filters=[("episode_index", "==", index)])
        return LoadedEpisode(
            sentence=row["tasks"][0],
            images={camera: self._frames(row, camera) for camera in (self.cameras if cameras is None else cameras)},
            states=np.array(table[STATE].to_pylist(), dtype=np.float32),
            actions=np.array(table[ACTION].to_pylist(), dtype=np.float32),
            timestamps_s=table["timestamp"].to_numpy(),
        )

    def _frames(self, row: dict[str, Any], camera: str) -> np.ndarray:
        key = video_key(camera)
        at = {name: row[f"videos/{key}/{name}"] for name in place(0)}
        path = self.directory / self.info["video_path"].format(video_key=key, **at)
        return video.decode(path, row[f"videos/{key}/from_timestamp"], row[f"videos/{key}/to_timestamp"])


def read_rows(directory: Path) -> list[dict[str, Any]]:
    """Return the rows of `meta/episodes` by episode; none if there is no such file."""
    paths = sorted((directory / layout.EPISODES).parent.parent.glob("*/*.parquet"))
    rows = [row for path in paths for row in pq.read_table(path).to_pylist()]
    return sorted(rows, key=lambda row: row["episode_index"])


def read_sentences(directory: Path) -> list[str]:
    """Return the sentences of a dataset's tasks, by task index."""
    tasks = pd.read_parquet(directory / layout.TASKS)
    return list(tasks.sort_values("task_index").index)
