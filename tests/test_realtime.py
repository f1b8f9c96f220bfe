"""Latency in the loop, on a clock that does not depend on the computer."""

import json
import time
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy import HORIZON, PROTOCOL, TOY, ToyEnv, ToyPolicy

import vla_bench
from vla_bench import RunPlan, cli, figures, journal, tables
from vla_bench.contestant import Answer, Contestant
from vla_bench.errors import OptionError, ResumeError
from vla_bench.parallel.crew import CrewOptions
from vla_bench.policy import ActionChunk
from vla_bench.realtime.budget import delay_df
from vla_bench.realtime.clock import VirtualClock
from vla_bench.realtime.latency import Constant, DeviceProfile, LatencyError, Measured, Trace, latency
from vla_bench.realtime.waiting import Realtime, Waiting
from vla_bench.rollout import run_episode
from vla_bench.runner import run
from vla_bench.types import ActionSpec, Cell

PERIOD_MS = 50.0
SPEC = ActionSpec(size=7)
FAR = TOY.tasks()[0]
PLAN = RunPlan(suite="toy@1", policy="toy:2", methods=("full",), episodes=5, realtime="80")


def answer(n: int = 4, first: float = 1.0, policy_ms: float = 7.0, flops: int | None = None) -> Answer:
    """Four actions that are told apart by their first entry; the gripper closes."""
    actions = np.zeros((n, 7))
    actions[:, 0] = first + np.arange(n)
    actions[:, 6] = 1
    return Answer(ActionChunk(actions, flops=flops), 0.0, policy_ms, policy_ms, is_warmup=False)


def applied(waiting: str, ms: float, n_answers: int = 3) -> list[list[float]]:
    """The first entries of what is applied after each answer: waiting first; 0 is a hold."""
    loop = Realtime(Constant(ms), waiting).loop("full", SPEC, PERIOD_MS, seed=0)
    return [
        [action[0] for action, _ in loop.actions(answer(first=10.0 * turn + 1))] for turn in range(1, n_answers + 1)
    ]


@given(st.lists(st.floats(0, 500), max_size=60), st.floats(1, 200))
@settings(max_examples=200, deadline=None)
def test_time_is_paid_in_whole_steps_and_none_is_lost(times: list[float], period_ms: float) -> None:
    clock = VirtualClock(period_ms)
    passed = sum(clock.steps(ms) for ms in times)
    assert 0 <= clock.owed_ms < period_ms + 1e-6
    assert passed * period_ms + clock.owed_ms == pytest.approx(sum(times), abs=1e-3)


def test_49_of_50_ms_are_not_nothing() -> None:
    clock = VirtualClock(50.0)
    passed = [clock.steps(49.0) for _ in range(50)]
    assert passed[0] == 0
    assert sum(passed) == 49


def test_what_the_arm_does_meanwhile() -> None:
    assert applied("hold", 0) == [[11, 12, 13, 14], [21, 22, 23, 24], [31, 32, 33, 34]]
    assert applied("hold", 100) == [[0, 0, 11, 12, 13, 14], [0, 0, 21, 22, 23, 24], [0, 0, 31, 32, 33, 34]]
    assert applied("repeat", 100) == [[0, 0, 11, 12, 13, 14], [14, 14, 21, 22, 23, 24], [24, 24, 31, 32, 33, 34]]
    assert applied("continue", 100) == [[0, 0, 11, 12], [13, 14, 21, 22], [23, 24, 31, 32]]
    assert applied("overlap", 50) == [[0, 12, 13], [14, 22, 23], [24, 32, 33]]
    assert applied("overlap", 200) == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]  # all is over before it comes
    assert applied("overlap", 0) == applied("continue", 0) == applied("hold", 0)


def test_a_held_arm_keeps_its_gripper_and_a_repeated_action_is_the_last() -> None:
    standing = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0]
    settled = replace(PROTOCOL, settle_action=tuple(standing))
    for waiting, moves in (("hold", 0.0), ("repeat", 4.0)):
        loop = Realtime(Constant(60), waiting).loop("full", SPEC, PERIOD_MS, seed=0)
        loop.begin(settled)
        first = [action for action, _ in loop.actions(answer())]
        assert first[0].tolist() == standing
        second = [(action, is_answer) for action, is_answer in loop.actions(answer())]
        assert second[0][0].tolist() == [moves, 0, 0, 0, 0, 0, 1]
        assert [is_answer for _, is_answer in second] == [False, True, True, True, True]


