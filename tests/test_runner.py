"""A run can be stopped at any moment and goes on where it was."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from toy import TOY, ToyPolicy, ToySuite

import vla_bench
from vla_bench import EpisodeRecord, Outcome, RunPlan, journal, provenance, registry
from vla_bench.errors import ActionSpecMismatchError, OptionError, ResumeError, RunAbortedError
from vla_bench.runner import run
from vla_bench.types import ActionSpec

PLAN = RunPlan(suite="toy@1", policy="toy", methods=("full", "action-reuse:2"), episodes=4, tasks=(0, 2))

CHILD = """
import sys
from pathlib import Path
import toy
from vla_bench import RunPlan
from vla_bench.runner import run
plan = RunPlan(suite="toy@1", policy="toy:1,delay_s=0.003", methods=("full",), episodes=10, tasks=(0, 2))
toy.TOY.kills_at = {tuple(map(int, cell.split(","))) for cell in sys.argv[2:]}
run(plan.resolve(), Path(sys.argv[1]))
"""


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> ToySuite:
    """Return a toy suite that a test may break."""
    own = ToySuite("toy-own@1")
    vla_bench.register("suite", own.name, own)
    return own


def resolve(plan: RunPlan = PLAN, **change: object):
    return RunPlan(**{**vars(plan), **change}).resolve()


def child(directory: Path, *kills_at: str) -> subprocess.Popen:
    """Start a run of 20 episodes in a process of its own."""
    here = {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CHILD, str(directory), *kills_at]
    return subprocess.Popen(command, env=os.environ | here, stderr=subprocess.DEVNULL)


def without_times(record: EpisodeRecord) -> tuple:
    return (record.method, record.cell, record.outcome, record.n_steps, record.path_m, record.init_state_sha256)


def test_every_cell_is_played_once_by_every_method(tmp_path: Path) -> None:
    plan = resolve()
    records = run(plan, tmp_path)
    assert Counter(record.key for record in records) == {(m, c): 1 for c in plan.cells() for m in plan.methods}
    assert records == journal.read(tmp_path)
    assert {record.attempt for record in records} == {1}


def test_methods_take_turns_on_the_same_start(tmp_path: Path) -> None:
    plan = resolve()
    keys = [record.key for record in run(plan, tmp_path)]
    assert keys == [(method, cell) for cell in plan.cells() for method in plan.turns(cell)]
    hashes = {(record.cell, record.init_state_sha256) for record in journal.read(tmp_path)}
    assert len(hashes) == 8


def test_the_same_plan_plays_the_same_episodes(tmp_path: Path) -> None:
    one, other = (run(resolve(), tmp_path / name) for name in ("one", "other"))
    assert [without_times(record) for record in one] == [without_times(record) for record in other]


def test_a_finished_run_plays_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(resolve(), tmp_path)
    monkeypatch.setattr(ToySuite, "make", None)
    assert run(resolve(), tmp_path) == first
    assert len(provenance.read(tmp_path)["sessions"]) == 1


@pytest.mark.parametrize("n_kept", [0, 1, 7, 15])
def test_resuming_never_repeats_an_episode(tmp_path: Path, n_kept: int) -> None:
    whole = run(resolve(), tmp_path)
    path = tmp_path / journal.NAME
    kept = path.read_bytes().splitlines(keepends=True)[:n_kept]
    path.write_bytes(b"".join(kept) + b'{"suite": "to')
    resumed = run(resolve(), tmp_path)
    assert path.read_bytes().startswith(b"".join(kept))
    assert len(journal.read(tmp_path)) == len(whole)
    assert [without_times(record) for record in resumed] == [without_times(record) for record in whole]


def test_a_run_whose_journal_was_cut_at_any_byte_ends_with_every_episode_once(tmp_path: Path) -> None:
    """Cut by a crash in the middle of a line, or right before, behind or after its end."""
    whole = run(resolve(), tmp_path)
    path = tmp_path / journal.NAME
    content = path.read_bytes()
    ends = [index for index, byte in enumerate(content) if byte == ord("\n")]
    cuts = {
        ends[0],
        ends[0] + 1,
        ends[-1],
        ends[-1] - 1,
        *np.random.default_rng().integers(0, len(content), 6).tolist(),
    }
    for cut in sorted(cuts):
        path.write_bytes(content[:cut])
        resumed = run(resolve(), tmp_path)
        assert [without_times(record) for record in resumed] == [without_times(record) for record in whole], cut
        kept = content[: content.rfind(b"\n", 0, cut) + 1]
        assert path.read_bytes().startswith(kept), cut
        assert len(journal.read(tmp_path)) == len(whole), cut


def test_an_error_is_retried_on_the_next_run_and_then_counted_once(tmp_path: Path, suite: ToySuite) -> None:
    plan = resolve(suite=suite.name)
    suite.raises_at = {(0, 1)}
    first = run(plan, tmp_path)
    assert Counter(record.outcome for record in first)[Outcome.ERROR] == 2  # one a method
    suite.raises_at = set()
    second = run(plan, tmp_path)
    assert len(first) == len(second) == plan.n_episodes
    assert len(journal.read(tmp_path)) == plan.n_episodes + 2
    assert Outcome.ERROR not in {record.outcome for record in second}
    assert Counter(record.attempt for record in second) == {1: plan.n_episodes - 2, 2: 2}


def test_an_error_that_stays_is_tried_once_a_run(tmp_path: Path, suite: ToySuite) -> None:
    suite.raises_at = {(0, 1)}
    plan = resolve(suite=suite.name, methods=("full",))
    attempts = [max(record.attempt for record in run(plan, tmp_path)) for _ in range(3)]
    assert attempts == [1, 2, 3]


def test_three_errors_in_a_row_stop_the_run(tmp_path: Path, suite: ToySuite) -> None:
    suite.raises_at = {(2, index) for index in range(5)}
    with pytest.raises(RunAbortedError, match=r"^stopped: 3 episodes in a row .* told to break at \(2, 1\)$"):
        run(resolve(suite=suite.name), tmp_path)
    outcomes = [record.outcome for record in journal.read(tmp_path)]
    assert [outcome is Outcome.ERROR for outcome in outcomes] == [False] * 8 + [True] * 3
    suite.raises_at = set()
    assert len(run(resolve(suite=suite.name), tmp_path)) == 16


def test_two_errors_in_a_row_do_not_stop_the_run(tmp_path: Path, suite: ToySuite) -> None:
    suite.raises_at = {(0, 0), (0, 2), (2, 0), (2, 2)}
    records = run(resolve(suite=suite.name), tmp_path)
    assert Counter(record.outcome for record in records)[Outcome.ERROR] == 8


def test_an_interrupt_leaves_a_readable_journal_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter(range(20))

    def act_and_stop(policy: ToyPolicy, obs: dict, act=ToyPolicy.act):
        if next(answers, None) is None:
            raise KeyboardInterrupt
        return act(policy, obs)

    monkeypatch.setattr(ToyPolicy, "act", act_and_stop)
    with pytest.raises(KeyboardInterrupt):
        run(resolve(), tmp_path)
    stopped_at = len(journal.read(tmp_path))
    assert 0 < stopped_at < 16
    monkeypatch.undo()
    assert len(run(resolve(), tmp_path)) == len(journal.read(tmp_path)) == 16


def test_the_environment_is_closed_whatever_happens(
    tmp_path: Path, suite: ToySuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    make = ToySuite.make
    monkeypatch.setattr(ToySuite, "make", lambda *given: made.append(make(*given)) or made[-1])
    suite.raises_at = {(0, index) for index in range(5)}
    with pytest.raises(RunAbortedError):
        run(resolve(suite=suite.name), tmp_path)
    assert [env.n_closed for env in made] == [1]


def test_a_run_that_is_killed_five_times_ends_complete_without_a_duplicate(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / journal.NAME
    for _ in range(5):
        before = path.stat().st_size if path.exists() else 0
        process = child(tmp_path)
        deadline = time.monotonic() + 60
        while not (path.exists() and path.stat().st_size > before) and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(rng.uniform(0, 0.1))
        process.kill()
        assert process.wait() == -9
    assert 5 <= len(journal.read(tmp_path)) < 20
    assert child(tmp_path).wait(60) == 0
    records = journal.read(tmp_path)
    assert Counter(record.key for record in records) == {record.key: 1 for record in records}
    assert len(records) == 20


def test_a_simulator_that_kills_its_process_loses_only_its_own_episode(tmp_path: Path) -> None:
    assert child(tmp_path, "2,3").wait(60) == -9
    assert len(journal.read(tmp_path)) == 13
    assert child(tmp_path).wait(60) == 0
    assert len({record.key for record in journal.read(tmp_path)}) == len(journal.read(tmp_path)) == 20


def test_other_physics_may_not_go_on_with_a_run(tmp_path: Path, suite: ToySuite) -> None:
    run(resolve(suite=suite.name, episodes=1), tmp_path)
    suite.physics = "v2"
    before = (tmp_path / journal.NAME).read_bytes()
    with pytest.raises(ResumeError, match="environment physics: 'v1' against 'v2'"):
        run(resolve(suite=suite.name), tmp_path)
    assert (tmp_path / journal.NAME).read_bytes() == before


def test_another_policy_may_not_go_on_with_a_run(tmp_path: Path) -> None:
    run(resolve(episodes=1), tmp_path)
    with pytest.raises(ResumeError, match="policy: 'toy-2' against 'toy-3'"):
        run(resolve(policy="toy:3"), tmp_path)


def test_more_episodes_of_the_same_plan_may_be_added(tmp_path: Path) -> None:
    few = run(resolve(episodes=2), tmp_path)
    many = run(resolve(episodes=4), tmp_path)
    assert many[: len(few)] == few
    assert len(many) == 16


def test_a_policy_of_other_actions_plays_nothing(tmp_path: Path) -> None:
    vla_bench.register("policy", "toy-far", lambda: ToyPolicy(action_spec=ActionSpec(size=2, translation_m=1.0)))
    with pytest.raises(ActionSpecMismatchError):
        run(resolve(policy="toy-far"), tmp_path)
    assert journal.read(tmp_path) == []


def test_a_privileged_policy_is_given_the_environment_once(tmp_path: Path) -> None:
    attached = []

    class Privileged(ToyPolicy):
        def attach(self, env):
            attached.append(env)

    vla_bench.register("policy", "toy-privileged", Privileged)
    run(resolve(policy="toy-privileged"), tmp_path)
    assert [type(env).__name__ for env in attached] == ["ToyEnv"]


def test_provenance_says_what_made_the_numbers(tmp_path: Path) -> None:
    run(resolve(), tmp_path)
    found = json.loads((tmp_path / provenance.NAME).read_text())
    assert found["plan"] == json.loads(json.dumps(resolve().to_dict()))
    assert found["conditions"]["policy"] == registry.policy("toy").fingerprint
    assert found["conditions"]["environment physics"] == TOY.physics
    assert {"started", "commit", "packages", "machine"} <= set(found["sessions"][0])


@pytest.mark.parametrize("variable", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_threads_that_share_a_processor_have_no_latency(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    n = len(os.sched_getaffinity(0))
    monkeypatch.setenv(variable, str(n + 1))
    message = rf"^{variable} is '{n + 1}'; expected at most {n}, the processors .* for a timed plan.*--no-timed"
    with pytest.raises(OptionError, match=message):
        run(resolve(), tmp_path)
    assert not journal.read(tmp_path)
    assert not any(record.timed for record in run(resolve(timed=False), tmp_path))
    monkeypatch.setenv(variable, str(n))
    assert all(record.timed for record in run(resolve(), tmp_path / "timed"))


def test_a_directory_of_another_suite_is_refused(tmp_path: Path, suite: ToySuite) -> None:
    plan = RunPlan(suite.name, "toy:1", ("full",), episodes=1).resolve()
    run(plan, tmp_path)
    with pytest.raises(ResumeError, match="seed: '0' against '1'"):
        run(RunPlan(suite.name, "toy:1", ("full",), episodes=1, seed=1).resolve(), tmp_path)
