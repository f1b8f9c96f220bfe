"""Before a run: what it could show, and how long it would take."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from toy import PROTOCOL, ToyEnv, ToyPolicy, ToySuite

import vla_bench
from vla_bench import RunPlan, cli, runner, tables
from vla_bench.compare import forecast, probe
from vla_bench.compare.forecast import Supposition, duration, most_discordant, resolution, resolution_text
from vla_bench.compare.power import mid_p_power, non_inferiority_power
from vla_bench.compare.probe import Pace, Probe, ProbeError, from_results, try_methods
from vla_bench.errors import NoResultsError, OptionError, UnknownNameError

WORDS = ("plan", "--suite", "toy@1", "--policy", "toy:1", "--method", "full", "--method", "action-reuse:2")
PLAN = RunPlan("toy@1", "toy:1", ("full", "action-reuse:2"), episodes=5)


def test_a_plan_says_what_it_could_show_and_how_long_it_would_take(capsys) -> None:
    assert cli.main([*WORDS, "--episodes", "5"]) == 0
    said = capsys.readouterr().out
    assert "toy@1 under toy-" in said
    assert "3 tasks x 5 episodes = 15 starts, 2 methods, 30 episodes" in said
    assert "What 15 pairs can show" in said
    assert "Non-inferiority at 2 points is out of reach: it takes 133 pairs even if method and full never" in said
    assert re.search(r"How long it takes here: 0 s likely, 0 s at most, in one process", said)
    assert re.search(r"full .* tried now: \d+ control steps, \d+ queries", said)


def test_planning_plays_no_episode_to_its_end_and_writes_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(list(WORDS)) == 0
    assert list(tmp_path.iterdir()) == []


def test_earlier_results_of_this_machine_replace_the_trial(tmp_path: Path, capsys, monkeypatch) -> None:
    plan = PLAN.resolve()
    runner.run(plan, tmp_path / plan.id)
    monkeypatch.setattr(forecast, "try_methods", None)  # would raise
    assert cli.main([*WORDS, "--results", str(tmp_path), "--episodes", "50"]) == 0
    said = capsys.readouterr().out
    assert said.count("15 earlier episodes") == 2
    assert "Earlier episodes: s/episode is their mean wall time" in said
    assert re.search(r"seen: action-reuse:2, \d+ of 15 pairs", said)


def test_earlier_results_of_another_machine_give_rates_and_no_times(tmp_path: Path, capsys) -> None:
    plan = PLAN.resolve()
    runner.run(plan, tmp_path / "run")
    results = tables.load(tmp_path / "run")
    assert set(from_results(plan, results)) == {"full", "action-reuse:2"}
    results.runs["processor"] = "another"
    assert from_results(plan, results) == {}
    tables.export(results, tmp_path / "released")
    assert cli.main([*WORDS, "--results", str(tmp_path / "released")]) == 0
    said = capsys.readouterr().out
    assert said.count("tried now: ") == 2
    assert "seen: action-reuse:2" in said


def test_a_method_that_earlier_results_lack_is_tried(tmp_path: Path, capsys) -> None:
    plan = replace(PLAN, methods=("full",)).resolve()
    runner.run(plan, tmp_path / plan.id)
    assert cli.main([*WORDS, "--results", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert (said.count("earlier episodes"), said.count("tried now: ")) == (1, 1)
    assert "seen: action-reuse:2" not in said


def test_results_of_something_else_are_refused(tmp_path: Path) -> None:
    plan = replace(PLAN, policy="toy:3").resolve()
    runner.run(plan, tmp_path / plan.id)
    with pytest.raises(
        NoResultsError, match=r"holds no episode of toy@1, policy 'toy:1', toy-[0-9a-f]{16}: make results"
    ):
        forecast.Plan(PLAN, tmp_path).run()


def test_a_trial_times_steps_and_queries() -> None:
    plan = replace(PLAN, policy="toy:2,delay_s=0.05").resolve()
    found = try_methods(plan, plan.methods)
    full, reuse = found.paces["full"], found.paces["action-reuse:2"]
    assert full.query_ms >= 50
    assert full.step_ms >= 25  # two actions a query
    assert 12.5 <= reuse.step_ms < full.step_ms  # four
    assert full.start_s >= 0
    assert found.change_s >= 0
    assert full.lasts_s(100) == pytest.approx(full.start_s + 0.1 * full.step_ms)


@pytest.mark.parametrize("budget_s", [0.0, 0.1])
def test_a_slow_policy_is_tried_no_longer_than_the_budget(budget_s: float, monkeypatch) -> None:
    monkeypatch.setattr(probe, "BUDGET_S", budget_s)
    plan = replace(PLAN, policy="toy:1,delay_s=0.05", methods=("full",)).resolve()
    source = try_methods(plan, plan.methods).paces["full"].source
    n_queries = int(re.findall(r"(\d+) queries", source)[0])
    assert n_queries == 1 if budget_s == 0 else n_queries <= 2


def test_the_environment_is_closed_and_a_method_that_raises_is_named(monkeypatch) -> None:
    made = []

    class Raises(ToySuite):
        def make(self, protocol=PROTOCOL, images="lazy") -> ToyEnv:
            made.append(super().make(protocol, images))
            return made[-1]

    own = Raises("toy-raising@1", raises_at={(0, 0)})
    vla_bench.register("suite", own.name, own)
    plan = replace(PLAN, suite=own.name).resolve()
    with pytest.raises(ProbeError) as caught:
        try_methods(plan, plan.methods)
    assert str(caught.value) == (
        "trying 'full' for a few control steps ended in an error (RuntimeError: the toy was told to break at (0, 0)): "
        "'vla-bench check' says whether environment, policy and method keep their contracts"
    )
    assert made[0].n_closed == 1


@dataclass
class Privileged(ToyPolicy):
    """A policy that must be given the environment before it is reset."""

    env: object = None

    def attach(self, env) -> None:
        self.env = env

    def reset(self, task, seed) -> None:
        assert self.env is not None
        super().reset(task, seed)


def test_a_privileged_policy_is_given_the_environment() -> None:
    vla_bench.register("policy", "toy-privileged", Privileged)
    plan = replace(PLAN, policy="toy-privileged").resolve()
    assert set(try_methods(plan, plan.methods).paces) == set(plan.methods)


def test_the_estimate_is_made_of_its_parts() -> None:
    plan = replace(PLAN, methods=("full",), episodes=100).resolve()
    pace = Pace("tried now", start_s=2.0, query_ms=30.0, step_ms=500.0)
    said = forecast.duration_text(plan, {"full": pace}, Probe(load_s=60.0, change_s=30.0, paces={}))
    likely_s, most_s = 300 * (2 + 6 * 0.5), 300 * (2 + 12 * 0.5)  # a horizon of 12 control steps
    once_s = 60 + 4 * 30  # three tasks and the fingerprint
    assert f"{duration(likely_s + once_s)} likely, {duration(most_s + once_s)} at most" in said
    assert "28 min likely, 43 min at most" in said
    seen = replace(pace, source="9 earlier episodes", start_s=0.0, episode_s=4.0)
    said = forecast.duration_text(plan, {"full": seen}, Probe(0.0, 0.0, {}))
    assert "20 min likely, 30 min at most" in said


@pytest.mark.parametrize(
    ("seconds", "said"), [(8.4, "8 s"), (89, "89 s"), (100, "2 min"), (7140, "119 min"), (9000, "2 h 30 min")]
)
def test_durations_are_read_by_people(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_what_pairs_resolve_is_what_power_says() -> None:
    row = resolution(500, 0.02, [Supposition(0.95, 0.06)]).iloc[0]
    assert mid_p_power(500, -row["drop"], max(row["drop"], 0.06)) == pytest.approx(0.8, abs=1e-6)
    assert row["non_inferior"] == non_inferiority_power(500, 0.0, 0.06, 0.02)
    assert row["needed"] > 500
    assert np.isnan(resolution(500, 0.02, [Supposition(0.0, 0.06)]).iloc[0]["drop"])  # nothing to lose
    assert "none" in resolution_text(4, 0.02, [])


def test_non_inferiority_is_in_reach_below_a_share_of_disagreement() -> None:
    share = most_discordant(500, 0.02)
    assert share is not None
    assert (
        non_inferiority_power(500, 0.0, 0.99 * share, 0.02) > 0.8 > non_inferiority_power(500, 0.0, 1.01 * share, 0.02)
    )
    assert most_discordant(132, 0.02) is None
    assert most_discordant(132, 0.05) is not None
    assert "Non-inferiority at 2 points can be shown (80 %) if" in resolution_text(500, 0.02, [])


def test_mistakes_in_a_plan_are_refused_like_those_of_a_run() -> None:
    with pytest.raises(OptionError, match="--margin is 0; expected percentage points"):
        forecast.Plan(PLAN, margin=0).run()
    with pytest.raises(UnknownNameError, match="Did you mean 'full'"):
        forecast.Plan(replace(PLAN, methods=("ful",))).run()
