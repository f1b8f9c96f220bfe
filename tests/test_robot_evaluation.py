"""An evaluation on a robot, from its plan to its report: blind, sealed, resumable, and in the tables of every run."""

import hashlib
import json
import shutil
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vla_bench import cli, journal, registry
from vla_bench.errors import OptionError, RunAbortedError, UnknownNameError, VlaBenchError
from vla_bench.policy import ActionChunk
from vla_bench.types import ActionSpec, Observation, Task
from vla_bench_envs.robot import supervisor
from vla_bench_envs.robot.evaluation import commands, errors, running
from vla_bench_envs.robot.evaluation.agreement import agreement
from vla_bench_envs.robot.evaluation.desk import Press
from vla_bench_envs.robot.evaluation.drift import Turn, drift
from vla_bench_envs.robot.evaluation.film import read_jpegs
from vla_bench_envs.robot.evaluation.folder import Folder
from vla_bench_envs.robot.evaluation.operators import Simulator
from vla_bench_envs.robot.evaluation.plan import EvaluationPlan
from vla_bench_envs.robot.evaluation.progress import progress
from vla_bench_envs.robot.evaluation.records import Label
from vla_bench_envs.robot.evaluation.running import Ledger
from vla_bench_envs.robot.evaluation.scene import reset_score
from vla_bench_envs.robot.evaluation.seal import Seal
from vla_bench_envs.robot.evaluation.sitting import Sitting, play_alone
from vla_bench_envs.robot.faults import Fault
from vla_bench_envs.robot.reasons import Cause
from vla_bench_envs.robot.suites import RobotSuite

METHODS = ("full", "action-reuse:2")
NONCE = "0123456789abcdef0123456789abcdef"
PLAN = EvaluationPlan(
    suite="tabletop-sim@1",
    protocol="tabletop-small",
    policy="tabletop-expert",
    methods=METHODS,
    reference="full",
    tasks=(0,),
    starts=2,
    repetitions=1,
    margin=0.1,
    seed=0,
    rubric="The bottle lies.",
    exclusion="The robot was stopped.",
    seal_sha256=Seal.of(METHODS, NONCE).sha256,
)


class Still:
    """A policy that moves nothing."""

    name = fingerprint = "still"
    action_spec = ActionSpec()
    cameras = ()

    def reset(self, task: Task, seed: int) -> None:
        pass

    def act(self, obs: Observation) -> ActionChunk:
        return ActionChunk(np.zeros((1, 7)))

    def synchronize(self) -> None:
        pass


@pytest.fixture(autouse=True)
def evaluation_commands(monkeypatch) -> None:
    """Put the commands on the command line, as the package's entry points do, and no others."""
    added = {f"robot.{name.__name__.lower()}": name for name in (commands.Plan, commands.Run, commands.Report)}
    monkeypatch.setattr(registry, "commands", lambda: added)


def made(path: Path, plan: EvaluationPlan = PLAN) -> Folder:
    folder = Folder(path)
    folder.create(plan, Seal.of(plan.methods, NONCE))
    return folder


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """Return an evaluation that the scripted expert has played on the simulated arm."""
    folder = made(tmp_path_factory.mktemp("evaluation") / "pilot")
    assert play_alone(Sitting(folder, PLAN, folder.seal(PLAN), None)) == 4
    return folder


@pytest.fixture
def copied(played: Folder, tmp_path: Path) -> Folder:
    """Return a copy of it, to spoil."""
    return Folder(shutil.copytree(played.path, tmp_path / "copy"))


# ---------------------------------------------------------------------------------------------------- plan and seal