@pytest.mark.parametrize("waiting", get_args(Waiting))
@pytest.mark.parametrize("source", ["constant", "trace", "device"])
def test_a_slow_and_a_fast_computer_find_the_same_trajectory(
    source: str, waiting: Waiting, sources: dict[str, str], tmp_path: Path
) -> None:
    """And a plan without latency finds another one."""
    realtime = sources[source]
    seen = {}
    for name, delay_s, spec in (("fast", 0.0, realtime), ("slow", 0.004, realtime), ("none", 0.0, "")):
        plan = replace(PLAN, policy=f"toy-counting:4,delay_s={delay_s}", realtime=spec, waiting=waiting, tasks=(0,))
        records = run(plan.resolve(), tmp_path / name)
        seen[name] = {record.key: record.actions_sha256 for record in records}
        taken_ms = [query.policy_ms for record in records for query in record.queries]
        assert min(taken_ms) >= 1e3 * delay_s
    assert seen["fast"] == seen["slow"]
    assert all(seen["fast"][key] != seen["none"][key] for key in seen["fast"])


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What `--realtime` takes: every way of saying how long answers take that does not ask this computer."""
    folder = tmp_path_factory.mktemp("sources")
    profile, recorded = folder / "device.toml", folder / "recorded"
    profile.write_text('device = "slow"\nfixed_ms = 30.0\ngflop_per_s = 1\nsource = "made up"\n')
    run(replace(PLAN, policy="toy:1,delay_s=0.06", realtime="", tasks=(0,)).resolve(), recorded)
    return {"constant": "80", "device": str(profile), "trace": str(recorded)}


class CountingToy(ToyPolicy):
    """A toy that says how many operations an answer takes: more where the goal is far."""

    def act(self, obs) -> ActionChunk:
        chunk = super().act(obs)
        distance_m = float(np.linalg.norm(obs["proprio"][:2] - obs["proprio"][2:]))
        return replace(chunk, flops=int(1e8 * distance_m))


vla_bench.register("policy", "toy-counting", CountingToy)


@dataclass
class Walker:
    """A policy that walks along one axis, and remembers where it was asked."""

    asked_at: list[float] = field(default_factory=list)
    name = "walker"
    cameras = ()
    action_spec = TOY.tasks()[0].action_spec
    fingerprint = "walker"

    def reset(self, task, seed: int) -> None:
        self.asked_at = []

    def act(self, obs) -> ActionChunk:
        self.asked_at.append(float(obs["proprio"][0]))
        return ActionChunk(np.tile([[0.2, 0.0]], (4, 1)))

    def synchronize(self) -> None:
        pass


@pytest.mark.parametrize(
    ("waiting", "expected"),
    [  # of 12 steps: where each answer's question was asked, in steps walked, and how far it went
        ("hold", ([0, 4], 8)),
        ("repeat", ([0, 4], 10)),  # nothing to repeat at first; afterwards the arm never stands
        ("continue", ([0, 2, 6], 10)),  # asked two steps before the chunk ends, which are walked meanwhile
        ("overlap", ([0, 0, 2, 4, 6, 8], 10)),
    ],
)
def test_an_asynchronous_policy_is_asked_before_its_chunk_ends_and_the_arm_moves_on(
    waiting: Waiting, expected: tuple[list[int], int]
) -> None:
    """The answer is to what was seen when it was asked; the arm has walked on by the time it comes."""
    env, walker = ToyEnv(), Walker()
    realtime = Realtime(Constant(2 * PERIOD_MS), waiting)
    contestant = Contestant("full", walker, division="exact")
    record = run_episode(env, contestant, FAR, Cell(0, 0, 0), env.protocol, realtime=realtime)
    step_m = 0.2 * FAR.action_spec.translation_m
    walked = [round((place - walker.asked_at[0]) / step_m) for place in walker.asked_at]
    assert record.n_steps == HORIZON
    assert (walked, round(record.path_m / step_m)) == expected
    assert record.division == ("async" if waiting in ("continue", "overlap") else "exact")


def test_steps_that_pass_count_towards_the_horizon_and_are_recorded(tmp_path: Path) -> None:
    task, cell = TOY.tasks()[0], Cell(0, 0, 0)
    contestant = Contestant("full", ToyPolicy(n_actions=1))
    env = ToyEnv()
    record = run_episode(env, contestant, task, cell, env.protocol, realtime=Realtime(Constant(100.0)))
    assert record.n_steps <= HORIZON
    assert {query.n_waited for query in record.queries[:-1]} == {2}
    assert {query.charged_ms for query in record.queries} == {100.0}
    steps = [query.step for query in record.queries]
    assert steps == [3 * index for index in range(len(steps))]
    at_once = run_episode(env, contestant, task, cell, env.protocol)
    assert at_once.n_steps < record.n_steps
    assert {(query.n_waited, query.charged_ms) for query in at_once.queries} == {(0, 0.0)}


def test_a_trace_draws_the_times_of_a_recorded_run_by_method_and_seed(tmp_path: Path) -> None:
    recorded = tmp_path / "recorded"
    run(
        replace(PLAN, policy="toy:1,delay_s=0.002", methods=("full", "action-reuse:2"), realtime="").resolve(), recorded
    )
    trace = latency(str(recorded))
    assert isinstance(trace, Trace)
    known = {
        query.policy_ms
        for record in journal.read(recorded)
        for query in record.queries
        if not query.is_warmup and record.method == "full"
    }
    draws = [[trace.ms(answer(), "full", False, np.random.default_rng(seed)) for _ in range(4)] for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert set(np.ravel(draws)) <= known
    with pytest.raises(LatencyError, match=r"no times of 'random:0\.6'; expected one of"):
        trace.ms(answer(), "random:0.6", False, np.random.default_rng(0))
    plan = replace(PLAN, realtime=str(recorded)).resolve()
    assert plan.to_dict()["realtime"] == trace.fingerprint
    run(plan, tmp_path / "played")
    charged = {query.charged_ms for record in journal.read(tmp_path / "played") for query in record.queries}
    assert charged <= {query.policy_ms for record in journal.read(recorded) for query in record.queries}


def test_a_device_takes_a_fixed_time_and_a_time_for_operations(tmp_path: Path) -> None:
    path = tmp_path / "jetson.toml"
    path.write_text('device = "small"\nfixed_ms = 5.0\ngflop_per_s = 200\nsource = "measured here"\n')
    profile = latency(str(path))
    assert isinstance(profile, DeviceProfile)
    assert profile.ms(answer(flops=10**9), "full", False, np.random.default_rng(0)) == pytest.approx(10.0)
    with pytest.raises(LatencyError, match="does not count its operations"):
        profile.ms(answer(), "full", False, np.random.default_rng(0))
    for damage, found in (
        ("device = 1\nfixed", "Expected '='"), ('device = "x"', "missing"),
        ('device = "x"\nfixed_ms = -1\ngflop_per_s = 1\nsource = ""', r"are \[-1, 1\]"),
    ):  # fmt: skip
        path.write_text(damage)
        with pytest.raises(LatencyError, match=found):
            latency(str(path))


def test_measured_time_is_this_computers() -> None:
    assert isinstance(latency("measured"), Measured)
    assert Measured().ms(answer(policy_ms=12.5), "full", True, np.random.default_rng(0)) == 12.5


def test_time_that_is_measured_beside_other_work_moves_no_arm() -> None:
    assert replace(PLAN, realtime="measured").resolve().realtime == Realtime(Measured())
    with pytest.raises(OptionError, match="--realtime is 'measured'; expected milliseconds, a timed run or a device's"):
        replace(PLAN, realtime="measured", timed=False).resolve()


@pytest.mark.parametrize("spec", ["soon", "-3", "nan", "inf"])
def test_what_is_no_latency_is_refused(spec: str) -> None:
    with pytest.raises(OptionError, match="--realtime"):
        latency(spec)
    with pytest.raises(OptionError, match="--waiting"):
        replace(PLAN, waiting="sleep").resolve()


def test_latency_in_the_loop_is_a_condition_of_a_run(tmp_path: Path, capsys) -> None:
    words = ["run", "--suite", "toy@1", "--policy", "toy:2", "--episodes", "2", "--results", str(tmp_path)]
    assert cli.main([*words, "--realtime", "80", "--waiting", "overlap"]) == 0
    (directory,) = (path for path in tmp_path.iterdir() if path.is_dir())
    found = json.loads((directory / "provenance.json").read_text())["conditions"]
    assert (found["realtime"], found["waiting"]) == ("80 ms", "overlap")
    with pytest.raises(ResumeError, match="realtime: '80 ms' against '90 ms'"):
        run(replace(PLAN, episodes=2, realtime="90").resolve(), directory)


def test_workers_keep_the_same_clock(tmp_path: Path) -> None:
    plan = replace(PLAN, timed=False)
    alone, together = run(plan.resolve(), tmp_path / "1"), run(plan.resolve(), tmp_path / "2", crew=CrewOptions(2))
    assert {record.key: record.actions_sha256 for record in alone} == {
        record.key: record.actions_sha256 for record in together
    }


def test_answers_at_once_cost_no_time() -> None:
    began = time.perf_counter()
    loop = Realtime(Constant(0.0)).loop("full", SPEC, PERIOD_MS, 0)
    for _ in range(1000):
        list(loop.actions(answer(1)))
    assert time.perf_counter() - began < 1.0


@pytest.fixture(scope="module")
def delays(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of the toy without delay and with three."""
    results = tmp_path_factory.mktemp("delays")
    for realtime in ("", "2", "100", "400"):
        plan = replace(PLAN, realtime=realtime, episodes=20, policy="toy:1").resolve()
        run(plan, results / plan.id)
    return results


