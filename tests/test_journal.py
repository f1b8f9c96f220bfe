"""An episode that was written stays written, whatever happens to the process and the disk."""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import ToySuite

from vla_bench import Cell, EpisodeRecord, Outcome, Query, RunPlan, journal, runner
from vla_bench.errors import JournalError, ResultsWriteError, RunLockedError
from vla_bench.parallel.crew import CrewOptions

settings.register_profile("patient", deadline=None)  # the machine may be shared
settings.load_profile("patient")

TOYS = RunPlan(suite="toy@1", policy="toy", methods=("full",), episodes=2, timed=False).resolve()

NOBODY = 65534
"""User that owns nothing."""

RECORD = EpisodeRecord(
    suite="toy@1",
    method="full",
    policy="toy",
    cell=Cell(0, 1, 2),
    outcome=Outcome.SUCCESS,
    n_steps=3,
    init_state_sha256=64 * "a",
    protocol="toy-0",
    path_m=0.15,
    jerk=0.1,
    wall_s=0.5,
    queries=(
        Query(0, 2, 2, 0.1, 1.25, 1.5, 0.2, is_first_step=True, is_warmup=True, rows_computed=10, rows_reused=0),
        Query(2, 2, 1, 0.1, 1 / 3, 1.5, 0.2, is_first_step=False, is_warmup=True, stages_ms={"vision": 0.1}),
    ),
)


def records(n: int) -> list[EpisodeRecord]:
    return [replace(RECORD, cell=Cell(0, index, 0)) for index in range(n)]


def write(directory: Path, *given: EpisodeRecord) -> None:
    with journal.writing(directory) as pages:
        for record in given:
            pages.append(record)


def test_what_is_written_is_read_to_the_last_bit(tmp_path: Path) -> None:
    errored = replace(RECORD, outcome=Outcome.ERROR, error="ValueError: \n\r\u2028 'é'", queries=(), attempt=2)
    write(tmp_path, RECORD, errored)
    assert journal.read(tmp_path) == [RECORD, errored]


@given(
    ms=st.floats(0, 1e9),
    steps=st.integers(0, 10**6),
    rows=st.none() | st.integers(0, 10**9),
    stages=st.dictionaries(st.text(), st.floats(allow_nan=False, allow_infinity=False)),
    error=st.none() | st.text(),
)
def test_every_record_survives_the_journals_format(ms, steps, rows, stages, error) -> None:
    query = replace(RECORD.queries[0], policy_ms=ms, rows_computed=rows, stages_ms=stages)
    record = replace(RECORD, n_steps=steps, queries=(query,), error=error)
    assert EpisodeRecord.from_dict(record.to_dict()) == record


def test_a_directory_without_a_journal_holds_no_episode(tmp_path: Path) -> None:
    assert journal.read(tmp_path / "nowhere") == []


def test_a_journal_cut_at_any_byte_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # thousands of them take seconds
    write(tmp_path, *records(3))
    path = tmp_path / journal.NAME
    whole = path.read_bytes()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        n_whole = whole[:end].count(b"\n")
        assert journal.read(tmp_path) == records(n_whole)
        write(tmp_path, *records(3)[n_whole:])
        assert path.read_bytes() == whole


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    write(tmp_path, *records(3))
    path = tmp_path / journal.NAME
    lines = path.read_bytes().splitlines(keepends=True)
    for broken in (b"{}\n", b"\n", lines[1][:40] + b"\n", b"[1]\n", b"\xff\xfe\n", lines[1].replace(b'"full"', b"")):
        path.write_bytes(lines[0] + broken + lines[2])
        with pytest.raises(JournalError, match=rf"^{path}, line 2: is no episode \("):
            journal.read(tmp_path)


def test_a_second_process_is_refused_and_told_who_writes(tmp_path: Path) -> None:
    code = (
        f"from pathlib import Path\nfrom vla_bench import journal\nwith journal.writing(Path({str(tmp_path)!r})): pass"
    )
    with journal.writing(tmp_path):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        with pytest.raises(RunLockedError), journal.writing(tmp_path):
            pass
    message = f"RunLockedError: {tmp_path} is being written by another process (process {os.getpid()} on "
    assert message in done.stderr
    write(tmp_path, RECORD)  # free again


def test_a_full_disk_is_an_error_that_says_what_is_safe() -> None:
    with (
        open("/dev/full", "ab", buffering=0) as full,
        pytest.raises(ResultsWriteError, match="No space left on device"),
    ):
        journal.Journal(Path("journal.jsonl"), full).append(RECORD)


def test_a_disk_that_fills_up_harms_nothing_older(tmp_path: Path) -> None:
    write(tmp_path, *records(2))
    before = (tmp_path / journal.NAME).read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 100, hard))  # room for a part of a line
    try:
        with pytest.raises(ResultsWriteError, match="File too large"):
            write(tmp_path, records(3)[2])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len((tmp_path / journal.NAME).read_bytes()) == len(before) + 100
    assert journal.read(tmp_path) == records(2)
    write(tmp_path, records(3)[2])
    assert journal.read(tmp_path) == records(3)


def test_a_directory_that_cannot_be_made_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsWriteError, match="Not a directory"), journal.writing(tmp_path / "file" / "run"):
        pass


def test_a_directory_that_may_only_be_read_is_an_error_that_says_so(read_only: Path) -> None:
    with pytest.raises(ResultsWriteError, match="Permission denied"), journal.writing(read_only):
        pass
    with pytest.raises(ResultsWriteError, match="Permission denied"), journal.writing(read_only / "run"):
        pass
    assert journal.read(read_only) == records(2)


@pytest.mark.parametrize("hands", [None, CrewOptions(2)])
def test_a_run_in_a_directory_that_may_only_be_read_plays_nothing(
    hands: CrewOptions | None, read_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ToySuite, "make", None)
    with pytest.raises(ResultsWriteError, match="Permission denied"):
        runner.run(TOYS, read_only, crew=hands)
    assert not active_children()
    assert journal.read(read_only) == records(2)


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A directory with a journal of two records, in which this process, root or not, may write nothing."""
    directory = Path(tempfile.mkdtemp())
    write(directory, *records(2))
    for path in directory.iterdir():
        path.chmod(0o444)
    directory.chmod(0o555)
    me = os.geteuid()
    if me == 0:
        os.seteuid(NOBODY)  # root may write everywhere
    try:
        yield directory
    finally:
        os.seteuid(me)
        directory.chmod(0o755)
        shutil.rmtree(directory)


def test_a_missing_file_of_the_policy_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), journal.writing(tmp_path):
        (tmp_path / "no_such_checkpoint").read_bytes()


def test_an_episode_is_on_the_disk_before_append_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bytes] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append((tmp_path / journal.NAME).read_bytes()))
    write(tmp_path, *records(2))
    assert [content.count(b"\n") for content in synced] == [1, 2]


def test_the_last_attempt_counts_and_keeps_its_place() -> None:
    one, two = records(2)
    failed = replace(one, outcome=Outcome.ERROR)
    assert journal.latest([failed, two, replace(one, attempt=2)]) == [replace(one, attempt=2), two]


def test_an_error_is_not_finished_until_it_was_repeated() -> None:
    one, two = records(2)
    failed = replace(one, outcome=Outcome.ERROR)
    assert journal.finished([failed, two]) == {two.key}
    assert journal.finished([failed, two, replace(one, attempt=2, outcome=Outcome.TIMEOUT)]) == {one.key, two.key}


def test_a_number_that_is_none_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        write(tmp_path, replace(RECORD, path_m=float("nan")))
    assert journal.read(tmp_path) == []