def test_every_block_is_one_start_that_every_method_plays_once() -> None:
    trials = replace(PLAN, tasks=(2, 0), starts=5, repetitions=2).trials()
    assert [trial.number for trial in trials] == list(range(1, 41))
    assert [trial.cell.task for trial in trials] == [2] * 20 + [0] * 20
    for block in range(20):
        own = [trial for trial in trials if trial.block == block]
        assert len({trial.cell for trial in own}) == 1
        assert sorted(trial.alias for trial in own) == ["sealed-1", "sealed-2"]
        assert [trial.number for trial in own] == [2 * block + 1, 2 * block + 2]
    assert len({trial.cell for trial in trials}) == 20
    assert len({trial.id for trial in trials}) == 40


def test_the_order_is_drawn_from_the_seed_and_both_methods_lead_about_equally_often() -> None:
    plan = replace(PLAN, tasks=(0, 1, 2), starts=25, repetitions=4)
    first = [trial.alias for trial in plan.trials() if trial.number % 2]
    assert 0.4 < np.mean([name == "sealed-1" for name in first]) < 0.6
    assert plan.trials() == plan.trials()
    assert [trial.cell for trial in plan.trials()] != [trial.cell for trial in replace(plan, seed=1).trials()]


def test_the_nonce_decides_who_is_who_and_the_hash_does_not_tell() -> None:
    seals = [Seal.of(METHODS, f"{nonce:032x}") for nonce in range(40)]
    assert {tuple(seal.methods.values()) for seal in seals} == {METHODS, METHODS[::-1]}
    assert len({seal.sha256 for seal in seals}) == 40


def test_a_plans_hash_changes_with_every_field() -> None:
    changes = [
        {"policy": "expert"}, {"methods": ("full", "action-reuse:3")}, {"tasks": (1,)}, {"starts": 3}, {"margin": 0.05},
        {"repetitions": 2}, {"seed": 1}, {"rubric": ""}, {"exclusion": ""}, {"seal_sha256": "0"},
        {"milestones": ("lifted",)}, {"failures": ("dropped",)},
    ]  # fmt: skip
    assert len({PLAN.sha256, *(replace(PLAN, **change).sha256 for change in changes)}) == 13


