"""However many workers play, and whoever dies, every episode is played, once, and comes out the same."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path

import numpy as np
import pytest
from toy import TOY, ToySuite

import vla_bench
from vla_bench import EpisodeRecord, Outcome, RunPlan, cli, journal, tables
from vla_bench.errors import OptionError, ResultsWriteError, RunAbortedError, RunLockedError
from vla_bench.parallel import crew
from vla_bench.parallel.crew import CannotWorkError, CrewOptions
from vla_bench.runner import run

PLAN = RunPlan(suite="toy@1", policy="toy:1", methods=("full", "action-reuse:2"), episodes=5, timed=False)
SHARED = replace(PLAN, policy="toy-shared:1")

CHILD = """
import sys
from pathlib import Path
import toy
from vla_bench import RunPlan
from vla_bench.parallel.crew import CrewOptions
from vla_bench.runner import run

if __name__ == "__main__":
    plan = RunPlan("toy@1", "toy-shared:1,delay_s=0.01", ("full", "action-reuse:2"), episodes=5, timed=False)
    run(plan.resolve(), Path(sys.argv[1]), crew=CrewOptions(workers=int(sys.argv[2])))
"""


def outcomes(records: list[EpisodeRecord]) -> dict:
    """What must not depend on who played when."""
    return {
        record.key: (record.outcome, record.n_steps, record.init_state_sha256, round(record.path_m, 9))
        for record in records
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict:
    return outcomes(run(PLAN.resolve(), tmp_path_factory.mktemp("alone")))


@pytest.fixture
def suite() -> ToySuite:
    """A toy suite that a test may break."""
    own = ToySuite("toy-own@1")
    vla_bench.register("suite", own.name, own)
    return own


def own_plan(suite: ToySuite, plan: RunPlan = PLAN):
    return replace(plan, suite=suite.name, tasks=(0,), episodes=3).resolve()


@pytest.mark.parametrize(("plan", "workers"), [(PLAN, 2), (SHARED, 1), (SHARED, 2), (SHARED, 5)])
def test_any_number_of_workers_finds_the_same_outcomes(plan, workers: int, alone: dict, tmp_path: Path) -> None:
    records = run(plan.resolve(), tmp_path, crew=CrewOptions(workers))
    assert outcomes(records) == alone
    assert not any(record.timed for record in records)
    assert {record.division for record in records} == {"exact", "lossy"}
    assert outcomes(run(plan.resolve(), tmp_path)) == alone  # nothing is left, for one worker either
    assert len(journal.read(tmp_path)) == len(alone)


def test_questions_that_come_together_are_answered_together(tmp_path: Path) -> None:
    note = tmp_path / "batches"
    plan = replace(SHARED, policy=f"toy-shared:1,delay_s=0.02,batches={note}", methods=("full",))
    run(plan.resolve(), tmp_path / "run", crew=CrewOptions(4))
    sizes = np.array(note.read_text().split(), int)
    assert sizes.max() > 1
    assert sizes.sum() == sum(len(record.queries) for record in journal.read(tmp_path / "run"))


def test_three_random_kills_of_runs_with_1_2_and_5_workers_leave_the_outcomes_of_one(
    alone: dict, tmp_path: Path
) -> None:
    rng = np.random.default_rng()
    script, results = tmp_path / "child.py", tmp_path / "run"
    script.write_text(CHILD)
    here = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    for enough, workers in ((3, 1), (9, 2), (15, 5)):
        process = subprocess.Popen(
            [sys.executable, str(script), str(results), str(workers)], env=here, stderr=subprocess.DEVNULL
        )
        until = time.monotonic() + 240
        while len(journal.read(results)) < enough and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.1))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert enough <= len(journal.read(results)) < len(alone)
    assert outcomes(run(replace(SHARED, policy="toy-shared:1,delay_s=0.01").resolve(), results)) == alone
    finished = [record.key for record in journal.read(results) if not record.is_broken]
    assert len(finished) == len(set(finished)) == len(alone)


def test_an_interrupt_leaves_a_readable_journal_and_no_process(alone: dict, tmp_path: Path) -> None:
    options = "--suite toy@1 --policy toy-shared:1,delay_s=0.01 --episodes 5 --method full --method action-reuse:2"
    words = ["run", *options.split(), "--no-timed", "--workers", "2", "--results", str(tmp_path / "results")]
    script = tmp_path / "child.py"
    script.write_text(
        f"import sys, toy\nfrom vla_bench import cli\nif __name__ == '__main__':\n    sys.exit(cli.main({words}))"
    )
    here = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "VLA_BENCH_TEST": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, str(script)], env=here, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    until = time.monotonic() + 90
    while not (found := list(tmp_path.glob("results/*/journal.jsonl"))) or not journal.read(found[0].parent):
        assert time.monotonic() < until
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the crew, the desk and all workers
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted; what is finished is on disk" in said
    assert "Traceback" not in said
    assert not marked(tmp_path)
    directory = found[0].parent
    assert 0 < len(journal.read(directory)) < len(alone)
    assert outcomes(run(replace(SHARED, policy="toy-shared:1,delay_s=0.01").resolve(), directory)) == alone


def test_workers_are_gone_soon_after_the_crew_is_killed(tmp_path: Path) -> None:
    script, results = tmp_path / "child.py", tmp_path / "run"
    script.write_text(CHILD)
    here = os.environ | {"PYTHONPATH": str(Path(__file__).parent), "VLA_BENCH_TEST": str(tmp_path)}
    process = subprocess.Popen([sys.executable, str(script), str(results), "3"], env=here, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not journal.read(results) and time.monotonic() < until:
        time.sleep(0.01)
    assert len(marked(tmp_path)) >= 5  # crew, desk, three workers
    process.send_signal(signal.SIGKILL)
    process.wait()
    while marked(tmp_path) and time.monotonic() < until:
        time.sleep(0.05)
    assert not marked(tmp_path)


def marked(mark: Path) -> list[int]:
    """Living processes whose environment holds the mark."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if str(mark).encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("fault", ["kills_once", "crashes_once", "hangs_once"])
