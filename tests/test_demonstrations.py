"""Demonstrations: what is written is what is read, whatever is killed in between, and none starts where we evaluate."""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("libero.libero")

from vla_bench import registry, video
from vla_bench.demonstrations import layout, statistics
from vla_bench.demonstrations.dataset import Dataset, NoDatasetError
from vla_bench.demonstrations.writer import DatasetWriteError, DatasetWriter, OtherConditionsError
from vla_bench.errors import OptionError, RunLockedError
from vla_bench_envs.demonstrations import collect
from vla_bench_envs.demonstrations.attempts import MAX_FAILURES_IN_A_ROW, Shelf
from vla_bench_envs.demonstrations.collect import Collect, Collected
from vla_bench_envs.demonstrations.crew import CollectorError
from vla_bench_envs.demonstrations.pushes import Pushes
from vla_bench_envs.demonstrations.recording import Recording, record
from vla_bench_envs.demonstrations.source import NotDemonstratedError, Stand, UnfitPicturesError, preset_of, source_of
from vla_bench_envs.libero.demonstrations.initial_states import MIN_DISTANCE_M, InitialStates, NoRoomError
from vla_bench_envs.libero.environment import LiberoEnv
from vla_bench_envs.libero.experts.policy import ExpertPolicy
from vla_bench_envs.libero.suites import find_suite

SIZE = 128
CAMERAS = ("agentview", "robot0_eye_in_hand")
SUITE = find_suite("libero-object@1")
SOURCE = source_of(SUITE)
PLAN = {"suite": SUITE.name, "protocol": "reference-fast", "tasks": (0, 1), "episodes": 2}
BUTTER = 6
"""Of libero-object: a task of some 130 steps."""

PIXEL_ERROR = 4.0
"""Mean error of a channel in grey levels of 255; in such colourful pictures 2.1 of it is the conversion to yuv420p."""


def drawing(n: int, seed: int) -> np.ndarray:
    """Return smooth frames (n, size, size, 3) that move, as a camera's are: noise is not what H.264 is for."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    phase, pace = rng.uniform(0, 6, 3), rng.uniform(1, 4, 3)
    frames = [[np.sin(pace[c] * (x + y) * 3 + phase[c] + t / 9) for c in range(3)] for t in range(n)]
    return (127 + 100 * np.moveaxis(np.array(frames), 1, -1)).round().astype(np.uint8)


def recording(seed: int, problem: str | None = None, n: int = 7) -> Recording:
    rng = np.random.default_rng(seed)
    return Recording(
        images={camera: drawing(n, seed + index) for index, camera in enumerate(CAMERAS)},
        states=rng.normal(size=(n, 8)).astype(np.float32),
        actions=rng.uniform(-1, 1, (n, 7)).astype(np.float32),
        problem=problem,
        success_step=n - 2,
        init_state_sha256=f"{seed:064x}",
    )


def fill(directory: Path) -> None:
    """Put what two tasks have tried on their shelves, the second task first, as parallel processes may."""
    for task in (1, 0):
        shelf = Shelf(directory, task)
        for attempt, problem in enumerate((None, "the predicate never held", None)):
            shelf.add(recording(10 * task + attempt, problem, n=5 + attempt), fps=20)


def content(directory: Path) -> dict[str, bytes]:
    """Return the dataset's files, without who made them when."""
    paths = [path for part in ("meta", "data", "videos") for path in (directory / part).rglob("*") if path.is_file()]
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


class KilledAfter:
    """Renames files that many times, then dies and leaves the partial file where it is."""

    def __init__(self, n: int) -> None:
        self._left, self._rename = n, os.replace

    def __call__(self, source: Path, target: Path) -> None:
        if not self._left:
            raise KeyboardInterrupt
        self._left -= 1
        self._rename(source, target)


def test_video_returns_each_frame_nearly(tmp_path: Path) -> None:
    frames = drawing(25, seed=0)
    video.encode(tmp_path / "v.mp4", frames, fps=20)
    found = video.decode(tmp_path / "v.mp4")
    assert found.shape == frames.shape
    error = np.abs(found.astype(int) - frames)
    assert error.mean() < PIXEL_ERROR
    assert error.max() < 40
    np.testing.assert_array_equal(video.decode(tmp_path / "v.mp4", 0.25, 0.5), found[5:10])