def test_a_plan_of_the_first_version_keeps_its_hash_and_is_read(tmp_path) -> None:
    stated = {name: value for name, value in asdict(PLAN).items() if name not in ("milestones", "failures", "robot")}
    assert PLAN.sha256 == hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()
    folder = made(tmp_path / "pilot")
    (folder.path / "plan.json").write_text(json.dumps({"sha256": PLAN.sha256, "plan": stated}))
    assert folder.plan() == PLAN
    detailed = replace(PLAN, milestones=("grasped", "lifted"), failures=("dropped",))
    assert made(tmp_path / "other", detailed).plan() == detailed


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"methods": ("full",)}, OptionError, r"^--methods is \('full',\); expected the reference and at least one"),
        ({"reference": "vla-cache"}, OptionError, r"^--reference is 'vla-cache'; expected one of the methods: full, "),
        ({"starts": 26}, OptionError, r"^--starts is 26; expected 1 to 25, the starts of these tasks"),
        ({"starts": 0}, OptionError, r"^--episodes is 0; expected at least 1"),
        ({"milestones": ("up", "up")}, OptionError, r"^--milestones is \('up', 'up'\); expected at most 9 different"),
        ({"failures": tuple("abcefghij")}, OptionError, r"^--failures is .* at most 8 different ones of 1 to 40 char"),
        ({"failures": ("",)}, OptionError, r"^--failures is \('',\); expected at most 8 different ones of 1 to 40"),
        ({"policy": "tabletop"}, UnknownNameError, r"^no policy named 'tabletop'\. Did you mean 'tabletop-expert'"),
    ],
)
def test_a_plan_that_cannot_be_played_is_refused(change: dict, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        replace(PLAN, **change).resolve()


def test_a_seal_is_its_owners_alone_and_a_plan_is_made_once(tmp_path) -> None:
    folder = made(tmp_path / "one")
    assert (folder.path / "seal.json").stat().st_mode & 0o077 == 0
    assert folder.plan() == PLAN
    with pytest.raises(errors.PlanFolderError, match="holds a plan already"):
        made(tmp_path / "one")


# -------------------------------------------------------------------------------------------------------- the whole


@pytest.mark.sim
def test_the_expert_and_one_method_go_through_plan_run_and_report(tmp_path, capsys) -> None:
    out = str(tmp_path / "pilot")
    words = ["--policy", "tabletop-expert", "--protocol", "tabletop-small", "--tasks", "0", "--starts", "1"]
    assert cli.main(["robot", "plan", "--out", out, *words, "--methods", *METHODS]) == 0
    assert "2 trials in" in capsys.readouterr().out
    assert cli.main(["robot", "report", out]) == 2
    assert "2 of 2 trials are not labelled" in capsys.readouterr().err
    assert cli.main(["robot", "run", out, "--auto"]) == 0
    assert "2 of 2 trials are labelled" in capsys.readouterr().out
    assert cli.main(["robot", "report", out]) == 0
    said = capsys.readouterr().out
    assert said.startswith("# Evaluation of tabletop-expert on tabletop-sim@1")
    assert "both match" in said
    assert cli.main(["table", f"{out}/unsealed"]) == 0
    assert "action-reuse:2" in capsys.readouterr().out
    assert cli.main(["compare", f"{out}/unsealed"]) == 12  # one pair decides nothing
    assert cli.main(["figure", f"{out}/unsealed", "--kind", "tasks", "--out", f"{out}/tasks.png"]) == 0


@pytest.mark.sim
def test_nothing_but_the_seal_names_a_method_before_the_report(played: Folder) -> None:
    plan, seal = (played.path / name for name in ("plan.json", "seal.json"))
    written = [path for path in played.path.rglob("*") if path.is_file() and path not in (plan, seal)]
    written = [path for path in written if "unsealed" not in path.parts and not path.name.startswith("report")]
    assert len(written) > 8
    for path in written:
        for name in (b"action-reuse", b'"full"', b"lossy"):
            assert name not in path.read_bytes(), path
    assert {record.method for record in journal.read(played.blind)} == {"sealed-1", "sealed-2"}


@pytest.mark.sim
def test_a_trial_leaves_an_episode_a_film_a_label_and_what_the_robot_did(played: Folder) -> None:
    episodes, trials = journal.read(played.blind), played.read_trials(PLAN)
    labels = played.read_labels(PLAN, "simulator")
    assert len(episodes) == len(trials) == len(labels) == 4
    for episode, trial in zip(episodes, trials, strict=True):
        assert (episode.method, episode.cell) == (trial.alias, trial.cell)
        assert len(trial.sensor_to_action_ms) == episode.n_steps == sum(trial.verdicts.values())
        assert len(read_jpegs(played.films / trial.film)) == episode.n_steps + 1
        assert labels[trial.trial].success == (episode.outcome == "success")
        assert trial.counters.get("to_FAULT") is None
    scores = [trial.reset_score for trial in trials]
    assert scores.count(None) == 2  # the first trial of each start makes the reference
    assert [score for score in scores if score is not None] == [1.0, 1.0]


@pytest.mark.sim
def test_a_run_goes_on_where_it_was_left(copied: Folder, monkeypatch) -> None:
    path = copied.blind / journal.NAME
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]) + b'{"cut')
    played_now = []
    run_episode = running.run_episode
    monkeypatch.setattr(running, "run_episode", lambda *a, **k: played_now.append(1) or run_episode(*a, **k))
    assert play_alone(Sitting(copied, PLAN, copied.seal(PLAN), None)) == 4
    assert len(played_now) == 1
    assert len(journal.read(copied.blind)) == 4