def test_a_worker_that_dies_or_hangs_is_replaced_and_its_episode_played_again(
    fault: str, suite: ToySuite, tmp_path: Path
) -> None:
    whole = outcomes(run(own_plan(suite), tmp_path / "whole"))
    flag = tmp_path / "flag"
    flag.touch()
    setattr(suite, fault, str(flag))
    records = run(own_plan(suite), tmp_path / "broken", crew=CrewOptions(2, stall_s=4))
    assert outcomes(records) == whole
    (lost,) = [record for record in journal.read(tmp_path / "broken") if record.is_broken]
    (again,) = [record for record in records if record.key == lost.key]
    assert (lost.attempt, again.attempt) == (1, 2)
    assert lost.policy == again.policy == "toy"
    if fault != "hangs_once":
        ended_by = {"kills_once": signal.SIGKILL, "crashes_once": signal.SIGSEGV}[fault]
        assert lost.error == f"its worker was ended by signal {ended_by}"
    else:
        assert "its worker showed no life for" in lost.error
        assert "toy.py" in lost.error  # the stack says where it hangs
        assert "in step" in lost.error


@pytest.mark.parametrize("fault", ["kills_once", "hangs_once", "raises_once"])
def test_a_policy_that_dies_hangs_or_raises_costs_only_the_episodes_that_wait_for_it(
    fault: str, suite: ToySuite, tmp_path: Path
) -> None:
    whole = outcomes(run(own_plan(suite), tmp_path / "whole"))
    flag = tmp_path / "flag"
    flag.touch()
    plan = own_plan(suite, replace(SHARED, policy=f"toy-shared:1,{fault}={flag}"))
    run(plan, tmp_path / "broken", crew=CrewOptions(2, stall_s=4))
    lost = [record for record in journal.read(tmp_path / "broken") if record.is_broken]
    assert 1 <= len(lost) <= 2
    expected = {
        "kills_once": "the policy's process was ended by signal 9", "hangs_once": "in act_together",
        "raises_once": "raised in its process: RuntimeError: the toy was told to raise",
    }  # fmt: skip
    assert all(expected[fault] in record.error for record in lost)
    records = run(plan, tmp_path / "broken", crew=CrewOptions(2))  # what raised is tried again by the next command
    assert outcomes(records) == whole


