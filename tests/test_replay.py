"""A replay shows every method the same pictures, and says what differs."""

import dataclasses
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from pictures import save_checkpoint
from recordings import CAMERAS, write_dataset

import vla_bench
from vla_bench import cli, journal, video
from vla_bench.demonstrations.dataset import Dataset, NoDatasetError
from vla_bench.errors import OptionError, RunAbortedError, UnknownNameError
from vla_bench.policy import Fate, PolicyWrapper
from vla_bench.replay import masks, recording, tables
from vla_bench.replay.command import Replay
from vla_bench.replay.loop import replay
from vla_bench.replay.plan import ReplayPlan
from vla_bench.replay.record import ReplayRecord
from vla_bench.replay.recording import UnfitRecordingError
from vla_bench.types import ActionSpec, Query

METHODS = ("full", "random:0.5", "action-reuse:2")
SPEC = ActionSpec()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("recorded") / "squares")


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"reference:{save_checkpoint(tmp_path_factory.mktemp('weights') / 'small.safetensors')},execute=2"


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def plan(data: Path, policy: str) -> ReplayPlan:
    return ReplayPlan(data, policy, METHODS).check()


@dataclass(frozen=True)
class Breaks:
    """A method whose policy raises in its second query, or at once."""

    at: int = 1
    name: str = "breaks"

    def apply(self, policy):
        return _Breaking(policy, self.at)


@dataclass
class _Breaking(PolicyWrapper):
    at: int = 1
    asked: int = 0

    def reset(self, task, seed):
        self.asked = 0
        super().reset(task, seed)

    def act(self, obs):
        self.asked += 1
        if self.asked > self.at:
            raise RuntimeError("the gate is stuck")
        return super().act(obs)


def a_query(step: int, n: int, policy_ms: float, **stages_ms: float) -> Query:
    return Query(step, n, n, 0.1, policy_ms, policy_ms + 0.2, 0.0, step == 0, False, stages_ms=stages_ms)


def a_record(method: str, episode: int = 0, shift: float = 0.0, policy_ms: float = 10.0, **stages_ms: float):
    actions = np.zeros((4, 7))
    actions[2:, 0], actions[2:, 4] = shift, shift  # the first chunk is equal
    actions[:, 6] = [-1, -1, -1, 1 if shift else -1]
    queries = (a_query(0, 2, 99.0, **stages_ms), a_query(2, 2, policy_ms, **stages_ms))
    recorded = tuple(map(tuple, np.zeros((4, 7)).tolist()))
    return ReplayRecord("squares", episode, "open", "p", method, tuple(map(tuple, actions.tolist())), recorded, queries)