def test_without_pyav_opencv_returns_the_same_frames_with_nearly_the_same_colours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video.encode(tmp_path / "v.mp4", drawing(25, seed=0), fps=20)
    wanted = [video.decode(tmp_path / "v.mp4", *part) for part in ((), (0.25, 0.5))]
    monkeypatch.setitem(sys.modules, "av", None)
    found = [video.decode(tmp_path / "v.mp4", *part) for part in ((), (0.25, 0.5))]
    assert [len(part) for part in found] == [25, 5]
    for one, other in zip(found, wanted, strict=True):
        assert np.abs(one.astype(int) - other).mean() < 2.0
    assert np.array_equal(found[1], found[0][5:10])


def test_same_frames_give_the_same_video(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        video.encode(tmp_path / name, drawing(12, seed=3), fps=20)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_odd_pictures_are_refused(tmp_path: Path) -> None:
    message = "image_size is (4, 5); expected even numbers of pixels, which H.264 with yuv420p needs"
    with pytest.raises(OptionError, match=f"^{re.escape(message)}$"):
        video.encode(tmp_path / "v.mp4", np.zeros((2, 4, 5, 3), np.uint8), fps=20)


def test_pooled_statistics_are_those_of_all_values() -> None:
    values = np.random.default_rng(0).normal(size=(60, 4))
    parts = [statistics.of_values(part) for part in np.split(values, [7, 30])]
    expected = statistics.of_values(values)
    found = statistics.pooled(parts)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-12)


def test_statistics_of_frames_are_those_of_their_colours() -> None:
    frames = drawing(6, seed=1)
    expected = statistics.of_values(frames.reshape(-1, 3) / 255)
    found = statistics.of_frames(frames)
    assert found["count"] == [6]
    for key in ("min", "max", "mean", "std"):
        np.testing.assert_allclose(np.ravel(found[key]), expected[key], rtol=1e-9)


def test_dataset_returns_what_was_demonstrated(tmp_path: Path) -> None:
    fill(tmp_path)
    summary = Collect(out=tmp_path, **PLAN).collect()
    data = Dataset(tmp_path)
    assert [(row.kept, row.tried, row.mean_steps) for row in summary] == [(2, 3, 6.0)] * 2
    assert [(row["vla_bench/task"], row["vla_bench/attempt"]) for row in data.episodes] == [
        (0, 0),
        (0, 2),
        (1, 0),
        (1, 2),
    ]
    for index, (task, attempt) in enumerate([(0, 0), (0, 2), (1, 0), (1, 2)]):
        expected, found = recording(10 * task + attempt, n=5 + attempt), data.load(index)
        assert found.sentence == SUITE.task(task).instruction
        np.testing.assert_array_equal(found.actions, expected.actions)
        np.testing.assert_array_equal(found.states, expected.states)
        np.testing.assert_allclose(found.timestamps_s, np.arange(5 + attempt) / 20, rtol=1e-6)
        for camera in CAMERAS:
            assert found.images[camera].dtype == np.uint8
            assert np.abs(found.images[camera].astype(int) - expected.images[camera]).mean() < PIXEL_ERROR
    assert data.load(0, cameras=()).images == {}


def test_dataset_has_the_layout_of_lerobot(tmp_path: Path) -> None:
    """The names that lerobot 0.4.4 reads; that it does read such a dataset was tried by hand."""
    fill(tmp_path)
    Collect(out=tmp_path, **PLAN).collect()
    info = json.loads((tmp_path / "meta/info.json").read_text())
    assert (info["codebase_version"], info["fps"], info["splits"]) == ("v3.0", 20, {"train": "0:4"})
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (4, 24, 10)
    assert info["features"]["observation.images.agentview"]["shape"] == [SIZE, SIZE, 3]
    rows = Dataset(tmp_path).episodes
    assert [(row["dataset_from_index"], row["dataset_to_index"]) for row in rows] == [
        (0, 5),
        (5, 12),
        (12, 17),
        (17, 24),
    ]
    assert all((tmp_path / path).exists() for row in rows for path in layout.files(row))
    found = json.loads((tmp_path / "meta/stats.json").read_text())
    assert found.keys() == info["features"].keys()
    assert found["action"]["count"] == [24]
    assert np.shape(found["observation.images.agentview"]["mean"]) == (3, 1, 1)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which all attempts are on their shelves, and no dataset is begun."""
    directory = tmp_path_factory.mktemp("filled")
    fill(directory)
    return directory


@pytest.fixture(scope="module")
def whole(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a dataset whose writer was never killed."""
    directory = tmp_path_factory.mktemp("whole")
    shutil.copytree(filled, directory, dirs_exist_ok=True)
    Collect(out=directory, **PLAN).collect()
    return content(directory)