def test_a_policy_that_dies_under_many_workers_does_not_end_the_run(suite: ToySuite, tmp_path: Path) -> None:
    flag, batches = tmp_path / "flag", tmp_path / "batches"
    batches.touch()

    def kill_once_all_play() -> None:
        while "4" not in batches.read_text().split():
            time.sleep(0.005)
        flag.touch()

    killer = threading.Thread(target=kill_once_all_play, daemon=True)
    killer.start()
    named = f"toy-shared:1,delay_s=0.05,batches={batches},kills_once={flag}"
    records = run(replace(SHARED, policy=named, suite=suite.name, episodes=12).resolve(), tmp_path, crew=CrewOptions(4))
    assert not any(record.is_broken for record in records)
    assert len([record for record in journal.read(tmp_path) if record.is_broken]) > 2


def test_a_policy_that_dies_while_workers_still_begin_does_not_end_the_run(suite: ToySuite, tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    plan = replace(SHARED, policy=f"toy-shared:1,delay_s=0.05,kills_once={flag}", suite=suite.name).resolve()
    records = run(plan, tmp_path / "run", crew=CrewOptions(4))
    assert not any(record.is_broken for record in records)
    assert any(record.is_broken for record in journal.read(tmp_path / "run"))


def test_an_episode_that_always_kills_its_process_ends_in_an_error_and_the_rest_is_played(suite, tmp_path) -> None:
    suite.kills_at = {(0, 1)}
    plan = replace(PLAN, suite=suite.name, tasks=(0,), methods=("full",), episodes=4).resolve()
    records = run(plan, tmp_path, crew=CrewOptions(2))
    assert {record.cell.init_state: record.outcome is Outcome.ERROR for record in records} == {
        0: False, 1: True, 2: False, 3: False,
    }  # fmt: skip
    assert [record.attempt for record in journal.read(tmp_path) if record.is_broken] == [1, 2]


def test_a_run_in_which_nothing_works_stops(suite: ToySuite, tmp_path: Path) -> None:
    suite.raises_at = {(0, state) for state in range(5)}
    with pytest.raises(RunAbortedError, match="the toy was told to break"):
        run(replace(PLAN, suite=suite.name, tasks=(0,)).resolve(), tmp_path, crew=CrewOptions(2))
    assert 3 <= len(journal.read(tmp_path)) <= 5


@pytest.mark.parametrize(
    ("policy", "share", "expected"),
    [
        ("toy:0,no_such_option=1", None, "no_such_option"),
        ("toy:1", True, "cannot be shared.*--no-share"),
    ],
)
def test_a_policy_that_cannot_begin_says_why(policy: str, share, expected: str, tmp_path: Path) -> None:
    with pytest.raises(CannotWorkError, match=expected):
        run(replace(PLAN, policy=policy).resolve(), tmp_path, crew=CrewOptions(2, share))


@pytest.mark.parametrize("fault", ["hangs_once", "crashes_once"])
def test_a_timed_plan_is_watched_in_one_process_that_has_the_policy_to_itself(
    fault: str, suite: ToySuite, tmp_path: Path
) -> None:
    plan = replace(own_plan(suite, replace(PLAN, timed=True, methods=("full",))), episodes=8)
    whole = run(plan, tmp_path / "whole")
    flag = tmp_path / "flag"
    flag.touch()
    setattr(suite, fault, str(flag))
    records = run(plan, tmp_path / "watched", crew=CrewOptions(1, share=False, stall_s=4))
    assert outcomes(records) == outcomes(whole)
    assert len([record for record in journal.read(tmp_path / "watched") if record.is_broken]) == 1
    assert all(record.timed for record in records)
    assert not all(query.is_warmup for record in records for query in record.queries)
    with pytest.raises(OptionError, match="--share is True; expected False for a timed plan"):
        run(plan, tmp_path / "shared", crew=CrewOptions(1, share=True))


def test_the_command_watches_one_worker(alone: dict, tmp_path: Path, capsys) -> None:
    words = "run --suite toy@1 --policy toy:1 --method full --method action-reuse:2 --episodes 5 --watched"
    assert cli.main([*words.split(), "--results", str(tmp_path)]) == 0
    (directory,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert outcomes(journal.read(directory)) == alone
    assert json.loads((directory / "provenance.json").read_text())["sessions"][0]["workers"] == "1"
    assert tables.summarise(tables.load(directory))["policy_ms"].notna().all()


@pytest.mark.parametrize("share", [True, False])
def test_a_policy_that_hangs_while_it_is_made_ends_the_run(
    share: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "BEGIN_S", 6.0)
    plan = replace(PLAN, policy="toy-shared:1,hangs_at_first=True").resolve()
    with pytest.raises(CannotWorkError, match=r"(?s)showed no life for [67] s.*before it could begin"):
        run(plan, tmp_path, crew=CrewOptions(1, share, stall_s=1))
    assert not active_children()
    assert journal.read(tmp_path) == []


def test_a_disk_that_fills_up_under_workers_ends_the_run_and_costs_nothing_that_was_written(
    alone: dict, tmp_path: Path
) -> None:
    """The limit is on files of this process, which alone writes; its children were started without it."""
    path, limit = tmp_path / journal.NAME, resource.getrlimit(resource.RLIMIT_FSIZE)
    slow = replace(SHARED, policy="toy-shared:1,delay_s=0.01").resolve()

    def fill_up() -> None:
        while not (path.exists() and path.read_bytes().count(b"\n") >= 3):
            time.sleep(0.002)
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 100, limit[1]))

    filler = threading.Thread(target=fill_up, daemon=True)
    filler.start()
    try:
        with pytest.raises(ResultsWriteError, match=r"journal\.jsonl.*File too large"):
            run(slow, tmp_path, crew=CrewOptions(2))
    finally:
        filler.join()
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not active_children()
    assert 3 <= len(journal.read(tmp_path)) < len(alone)
    assert not path.read_bytes().endswith(b"\n")  # the line that found no room
    assert outcomes(run(slow, tmp_path, crew=CrewOptions(2))) == alone
    finished = [record.key for record in journal.read(tmp_path)]
    assert len(finished) == len(set(finished)) == len(alone)