@pytest.mark.sim
def test_an_error_is_repeated_at_once_and_three_in_a_row_stop_the_run(tmp_path, monkeypatch) -> None:
    folder = made(tmp_path / "pilot")
    told: list[str] = []
    monkeypatch.setattr(Simulator, "told", lambda self, trial, error: told.append(error))

    def break_down(self, picture):
        raise RuntimeError("the gripper fell off")

    monkeypatch.setattr(Simulator, "watch", break_down)
    with pytest.raises(RunAbortedError, match=r"3 episodes in a row .* the gripper fell off"):
        play_alone(Sitting(folder, PLAN, folder.seal(PLAN), None))
    assert len(told) == 2
    first = PLAN.trials()[0].id
    attempts = folder.read_trials(PLAN)
    assert [(one.trial, one.attempt) for one in attempts] == [(first, 1), (first, 2), (first, 3)]
    assert all(one.error == "RuntimeError: the gripper fell off" for one in attempts)
    with Ledger(folder, PLAN, "simulator") as ledger:
        assert (ledger.attempts[first], ledger.done) == (3, {})


@pytest.mark.sim
def test_a_method_that_drives_the_arm_into_a_fault_has_failed_and_the_evaluation_goes_on(
    tmp_path, monkeypatch, capsys
) -> None:
    registry.register("policy", "still", Still)
    plan = replace(PLAN, policy="still")
    folder, ticks = made(tmp_path / "pilot", plan), Counter()

    def faulty(state, set_point_rad, limits, now_ns):
        ticks["all"] += 1
        return Fault(Cause.TORQUE_LIMIT, "joint 3 at 90 Nm") if ticks["all"] % 100 == 0 else None

    monkeypatch.setattr(supervisor, "fault", faulty)
    monkeypatch.setattr(RobotSuite, "fingerprint", lambda self, protocol: {})  # its steps are no trial's
    assert play_alone(Sitting(folder, plan, folder.seal(plan), None)) == 4
    assert [record.outcome for record in journal.read(folder.blind)] == ["timeout"] * 4
    assert [trial.failed for trial in folder.read_trials(plan)] == ["torque_limit"] * 4
    assert {label.note for label in folder.read_labels(plan, "simulator").values()} == {"torque_limit"}
    assert cli.main(["robot", "report", str(folder.path)]) == 0
    assert "| ended by one" in capsys.readouterr().out
    found = pd.read_csv(folder.path / "report.csv")
    assert found["success"].tolist() == [0.0, 0.0]
    assert found["ended_by_fault"].tolist() == found["faults"].tolist() == [2, 2]


@pytest.mark.sim
def test_milestones_need_a_person(tmp_path) -> None:
    plan = replace(PLAN, milestones=("grasped",))
    folder = made(tmp_path / "pilot", plan)
    with pytest.raises(errors.OperatorNeededError, match="cannot tell the milestones of this plan by itself"):
        play_alone(Sitting(folder, plan, folder.seal(plan), None))


# ----------------------------------------------------------------------------------------------------------- report


def test_a_success_has_reached_every_milestone_and_only_a_failure_has_a_code() -> None:
    plan = replace(PLAN, milestones=("grasped", "lifted"), failures=("dropped",))
    failed = Label.of("T1", Press("failure", "slipped", ("grasped",), "dropped"), "operator", plan, False)
    assert (failed.success, failed.milestones, failed.failure) == (False, ("grasped",), "dropped")
    done = Label.of("T2", Press("success", "", ("grasped",), "dropped"), "operator", plan, True)
    assert (done.success, done.milestones, done.failure, done.corrected) == (True, ("grasped", "lifted"), "", True)
    assert Label.from_dict(json.loads(json.dumps(failed.to_dict()))) == failed
    first_version = {name: value for name, value in failed.to_dict().items() if name not in ("milestones", "failure")}
    assert Label.from_dict(first_version).milestones == ()


