"""What was tried: a small file an attempt for good, and the recording beside it until it is part of the dataset.

attempts/task-03/0007.json      how attempt 7 of task 3 ended; written last, so what it speaks of is whole
attempts/task-03/0007/          its numbers and videos, if it is a demonstration
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from vla_bench import video
from vla_bench.demonstrations import statistics
from vla_bench.demonstrations.statistics import Statistics
from vla_bench.demonstrations.writer import Episode, write_json
from vla_bench_envs.demonstrations.recording import Recording

MAX_FAILURES_IN_A_ROW = 10
"""Attempts that may fail one after the other before a task is given up: its expert does not work here."""


@dataclass(frozen=True)
class Attempt:
    """How one attempt ended."""

    task: int
    """Index in the suite's standard order."""

    index: int
    """Counts the attempts of the task; it decides the initial state."""

    problem: str | None
    """Why it is no demonstration; None if it is one."""

    n_steps: int
    success_step: int | None
    init_state_sha256: str
    image_statistics: dict[str, Statistics]
    """By camera; empty if it is no demonstration."""

    @property
    def kept(self) -> bool:
        """Return whether it is a demonstration."""
        return self.problem is None


class Shelf:
    """The attempts of one task, in order and without a gap."""

    def __init__(self, directory: Path, task: int) -> None:
        """Look at the dataset in `directory`; nothing is written yet."""
        self._task = task
        self._directory = directory / "attempts" / f"task-{task:02d}"
        self.attempts: list[Attempt] = []
        self.refresh()

    def refresh(self) -> None:
        """Read what another process has added."""
        while (path := self._path(len(self.attempts)).with_suffix(".json")).exists():
            self.attempts.append(Attempt(**json.loads(path.read_text())))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process adds to this shelf; one whose parent was killed finishes its attempt first."""
        self._directory.mkdir(parents=True, exist_ok=True)
        with (self._directory / "shelf.lock").open("a") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)  # freed when the process ends, however it ends
            self.refresh()
            yield

    def kept(self, n: int) -> list[Attempt]:
        """Return the first n demonstrations, or as many as there are."""
        return [attempt for attempt in self.attempts if attempt.kept][:n]

    @property
    def hopeless(self) -> bool:
        """Return whether the last attempts have all failed."""
        last = self.attempts[-MAX_FAILURES_IN_A_ROW:]
        return len(last) == MAX_FAILURES_IN_A_ROW and not any(attempt.kept for attempt in last)

    def done(self, n: int) -> bool:
        """Return whether there is nothing left to try for n demonstrations."""
        return self.hopeless or len(self.kept(n)) == n

    def add(self, recording: Recording, fps: int) -> Attempt:
        """Put the next attempt on the disk: its recording if it is a demonstration, then its end."""
        index = len(self.attempts)
        if recording.problem is None:
            self._store(index, recording, fps)
        images = recording.images if recording.problem is None else {}
        attempt = Attempt(
            task=self._task,
            index=index,
            problem=recording.problem,
            n_steps=len(recording.actions),
            success_step=recording.success_step,
            init_state_sha256=recording.init_state_sha256,
            image_statistics={camera: statistics.of_frames(frames) for camera, frames in images.items()},
        )
        write_json(self._path(index).with_suffix(".json"), asdict(attempt))
        self.attempts.append(attempt)
        return attempt

    def episode(self, attempt: Attempt, sentence: str, task_name: str) -> Episode:
        """Return a demonstration that is still on the shelf, for the dataset's writer."""
        source = self._path(attempt.index)
        with np.load(source / "numbers.npz") as numbers:
            states, actions = numbers["states"], numbers["actions"]
        return Episode(
            sentence=sentence,
            states=states,
            actions=actions,
            videos={camera: source / f"{camera}.mp4" for camera in attempt.image_statistics},
            image_statistics=attempt.image_statistics,
            notes={
                "task": attempt.task,
                "task_name": task_name,
                "attempt": attempt.index,
                "success_step": attempt.success_step,
                "init_state_sha256": attempt.init_state_sha256,
            },
        )

    def clear(self, attempt: Attempt) -> None:
        """Remove a recording that is part of the dataset now; how it ended stays."""
        shutil.rmtree(self._path(attempt.index), ignore_errors=True)

    def _store(self, index: int, recording: Recording, fps: int) -> None:
        target = self._path(index)
        partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
        for leftover in self._directory.glob(f"{target.name}*"):  # of a process that was killed at this attempt
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        partial.mkdir(parents=True)
        np.savez(partial / "numbers.npz", states=recording.states, actions=recording.actions)
        for camera, frames in recording.images.items():
            video.encode(partial / f"{camera}.mp4", frames, fps)
        partial.rename(target)

    def _path(self, index: int) -> Path:
        return self._directory / f"{index:04d}"