def test_a_second_run_on_one_directory_is_refused(tmp_path: Path) -> None:
    with journal.writing(tmp_path), pytest.raises(RunLockedError):
        run(PLAN.resolve(), tmp_path, crew=CrewOptions(2))


def test_what_ran_at_once_has_no_latency(tmp_path: Path, capsys) -> None:
    with pytest.raises(OptionError, match="--no-timed"):
        run(replace(PLAN, timed=True).resolve(), tmp_path, crew=CrewOptions(2))
    assert PLAN.resolve().id != replace(PLAN, timed=True).resolve().id
    words = "run --suite toy@1 --policy toy:1 --method full --method action-reuse:2 --episodes 5 --no-timed --workers 2"
    assert cli.main([*words.split(), "--results", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    (directory,) = (path for path in tmp_path.iterdir() if path.is_dir())
    summary = tables.summarise(tables.load(directory))
    assert summary[["policy_ms", "policy_ms_per_step", "speedup", "policy_ms_per_success"]].isna().all(axis=None)
    assert summary["success"].notna().all()
    assert "not timed" in shown
    plan = json.loads((directory / "provenance.json").read_text())["plan"]
    assert plan["timed"] is False


def test_the_fingerprint_of_a_suite_does_not_depend_on_workers(tmp_path: Path) -> None:
    for name, hands in (("one", None), ("two", CrewOptions(2))):
        run(replace(PLAN, tasks=(1,), episodes=1).resolve(), tmp_path / name, crew=hands)
    one, two = (json.loads((tmp_path / name / "provenance.json").read_text())["conditions"] for name in ("one", "two"))
    assert one == two
    assert one["environment physics"] == TOY.physics