def test_milestones_are_counted_over_trials_and_failure_codes_over_failures() -> None:
    plan = replace(PLAN, starts=4, milestones=("grasped", "lifted"), failures=("dropped", "missed"))
    seal = Seal.of(METHODS, NONCE)
    own = [trial for trial in plan.trials() if seal.methods[trial.alias] == "full"]
    verdicts = [
        ("success", (), ""),
        ("failure", ("grasped",), "dropped"),
        ("failure", (), "missed"),
        ("failure", (), ""),
    ]
    labels = {
        trial.id: Label.of(trial.id, Press(word, "", reached, code), "operator", plan, False)
        for trial, (word, reached, code) in zip(own, verdicts, strict=True)
    }
    counted = [SimpleNamespace(key=(trial.alias, trial.cell)) for trial in own]
    found = progress(plan, seal, counted, labels)
    assert found[["method", "kind", "name", "n", "of"]].to_numpy().tolist() == [
        ["full", "milestone", "grasped", 2, 4],
        ["full", "milestone", "lifted", 1, 4],
        ["full", "failure", "dropped", 1, 3],
        ["full", "failure", "missed", 1, 3],
        ["full", "failure", "no code", 1, 3],
    ]
    assert found.loc[0, ["share", "share_low", "share_high"]].tolist() == pytest.approx([0.5, 0.068, 0.932], abs=1e-3)


