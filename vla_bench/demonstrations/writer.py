"""A LeRobot dataset's one writer; LeRobot is not needed.

An episode is part of the dataset once its row is in `meta/episodes`: videos and data are written before, each whole
file put in place by one rename. What a killed writer leaves behind is an episode less, never a broken dataset.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from vla_bench.demonstrations import layout, statistics
from vla_bench.demonstrations.dataset import read_rows, read_sentences
from vla_bench.demonstrations.layout import ACTION, STATE, Layout, place, video_key
from vla_bench.demonstrations.statistics import Statistics
from vla_bench.errors import VlaBenchError


class OtherConditionsError(VlaBenchError):
    """Refuse to add demonstrations to a dataset that was made under other conditions."""

    def __init__(self, directory: Path, differences: Iterable[str]) -> None:
        super().__init__(
            f"{directory} holds demonstrations made under other conditions: {'; '.join(differences)}: "
            f"write to another directory with --out, or restore the conditions"
        )


class DatasetWriteError(VlaBenchError):
    """Report that demonstrations cannot be written; those written before are safe."""

    def __init__(self, path: Path, cause: OSError) -> None:
        super().__init__(
            f"cannot write {path} ({cause.strerror or cause}): every demonstration before is safe; make room or choose "
            f"another place with --out, then run the same command again to go on"
        )


@dataclass(frozen=True)
class Episode:
    """A demonstration as the writer takes it: numbers in memory, pictures encoded."""

    sentence: str
    """What the robot was told."""

    states: np.ndarray
    """`float32` (n, size of a state), as observed before each action."""

    actions: np.ndarray
    """`float32` (n, size of an action), the answer to each state."""

    videos: dict[str, Path]
    """An encoded file a camera, of n frames; it is copied."""

    image_statistics: dict[str, Statistics]
    """Of each camera's frames, see `statistics.of_frames`."""

    notes: dict[str, Any] = field(default_factory=dict)
    """Further columns of the episode's row, for example its attempt."""


class DatasetWriter:
    """Adds episodes to a dataset, new or begun. Only one writer at a time: the caller holds the lock."""

    def __init__(self, directory: Path, form: Layout, sentences: Sequence[str]) -> None:
        """Open or begin a dataset of these tasks.

        Raises:
            OtherConditionsError: If the dataset that is there has other features or tasks.
            DatasetWriteError: If the directory cannot be written.
        """
        self._directory = directory
        self._form = form
        self._task_index = {sentence: index for index, sentence in enumerate(dict.fromkeys(sentences))}
        self._check_what_is_there()
        for part in ("meta", "data", "videos"):
            for leftover in (directory / part).rglob("*.partial"):  # of a killed writer
                leftover.unlink()
        tasks = pd.DataFrame(
            {"task_index": list(self._task_index.values())}, index=pd.Index(list(self._task_index), name="task")
        )
        replace(directory / layout.TASKS, tasks.to_parquet)
        self._rows = read_rows(directory)
        self._write_summary()

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of `meta/episodes`, in order."""
        return list(self._rows)

    def append(self, episode: Episode) -> int:
        """Add an episode and return its index.

        Raises:
            DatasetWriteError: If the disk is full or the directory cannot be written.
        """
        index = len(self._rows)
        start = self._rows[-1]["dataset_to_index"] if self._rows else 0
        for camera, source in episode.videos.items():
            target = layout.VIDEO_PATH.format(video_key=video_key(camera), **place(index))
            replace(self._directory / target, lambda path, source=source: shutil.copyfile(source, path))
        columns = self._columns(episode, index, start)
        table = pa.Table.from_pydict({key: list(value) for key, value in columns.items()}, schema=self._form.schema())
        data = self._directory / layout.DATA_PATH.format(**place(index))
        replace(data, lambda path: pq.write_table(table, path))
        rows = [*self._rows, self._row(episode, index, start, columns)]
        replace(self._directory / layout.EPISODES, lambda path: pq.write_table(pa.Table.from_pylist(rows), path))
        self._rows = rows
        self._write_summary()
        return index

    def _columns(self, episode: Episode, index: int, start: int) -> dict[str, np.ndarray]:
        n = len(episode.actions)
        frames = np.arange(n)
        return {
            STATE: np.asarray(episode.states, dtype=np.float32),
            ACTION: np.asarray(episode.actions, dtype=np.float32),
            "timestamp": (frames / self._form.fps).astype(np.float32),
            "frame_index": frames,
            "episode_index": np.full(n, index),
            "index": start + frames,
            "task_index": np.full(n, self._task_index[episode.sentence]),
        }

    def _row(self, episode: Episode, index: int, start: int, columns: dict[str, np.ndarray]) -> dict[str, Any]:
        n = len(episode.actions)
        keys = [video_key(camera) for camera in episode.videos]
        found = {key: statistics.of_values(value) for key, value in columns.items()}
        found |= {video_key(camera): value for camera, value in episode.image_statistics.items()}
        return {
            "episode_index": index,
            "tasks": [episode.sentence],
            "length": n,
            "dataset_from_index": start,
            "dataset_to_index": start + n,
            **{f"data/{name}": value for name, value in place(index).items()},
            **{f"videos/{key}/{name}": value for key in keys for name, value in place(index).items()},
            **{f"videos/{key}/from_timestamp": 0.0 for key in keys},
            **{f"videos/{key}/to_timestamp": n / self._form.fps for key in keys},
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
            **{f"vla_bench/{key}": value for key, value in episode.notes.items()},
            **{f"stats/{key}/{name}": value for key, part in found.items() for name, value in part.items()},
        }

    def _write_summary(self) -> None:
        n_frames = self._rows[-1]["dataset_to_index"] if self._rows else 0
        info = self._form.info(len(self._rows), n_frames, len(self._task_index))
        if self._rows:
            names = ("min", "max", "mean", "std", "count")
            parts = {
                key: [{name: row[f"stats/{key}/{name}"] for name in names} for row in self._rows]
                for key in self._form.features()
            }
            write_json(
                self._directory / layout.STATISTICS, {key: statistics.pooled(part) for key, part in parts.items()}
            )
        write_json(self._directory / layout.INFO, info)

    def _check_what_is_there(self) -> None:
        path = self._directory / layout.INFO
        if not path.exists():
            return
        found, expected = json.loads(path.read_text())["features"], self._form.features()
        unequal = [key for key in {**found, **expected} if found.get(key) != expected.get(key)]
        if list(read_sentences(self._directory)) != list(self._task_index):
            unequal.append("tasks")
        if unequal:
            raise OtherConditionsError(self._directory, [f"{key} differs" for key in unequal])


def write_json(path: Path, content: object) -> None:
    """Put a JSON file in place, whole or not at all."""
    replace(path, lambda partial: partial.write_text(json.dumps(content, indent=2) + "\n"))


def replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Put a file in place, whole or not at all: `write` gets a name beside it, which is then renamed.

    Raises:
        DatasetWriteError: If that fails.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(partial, path)
    except OSError as caught:
        raise DatasetWriteError(path, caught) from caught