@pytest.mark.parametrize("renames", range(27))
def test_killed_writer_leaves_a_dataset_that_goes_on_to_the_same_end(
    renames: int, filled: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dataset of four episodes is put in place by 27 renames; the writer is killed before each."""
    shutil.copytree(filled, tmp_path, dirs_exist_ok=True)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", KilledAfter(renames))
        with pytest.raises(KeyboardInterrupt):
            Collect(out=tmp_path, **PLAN).collect()
    if (tmp_path / layout.EPISODES).exists():
        data = Dataset(tmp_path)
        assert [len(data.load(index).actions) for index in range(len(data))] == [5, 7, 5, 7][: len(data)]
    Collect(out=tmp_path, **PLAN).collect()
    assert content(tmp_path) == whole


def test_collecting_again_changes_nothing(tmp_path: Path) -> None:
    fill(tmp_path)
    assert Collect(out=tmp_path, **PLAN).run() == 0
    before = content(tmp_path)
    Collect(out=tmp_path, **PLAN).collect()
    assert content(tmp_path) == before
    assert not list((tmp_path / "attempts").rglob("*.mp4")), "what is in the dataset leaves the shelf"


def test_shelf_waits_for_the_process_that_fills_it(tmp_path: Path) -> None:
    first, second = Shelf(tmp_path, 0), Shelf(tmp_path, 0)

    def attempts_seen() -> int:
        with second.alone():
            return len(second.attempts)

    with ThreadPoolExecutor(1) as pool:
        with first.alone():
            late = pool.submit(attempts_seen)
            first.add(recording(0, "the predicate never held"), fps=20)
            assert not late.done()
        assert late.result(timeout=10) == 1


def test_task_whose_attempts_all_fail_is_given_up(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, 0)
    for attempt in range(MAX_FAILURES_IN_A_ROW):
        assert not shelf.done(1)
        shelf.add(recording(attempt, "the predicate never held"), fps=20)
    assert shelf.done(1)
    plan = Collect(out=tmp_path, **(PLAN | {"tasks": (0,)}))
    assert plan.run() == 1
    (row,) = plan.collect()
    assert (row.kept, row.tried) == (0, MAX_FAILURES_IN_A_ROW)
    assert not list((tmp_path / "attempts").rglob("*.mp4")), "a failure is never saved"


def test_dataset_of_other_conditions_is_refused(tmp_path: Path) -> None:
    fill(tmp_path)
    Collect(out=tmp_path, **PLAN).collect()
    message = (
        f"{tmp_path} holds demonstrations made under other conditions: seed: '0' against '1': "
        f"write to another directory with --out, or restore the conditions"
    )
    with pytest.raises(OtherConditionsError, match=f"^{re.escape(message)}$"):
        Collect(out=tmp_path, **PLAN, seed=1).collect()
    form = collect._form(SOURCE, SUITE.protocols()["openvla"])
    with pytest.raises(OtherConditionsError, match=r"agentview differs; .*eye_in_hand differs; tasks differs"):
        DatasetWriter(tmp_path, form, ["another task"])


def test_two_collectors_do_not_share_a_directory(tmp_path: Path) -> None:
    with collect._lock(tmp_path), pytest.raises(RunLockedError, match=r"is being written by another process \(process"):
        Collect(out=tmp_path, **PLAN).collect()


@pytest.mark.parametrize(
    "wrong",
    [{"episodes": 0}, {"workers": 0}, {"seed": -1}, {"tasks": (0, 0)}, {"tasks": (10,)}, {"pushes_hz": 9.0}],
)
def test_option_out_of_range_is_refused(wrong: dict, tmp_path: Path) -> None:
    with pytest.raises(OptionError):
        Collect(out=tmp_path, **(PLAN | wrong)).collect()


def test_messages_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NoDatasetError) as caught:
        Dataset(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path} has no meta/episodes/chunk-000/file-000.parquet, so it is no LeRobot dataset with an episode: "
        f"make demonstrations with 'vla-bench collect --out {tmp_path}'"
    )
    (tmp_path / "file").touch()
    with pytest.raises(DatasetWriteError) as caught:
        Collect(out=tmp_path / "file" / "x", **PLAN).collect()
    assert str(caught.value) == (
        f"cannot write {tmp_path}/file/x/collect.lock (Not a directory): every demonstration before is safe; make room "
        f"or choose another place with --out, then run the same command again to go on"
    )
    assert str(CollectorError("stir", "signal 9 ended its process")) == (
        "collecting 'stir' stopped: signal 9 ended its process; every demonstration before is safe: "
        "mend it, then run the same command again to go on"
    )
    assert str(NoRoomError("stir", 200)) == (
        "'stir': none of 200 draws from its regions is 2 mm away from every official initial state: demonstrations of "
        "it would start where policies are evaluated; leave the task out"
    )


def test_what_no_expert_demonstrates_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotDemonstratedError) as caught:
        Collect(out=tmp_path, suite="tabletop-sim@1").collect()
    found = str(caught.value)
    assert found.startswith("'tabletop-sim@1' has no expert that demonstrates its tasks; expected one of libero-10-")
    assert found.endswith("libero-spatial@1, simpler-widowx@1: choose another --suite")


def test_pictures_that_are_not_square_are_refused() -> None:
    with pytest.raises(UnfitPicturesError) as caught:
        preset_of(registry.suite("simpler-widowx@1"), "simpler")
    assert str(caught.value) == (
        "the protocol 'simpler' draws 640 x 480 px; expected square pictures: choose another --protocol, for example "
        "reference"
    )


def test_table_has_a_line_a_task_and_says_why_attempts_failed() -> None:
    rows = [Collected("stir", 2, 3, 120.5, 2_000_000, ("it fell",)), Collected("pour it", 1, 1, 90.0, 1_000_000, ())]
    assert collect.table(rows).splitlines() == [
        "task     kept  tried  mean steps     MB",
        "stir        2      3       120.5    2.0",
        "pour it     1      1        90.0    1.0",
        "all         3      4                3.0",
        "not kept: stir: it fell",
    ]


def test_pushes_come_at_their_rate_last_a_while_and_leave_the_gripper_alone() -> None:
    wanted = np.array([0.9, 0, 0, 0, 0, 0, -1.0])
    pushes = Pushes(rate_hz=0.5, control_hz=20.0, rng=np.random.default_rng(0), form=SOURCE.push)
    applied = np.array([pushes.disturb(wanted) for _ in range(20_000)])
    assert np.abs(applied).max() == 1.0
    assert (applied[:, 6] == -1.0).all()
    pushed = (applied != wanted).any(axis=1)
    begins = np.count_nonzero(pushed[1:] & ~pushed[:-1])
    assert begins / (np.count_nonzero(~pushed) / 20.0) == pytest.approx(0.5, rel=0.15)
    assert 3 <= np.count_nonzero(pushed) / begins <= 8.5


def test_pushes_at_a_rate_of_zero_change_nothing() -> None:
    pushes = Pushes(0.0, 20.0, np.random.default_rng(0), SOURCE.push)
    wanted = np.linspace(-1, 1, 7)
    assert all(pushes.disturb(wanted) is wanted for _ in range(1000))


@pytest.fixture(scope="module")
def env() -> Iterator[LiberoEnv]:
    """A task in which an object lies in a drawer, and the drawer's cabinet stands somewhere else each time."""
    env = LiberoEnv("libero-spatial@1", "reference-fast", images="lazy", ends_at_success=False)
    env.reset(options={"task": 4, "init_state": 0})
    yield env
    env.close()


@pytest.mark.sim
def test_initial_states_are_none_of_the_official_ones(env: LiberoEnv) -> None:
    states = InitialStates(env.stage, seed=0)
    drawn = np.stack([states.draw(index) for index in range(10)])
    official = states.positions(env.stage.initial_states)
    moved = np.linalg.norm(states.positions(drawn)[:, None] - official, axis=-1).max(axis=-1)
    assert moved.shape == (10, 50)
    assert (moved > MIN_DISTANCE_M).all()
    assert (np.abs(drawn[1:] - drawn[0]).max(axis=1) > MIN_DISTANCE_M).all(), "nor are they one state many times"


@pytest.mark.sim
def test_initial_states_lie_where_the_official_ones_lie(env: LiberoEnv) -> None:
    """Objects in and on the cabinet too, though a soft reset alone would place them 0.9 m above it."""
    states = InitialStates(env.stage, seed=0)
    drawn = states.positions(np.stack([states.draw(index) for index in range(10)]))
    official = states.positions(env.stage.initial_states)
    assert (drawn > official.min(axis=0) - 0.01).all()
    assert (drawn < official.max(axis=0) + 0.01).all()


@pytest.mark.sim
def test_initial_state_depends_on_seed_and_index_only(env: LiberoEnv) -> None:
    one, other = InitialStates(env.stage, seed=0), InitialStates(env.stage, seed=1)
    third = one.draw(3)
    one.draw(0)
    np.testing.assert_array_equal(one.draw(3), third)
    assert np.abs(other.draw(3) - third).max() > 0
    env.reset(options={"init_state": 7})
    np.testing.assert_array_equal(InitialStates(env.stage, seed=0).draw(3), third)


@pytest.mark.sim
def test_drawing_leaves_the_fixtures_alone(env: LiberoEnv) -> None:
    env.reset(options={"init_state": 0})
    before = env.stage.state, env.simulator.sim.model.body_pos.copy(), env.simulator.sim.model.body_quat.copy()
    InitialStates(env.stage, seed=0).draw(0)
    np.testing.assert_array_equal(env.simulator.sim.model.body_pos, before[1])
    np.testing.assert_array_equal(env.simulator.sim.model.body_quat, before[2])
    env.reset(options={"init_state": 0})
    np.testing.assert_array_equal(env.stage.state, before[0])


@pytest.mark.sim
def test_environment_that_ends_at_success_cannot_record(env: LiberoEnv) -> None:
    message = "ends_at_success is True; expected False: a demonstration goes on to release and retreat"
    with pytest.raises(OptionError, match=f"^{re.escape(message)}$"):
        record(Stand(LiberoEnv(), ExpertPolicy(), InitialStates(env.stage, 0)), env.task, np.zeros(3), seed=0)


@pytest.mark.sim
@pytest.mark.filterwarnings("default")  # a process is spawned, which some Python versions warn about under threads
def test_collected_demonstrations_replay_to_success(tmp_path: Path) -> None:
    plan = PLAN | {"tasks": (BUTTER,)}
    (row,) = Collect(out=tmp_path, **plan).collect(show_progress=False)
    data = Dataset(tmp_path)
    assert (row.kept, len(data)) == (2, 2)
    env = LiberoEnv(SUITE.name, "reference-fast", images="lazy", ends_at_success=False)
    try:
        env.reset(options={"task": BUTTER, "init_state": 0})
        state = InitialStates(env.stage, seed=0).draw(data.episodes[0]["vla_bench/attempt"])
        episode = data.load(0)
        obs, info = env.reset(options={"task": BUTTER, "init_state": state})
        assert info["init_state_sha256"] == data.episodes[0]["vla_bench/init_state_sha256"]
        for camera in CAMERAS:
            assert np.abs(episode.images[camera][0].astype(int) - obs[camera]).mean() < PIXEL_ERROR
        for expected, action in zip(episode.states, episode.actions, strict=True):
            np.testing.assert_array_equal(obs["proprio"], expected)
            obs, _, _, _, info = env.step(action)
        assert info["success"]
    finally:
        env.close()


@pytest.mark.sim
def test_a_pushed_expert_still_succeeds_and_answers_to_where_it_was_pushed() -> None:
    env = LiberoEnv(SUITE.name, "reference-fast", images="lazy", ends_at_success=False)
    expert = ExpertPolicy()
    expert.attach(env)
    task = SUITE.task(BUTTER)
    try:
        env.reset(options={"task": BUTTER, "init_state": 0})
        states = InitialStates(env.stage, seed=0)
        state = states.draw(0)
        calm, pushed, again = (
            record(
                Stand(env, expert, states),
                task,
                state,
                0,
                Pushes(rate, task.control_hz, states.generator(0, "pushes"), SOURCE.push),
            )
            for rate in (0.0, 1.0, 1.0)
        )
    finally:
        env.close()
    assert pushed.problem is None
    np.testing.assert_array_equal(pushed.states, again.states)
    np.testing.assert_array_equal(pushed.actions, again.actions)
    n = min(len(calm.states), len(pushed.states))
    apart = np.linalg.norm(calm.states[:n, :3] - pushed.states[:n, :3], axis=1)
    assert apart.max() > 0.01  # metres: it was elsewhere
    assert (np.abs(np.diff(pushed.actions[:, :6], axis=0)) <= 0.25 + 1e-6).all()  # no push is among the answers