def turns(rate_by_number, n: int, seed: int) -> list[Turn]:
    rng = np.random.default_rng(seed)
    return [Turn(k, (k // (n // 2), "full"), bool(rng.random() < rate_by_number(k / n))) for k in range(n)]


def test_a_drift_is_found_and_its_size_and_where_there_is_none_few_are() -> None:
    found = drift(turns(lambda part: 0.9 - 0.8 * part, 400, 0))
    assert found.per_100_trials == pytest.approx(-0.2, abs=0.06)
    assert found.p < 1e-3
    assert [of for _, of in found.quarters] == [100] * 4
    assert found.quarters[0][0] > found.quarters[3][0] + 30
    none = [drift(turns(lambda part: 0.6, 40, seed)).p for seed in range(400)]
    assert 0.02 <= np.mean(np.array(none) < 0.05) <= 0.08


def test_tasks_of_unequal_difficulty_played_one_after_the_other_are_no_drift() -> None:
    found = drift([Turn(k, (k // 20, "full"), k % 10 != 0 if k < 20 else k % 10 == 0) for k in range(40)])
    assert found.p > 0.5
    assert [n for n, _ in found.quarters] == [9, 9, 1, 1]


def test_where_nothing_varies_there_is_no_trend() -> None:
    found = drift([Turn(k, (0, "full"), True) for k in range(3)])
    assert found.quarters == ((1, 1), (1, 1), (1, 1), (0, 0))
    assert np.isnan(found.p)
    assert np.isnan(found.per_100_trials)
    with pytest.raises(ValueError, match="no trials"):
        drift([])


@pytest.mark.sim
def test_the_report_says_what_every_comparison_says_and_what_the_robot_did(copied: Folder, capsys) -> None:
    assert cli.main(["robot", "report", str(copied.path), "--plan-sha256", PLAN.sha256[:8]]) == 0
    found = pd.read_csv(copied.path / "report.csv").set_index("method")
    assert found.index.tolist() == list(METHODS)
    assert found["success"].tolist() == [1.0, 1.0]
    assert found["success_exact_low"].tolist() == pytest.approx([0.158, 0.158], abs=1e-3)  # two of two
    assert found["success_exact_high"].tolist() == [1.0, 1.0]
    assert found.loc["action-reuse:2", "p_exact"] == 1.0
    assert found.loc["action-reuse:2", ["pairs", "gained", "lost"]].tolist() == [2, 0, 0]
    assert found.loc["action-reuse:2", "success_shows"] == "open"  # two pairs show nothing
    assert found["sensor_to_action_ms_p50"].tolist() == [10.0, 10.0]  # the next tick of the virtual clock
    assert found["sensor_to_action_ms_p95"].notna().tolist() == (found["fresh_actions"] >= 60).tolist()
    assert found["sensor_to_action_ms_p99"].isna().all()  # too few
    assert found["control_steps"].gt(30).all()
    assert found[["starved_ms", "faults", "uncounted_attempts", "rejected"]].to_numpy().sum() == 0
    assert found["division"].tolist() == ["exact", "lossy"]


@pytest.mark.sim
def test_a_corrected_label_changes_the_outcome_and_is_counted(copied: Folder, capsys) -> None:
    trial = next(one for one in PLAN.trials() if Seal.of(METHODS, NONCE).methods[one.alias] == "full")
    with Ledger(copied, PLAN, "simulator") as ledger:
        ledger.correct(trial.id, Press("failure", "it stood up again"))
    assert copied.read_labels(PLAN, "simulator")[trial.id].note == "it stood up again"
    assert cli.main(["robot", "report", str(copied.path)]) == 0
    assert "1 labels were taken back" in capsys.readouterr().out
    assert pd.read_csv(copied.path / "report.csv").set_index("method").loc["full", "success"] == 0.5


def spoil_plan(folder: Folder) -> None:
    path = folder.path / "plan.json"
    path.write_text(path.read_text().replace("0.1", "0.2"))


def spoil_whole_plan(folder: Folder) -> None:
    plan = replace(PLAN, margin=0.2)
    found = json.loads((folder.path / "plan.json").read_text())
    found = {"sha256": plan.sha256, "plan": found["plan"] | {"margin": 0.2}}
    (folder.path / "plan.json").write_text(json.dumps(found))


def spoil_seal(folder: Folder) -> None:
    one, other = Seal.of(METHODS, NONCE).methods.values()
    swapped = {"nonce": NONCE, "methods": {"sealed-1": other, "sealed-2": one}}
    (folder.path / "seal.json").write_text(json.dumps(swapped))


@pytest.mark.sim
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_plan, "plan.json is of the plan "),
        (spoil_whole_plan, "trials is of the plan "),
        (spoil_seal, "the plan commits to "),
        (lambda folder: (folder.path / "seal.json").unlink(), "holds no readable seal.json"),
        (lambda folder: (folder.path / "plan.json").write_text("{"), "holds a damaged plan.json"),
    ],
)
def test_a_report_refuses_a_plan_or_a_seal_that_was_changed(copied: Folder, spoil, message: str, capsys) -> None:
    spoil(copied)
    assert cli.main(["robot", "report", str(copied.path)]) == 2
    assert message in capsys.readouterr().err
    assert not copied.unsealed.exists()


@pytest.mark.sim
def test_a_plan_is_not_changed_between_trials(copied: Folder, capsys) -> None:
    spoil_whole_plan(copied)
    assert cli.main(["robot", "run", str(copied.path), "--auto"]) == 2
    assert f"blind is of the plan {PLAN.sha256[:12]}, expected " in capsys.readouterr().err


@pytest.mark.sim
def test_a_report_refuses_another_plan_than_the_registered_one_and_missing_trials(copied: Folder, capsys) -> None:
    assert cli.main(["robot", "report", str(copied.path), "--plan-sha256", "abc"]) == 2
    assert "expected abc" in capsys.readouterr().err
    path = copied.blind / journal.NAME
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    assert cli.main(["robot", "report", str(copied.path)]) == 2
    assert "1 of 4 trials are not labelled" in capsys.readouterr().err
    assert cli.main(["robot", "report", str(copied.path), "--partial"]) == 0
    assert "Partial: 1 trials given up" in capsys.readouterr().out


# --------------------------------------------------------------------------------------------------------- measures


def test_the_reset_score_falls_with_every_centimetre_and_is_one_for_the_same_picture() -> None:
    picture = np.random.default_rng(0).integers(90, 110, (224, 224, 3)).astype(np.uint8)
    picture = np.kron(picture[::16, ::16], np.ones((16, 16, 1))).astype(np.uint8)
    scores = []
    for shift in (0, 2, 4, 8, 16):
        moved = picture.copy()
        moved[100:120, 100 + shift : 120 + shift] = (200, 20, 20)
        if shift == 0:
            reference = moved
        scores.append(reset_score(reference, moved))
    assert scores[0] == 1.0
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] < 0.5
    with pytest.raises(ValueError, match="pictures of"):
        reset_score(picture, picture[:100])


def test_kappa_is_cohens() -> None:
    one = [True] * 25 + [False] * 25
    other = [True] * 20 + [False] * 5 + [True] * 10 + [False] * 15
    found = agreement(one, other)
    assert found.agreed.value == 0.7
    assert found.kappa is not None
    assert found.kappa.value == pytest.approx(0.4)
    assert found.kappa.low == pytest.approx(0.12, abs=0.02)
    assert found.kappa.high == pytest.approx(0.63, abs=0.02)


def test_kappa_of_raters_who_always_agree_is_one_and_its_interval_is_not_empty() -> None:
    limits = []
    for n in (10, 40, 160):
        kappa = agreement([True, False] * n, [True, False] * n).kappa
        assert kappa is not None
        assert kappa.value == kappa.high == 1.0
        limits.append(kappa.low)
    assert 0.6 < limits[0] < limits[1] < limits[2] < 1.0
    assert agreement([True] * 9, [True] * 9).kappa is None
    with pytest.raises(ValueError, match="2 and 1 labels"):
        agreement([True, False], [True])


@settings(deadline=None)  # a busy machine says nothing about an interval
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_an_interval_of_kappa_contains_it_and_stays_within_its_range(pairs: list[tuple[bool, bool]]) -> None:
    found = agreement(*zip(*pairs, strict=True))
    if found.kappa is not None:
        assert -1.0 <= found.kappa.low <= found.kappa.value <= found.kappa.high <= 1.0


# --------------------------------------------------------------------------------------------------------- messages

MESSAGES: list[tuple[VlaBenchError, str]] = [
    (
        errors.PlanFolderError("pilot", "holds a plan already"),
        "pilot holds a plan already: 'vla-bench robot plan --out FOLDER' makes a plan in a folder of its own",
    ),
    (
        errors.PlanChangedError("pilot/plan.json", "a" * 64, "b" * 64),
        "pilot/plan.json is of the plan aaaaaaaaaaaa, expected bbbbbbbbbbbb: a plan is not changed once it is made; "
        "restore plan.json, or make another plan in another folder",
    ),
    (
        errors.SealBrokenError("pilot/seal.json", "a" * 64, "b" * 64),
        "pilot/seal.json has the hash aaaaaaaaaaaa, the plan commits to bbbbbbbbbbbb: which method is which cannot be "
        "known; restore the file that 'vla-bench robot plan' wrote",
    ),
    (
        errors.UnfinishedError(3, 10),
        "3 of 10 trials are not labelled, and who knows the methods cannot label any more: finish with 'vla-bench "
        "robot run', or give the rest up with --partial",
    ),
    (
        errors.OperatorNeededError("franky", "tell success"),
        "the robot 'franky' cannot tell success by itself: run without --auto, and open the page that is printed",
    ),
    (
        errors.DryRunError("ws://127.0.0.1:8765"),
        "the robot server at ws://127.0.0.1:8765 is in a dry run, in which nothing moves: start it with 'vla-bench "
        "robot serve --live'",
    ),
    (
        errors.RaterError("operator", "labelled while the trials were played"),
        "the rater 'operator' labelled while the trials were played: give another name with --rater, such as second",
    ),
]


@pytest.mark.parametrize(("error", "message"), MESSAGES, ids=lambda value: type(value).__name__)
def test_a_message_says_what_was_found_what_was_expected_and_what_to_do(error: VlaBenchError, message: str) -> None:
    assert str(error) == message