def test_full_computation_is_at_no_distance_and_every_method_saw_every_step(plan: ReplayPlan, tmp_path: Path) -> None:
    records = replay(plan, tmp_path)
    assert plan.chosen == (18, 19)  # every tenth of each of two sentences
    assert {record.key for record in records} == {(method, index) for method in METHODS for index in plan.chosen}
    lengths = {index: len(recording.read(plan.dataset, index, CAMERAS)) for index in plan.chosen}
    assert all(len(record.actions) == lengths[record.episode] for record in records)
    found = tables.steps(records, SPEC).groupby("method")["distance_mm"].mean()
    assert found["full"] == 0
    assert found["random:0.5"] > 0
    assert found["action-reuse:2"] > 0
    asked = tables.queries(records).groupby(["method", "recording"]).size()
    assert asked["full", 18] == -(-lengths[18] // 2)
    assert asked["action-reuse:2", 18] == -(-lengths[18] // 4)


def test_the_same_plan_gives_the_same_actions(plan: ReplayPlan, tmp_path: Path) -> None:
    one, other = (replay(plan, tmp_path / name) for name in ("one", "other"))
    assert [record.actions for record in one] == [record.actions for record in other]


def test_distances_are_in_units_of_the_action(tmp_path: Path) -> None:
    found = tables.steps([a_record("full"), a_record("cheap", shift=0.5)], SPEC)
    cheap = found[found["method"] == "cheap"]
    assert cheap["distance_mm"].tolist() == pytest.approx([0, 0, 25, 25])  # 0.5 of 0.05 m
    assert cheap["distance_mrad"].tolist() == pytest.approx([0, 0, 250, 250])  # 0.5 of 0.5 rad
    assert cheap["gripper_flip"].tolist() == [False, False, False, True]
    assert cheap["recorded_mm"].tolist() == pytest.approx([0, 0, 25, 25])


def test_the_summary_says_who_is_slower_and_which_stage_made_it_so() -> None:
    records = []
    for episode in range(6):
        records.append(a_record("full", episode, 0.0, 10.0 + 0.01 * episode, gate=0.0, prefill=8.0, decode=2.0))
        records.append(a_record("fast", episode, 0.1, 6.0 + 0.01 * episode, gate=1.0, prefill=3.0, decode=2.0))
        records.append(a_record("slow", episode, 0.2, 15.0 + 0.01 * episode, gate=6.0, prefill=7.0, decode=2.0))
    summary, by_stage = tables.summarise(records, SPEC), tables.stages(records)
    assert summary["method"].tolist() == ["fast", "full", "slow"]
    fast = summary.iloc[0]
    assert fast["speedup"] == pytest.approx(10.025 / 6.025)
    assert fast["speedup_low"] > 1
    assert fast["distance_mm"] == pytest.approx(2.5)  # half of the steps by 5 mm
    assert fast["decoder_ms"] == pytest.approx(5.0)
    assert fast["policy_ms"] == pytest.approx(6.025)  # the first query, of 99 ms, is left out
    assert tables.verdicts(summary, by_stage) == ["faster: prefill -5.00 ms", "", "SLOWER: gate +6.00 ms"]
    even = [
        a_record("even", episode, 0.1, 8.0 if episode % 2 else 13.0, gate=4.5, prefill=5.5, decode=2.0)
        for episode in range(6)
    ]
    summary, by_stage = tables.summarise(records + even, SPEC), tables.stages(records + even)
    said = dict(zip(summary["method"], tables.verdicts(summary, by_stage), strict=True))
    assert said["even"] == "no difference seen: gate +4.50 ms, prefill -2.50 ms"
    text = tables.to_text(summary, by_stage)
    assert "SLOWER: gate +6.00 ms" in text
    assert "no statement about success" in text


def test_a_replay_goes_on_where_it_was_cut_off(plan: ReplayPlan, tmp_path: Path, monkeypatch) -> None:
    whole = replay(plan, tmp_path)
    lines = (tmp_path / journal.NAME).read_bytes().splitlines(keepends=True)
    (tmp_path / journal.NAME).write_bytes(b"".join(lines[:2]) + lines[2][:50])  # killed in mid-write
    shown = []
    original = recording.read
    monkeypatch.setattr(recording, "read", lambda *asked: shown.append(asked[1]) or original(*asked))
    again = replay(plan, tmp_path)
    assert {record.key: record.actions for record in again} == {record.key: record.actions for record in whole}
    assert shown == [18, 19]
    shown.clear()
    assert len(replay(plan, tmp_path)) == len(whole)
    assert shown == []


def test_a_method_that_raises_is_an_error_in_no_figure_and_is_tried_again(
    data: Path, policy: str, tmp_path: Path, capsys
) -> None:
    vla_bench.register("method", "breaks", Breaks)
    command = Replay(ReplayPlan(data, policy, ("full", "breaks")), tmp_path, films=0)
    assert command.run() == 1
    said = capsys.readouterr().out
    assert "error: breaks recording 18: RuntimeError: the gate is stuck" in said
    (directory,) = tmp_path.iterdir()
    summary = pd.read_csv(directory / "summary.csv").set_index("method")
    assert summary["verdict"].isna().all()  # nothing to compare with the reference
    assert summary.loc["breaks", "errors"] == 2
    assert np.isnan(summary.loc["breaks", "distance_mm"])
    assert summary.loc["full", "errors"] == 0
    assert command.run() == 1
    records = journal.read_as(ReplayRecord.from_dict, directory)
    assert [record.method for record in records].count("breaks") == 4
    assert [record.method for record in records].count("full") == 2


def test_a_replay_in_which_nothing_works_stops(data: Path, policy: str, tmp_path: Path) -> None:
    vla_bench.register("method", "breaks-at-once", lambda: Breaks(0, "full"))
    vla_bench.register("method", "full-too", lambda: Breaks(0, "full-too"))
    plan = dataclasses.replace(ReplayPlan(data, policy).check(), methods=("full-too",))
    with pytest.raises(RunAbortedError, match=r"stopped: 1 episodes in a row .* RuntimeError: the gate is stuck"):
        replay(plan, tmp_path)


def test_a_policy_that_sees_more_than_was_recorded_is_refused(policy: str, tmp_path: Path) -> None:
    one = write_dataset(tmp_path / "recorded" / "one-eyed", 2, cameras=("agentview",))
    with pytest.raises(UnfitRecordingError) as caught:
        replay(ReplayPlan(one, policy).check(), tmp_path / "out")
    assert str(caught.value) == (
        f"{one} has the cameras agentview; 'reference-oft:small,execute=2' needs robot0_eye_in_hand too: record under "
        f"a protocol of this policy, such as 'vla-bench collect --protocol reference-fast'"
    )


def test_plans_choose_held_out_recordings_and_refuse_what_does_not_exist(data: Path, policy: str) -> None:
    assert ReplayPlan(data, policy, episodes=1).check().chosen == (18,)
    assert ReplayPlan(data, policy, indices=(3, 1)).check().chosen == (1, 3)
    assert ReplayPlan(data, policy, ("random:0.5",)).check().methods == ("random:0.5", "full")
    with pytest.raises(OptionError, match="--indices is 20; expected indices from 0 to 19"):
        ReplayPlan(data, policy, indices=(20,)).check()
    with pytest.raises(UnknownNameError, match=r"Did you mean 'random'\?"):
        ReplayPlan(data, policy, ("randm",)).check()
    with pytest.raises(NoDatasetError):
        ReplayPlan(data / "nowhere", policy).check()
    with pytest.raises(OptionError, match="--films is -1"):
        Replay(ReplayPlan(data, policy), films=-1).run()


def test_few_recordings_are_all_replayed(policy: str, tmp_path: Path) -> None:
    few = write_dataset(tmp_path / "few" / "squares", 3)
    assert not Dataset(few).held_out.any()
    assert ReplayPlan(few, policy).check().chosen == (0, 1, 2)


def test_patches_are_tinted_by_their_fate() -> None:
    grey = np.full((4, 4, 3), 100, np.uint8)
    fates = np.array([[Fate.COMPUTED, Fate.REUSED], [Fate.DELETED, Fate.REFRESHED]], np.uint8)
    painted = masks.tinted(grey, fates)
    assert painted.shape == (8, 8, 3)
    for fate, (row, column) in {Fate.COMPUTED: (0, 0), Fate.REUSED: (0, 7), Fate.DELETED: (7, 0)}.items():
        colour, share = masks.TINTS.get(fate, (100, 100, 100)), masks.OPACITY.get(fate, 0.0)
        expected = [round(100 + share * (channel - 100)) for channel in colour]
        assert painted[row, column].tolist() == expected


def test_a_film_shows_every_step_of_the_first_recording(data: Path, policy: str, tmp_path: Path, capsys) -> None:
    command = Replay(ReplayPlan(data, policy, ("full", "random:0.5", "action-reuse:2")), tmp_path)
    assert command.run() == 0
    (directory,) = tmp_path.iterdir()
    films = sorted(path.name for path in (directory / "films").iterdir())
    assert films == [
        f"0018_{name}.{end}" for name in ("action-reuse_2", "full", "random_0.5") for end in ("mp4", "png")
    ]
    frames = video.decode(directory / "films" / "0018_random_0.5.mp4")
    assert len(frames) == len(recording.read(Dataset(data), 18, CAMERAS))
    blue = np.array(masks.TINTS[Fate.REUSED])
    tinted = [np.abs(frame[masks.CAPTION_PX :].astype(int) - blue / 2).sum(axis=2).min() for frame in frames]
    assert tinted[0] > 20 > tinted[-1]  # the first query is full, then black ground under half of the tint
    said = capsys.readouterr().out
    assert "0018_random_0.5.mp4" in said
    assert pd.read_parquet(directory / "steps.parquet")["method"].nunique() == 3
    assert (pd.read_parquet(directory / "queries.parquet")["flops"] > 0).all()


def test_a_replay_needs_no_simulator(data: Path, policy: str, tmp_path: Path) -> None:
    code = (
        "import sys; from vla_bench import cli; "
        f"status = cli.main(['replay', '--data', {str(data)!r}, '--policy', {policy!r}, '--out', {str(tmp_path)!r}]); "
        "assert status == 0; assert not {'mujoco', 'robosuite'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_several_methods_are_given_one_by_one_on_the_command_line(data: Path, policy: str, tmp_path: Path) -> None:
    words = [
        "replay",
        "--data",
        str(data),
        "--policy",
        policy,
        "--episodes",
        "1",
        "--films",
        "0",
        "--out",
        str(tmp_path),
    ]
    assert cli.main([*words, "--method", "full", "--method", "fixed-grid:0.5"]) == 0
    (directory,) = tmp_path.iterdir()
    assert pd.read_csv(directory / "summary.csv")["method"].tolist()[::-1] != []
