"""The append-only record of a run: one line an episode, on disk before the next one starts."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path
from typing import Any, Protocol, TypeVar

from vla_bench.errors import JournalError, ResultsWriteError
from vla_bench.lock import only_writer
from vla_bench.types import EpisodeRecord

NAME = "journal.jsonl"
LOCK = "run.lock"


class Record(Protocol):
    """A line of a journal."""

    @property
    def key(self) -> Any:
        """Return what must be unique among the finished records."""
        ...

    @property
    def is_broken(self) -> bool:
        """Return whether something was raised, so that it must be tried again."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        ...


R = TypeVar("R", bound=Record)


class Journal:
    """Append episodes to a file; open it through `writing`, which lets only one process in."""

    def __init__(self, path: Path, stream: FileIO) -> None:
        self._path = path
        self._stream = stream

    def append(self, record: Record) -> None:
        """Write one record and wait until it is on the disk.

        Raises:
            ResultsWriteError: If the disk is full or the directory cannot be written; nothing older is harmed.
        """
        line = json.dumps(record.to_dict(), allow_nan=False, separators=(",", ":")).encode() + b"\n"
        try:
            while line:
                line = line[self._stream.write(line) :]
            os.fsync(self._stream.fileno())
        except OSError as caught:
            raise ResultsWriteError(self._path, caught) from caught


@contextmanager
def writing(directory: Path) -> Iterator[Journal]:
    """Open the journal of a run for appending, and drop a last line that was cut by a crash.

    Raises:
        RunLockedError: If another process writes to the same run.
        ResultsWriteError: If the directory cannot be written.
    """
    path = directory / NAME
    with ExitStack() as opened:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            opened.enter_context(only_writer(directory / LOCK))
            stream = opened.enter_context(path.open("ab", buffering=0))  # nothing is left to write when it closes
            stream.truncate(_whole_bytes(path))
        except OSError as caught:
            raise ResultsWriteError(path, caught) from caught
        yield Journal(path, stream)  # outside of the try: what a policy raises is no fault of the disk


def read(directory: Path) -> list[EpisodeRecord]:
    """Return all episodes ever written, in their order; see `read_as`."""
    return read_as(EpisodeRecord.from_dict, directory)


def read_as(parse: Callable[[dict[str, Any]], R], directory: Path) -> list[R]:
    """Return all records ever written, in their order, errors and their retries included; a cut last line is ignored.

    Raises:
        JournalError: If another line than the last cannot be read.
    """
    path = directory / NAME
    if not path.exists():
        return []
    lines = path.read_bytes()[: _whole_bytes(path)].splitlines()
    return [_record(parse, path, number, line) for number, line in enumerate(lines, start=1)]


def latest(records: list[R]) -> list[R]:
    """Return one record for every key: the last attempt, in the order of the first ones."""
    last: dict[Any, R] = {}
    for record in records:
        last[record.key] = record
    return list(last.values())


def finished(records: list[R]) -> set[Any]:
    """Return the keys that need no further attempt; an error does."""
    return {record.key for record in latest(records) if not record.is_broken}


def _record(parse: Callable[[dict[str, Any]], R], path: Path, number: int, line: bytes) -> R:
    try:
        return parse(json.loads(line))
    except (ValueError, KeyError, TypeError) as caught:
        raise JournalError(path, number, f"is no episode ({type(caught).__name__}: {caught})") from caught


def _whole_bytes(path: Path) -> int:
    """Return how many bytes of the file end in a newline: all of it, unless a crash cut the last line."""
    content = path.read_bytes()
    return content.rfind(b"\n") + 1