def test_what_may_be_spent_is_the_greatest_delay_that_costs_nothing(delays: Path, tmp_path: Path, capsys) -> None:
    frame = delay_df(tables.read(delays), margin=0.2)
    assert frame["delay_ms"].tolist() == [2.0, 100.0, 400.0]
    assert frame["success"].is_monotonic_decreasing
    assert frame["pairs"].tolist() == [60] * 3
    for _, row in frame.iterrows():
        assert row["success"] == pytest.approx(row["success_at_once"] + row["difference"])
        assert row["difference_low"] <= row["difference"] <= row["difference_high"]
    until = list(takewhile(lambda row: row[1], zip(frame["delay_ms"], frame["non_inferior"], strict=True)))
    assert not frame["non_inferior"].all()
    assert until, "the shortest delay costs nothing here, so that there is something to spend"
    assert (frame["may_spend_ms"] == until[-1][0]).all()
    assert cli.main(["delay", str(delays), "--margin", "20", "--out", str(tmp_path / "delay.csv")]) == 0
    assert "may spend [ms]" in capsys.readouterr().out
    assert len(pd.read_csv(tmp_path / "delay.csv")) == 3


def test_runs_on_different_clocks_are_never_mixed(delays: Path) -> None:
    """What was played with 400 ms is another policy to every table."""
    summary = tables.summarise(tables.read(delays))
    assert sorted(summary["policy"]) == ["toy", "toy @ 100 ms, hold", "toy @ 2 ms, hold", "toy @ 400 ms, hold"]
    assert (summary["episodes"] == 60).all()


def test_a_figure_shows_success_against_delay(delays: Path, tmp_path: Path) -> None:
    words = ["figure", str(delays), "--kind", "delay", "--policy", "toy", "--margin", "20", "--out"]
    assert cli.main([*words, str(tmp_path / "delay.png")]) == 0
    assert (tmp_path / "delay.png").stat().st_size > 5000
    assert cli.main(["figure", str(delays), "--kind", "delay", "--margin", "120"]) == 2


def test_the_figure_has_a_line_a_way_of_waiting_that_begins_at_no_delay() -> None:
    row = {"suite": "toy@1", "policy": "toy", "method": "full", "success_low": 0.1, "success_high": 1.0}
    delays = pd.DataFrame(
        [
            {**row, "waiting": way, "delay_ms": ms, "pairs": pairs, "success_at_once": before, "success": after,
             "may_spend_ms": spend}
            for way, ms, pairs, before, after, spend in (
                ("hold", 200.0, 20, 1.0, 1.0, 200.0), ("hold", 400.0, 40, 0.975, 0.6, 200.0),
                ("overlap", 200.0, 20, 1.0, 0.5, np.nan),
            )
        ]
    )  # fmt: skip
    with figures.paper_figure() as ax:
        figures.success_against_delay(ax, delays)
        drawn = {line.get_label(): line.get_xydata().tolist() for line in ax.lines if line.get_label()[0] != "_"}
        marks = [
            line.get_xdata()[0] for line in ax.lines if len(set(line.get_xdata())) == 1 and len(line.get_xdata()) > 1
        ]
    assert drawn == {"hold": [[0, 97.5], [200, 100], [400, 60]], "overlap": [[0, 100], [200, 50]]}
    assert marks == [200.0]


def test_results_without_a_delay_or_without_its_absence_are_refused(delays: Path, tmp_path: Path, capsys) -> None:
    none = [path for path in delays.iterdir() if path.is_dir() and not _realtime(path)]
    some = [path for path in delays.iterdir() if path.is_dir() and _realtime(path)]
    assert cli.main(["delay", *map(str, none)]) == 2
    assert "no run with latency in the loop" in capsys.readouterr().err
    assert cli.main(["delay", *map(str, some)]) == 2
    assert "no run without a delay on the same starts" in capsys.readouterr().err


def _realtime(path: Path) -> str:
    return json.loads((path / "provenance.json").read_text())["conditions"].get("realtime", "")
