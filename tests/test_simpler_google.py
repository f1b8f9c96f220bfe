"""SIMPLER's Google robot: its environment on a recorded simpler_env."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from recorded_interpreters import recorded

from vla_bench import Cell, Outcome
from vla_bench.contestant import Contestant
from vla_bench.errors import NotResetError, OptionError, StaleImageError, UnknownNameError
from vla_bench.policy import ActionChunk
from vla_bench.rollout import run_episode
from vla_bench.testing import check_environment
from vla_bench.types import Task
from vla_bench_envs.simpler_google import diagnosis
from vla_bench_envs.simpler_google.environment import SimplerGoogleEnv
from vla_bench_envs.simpler_google.errors import VARIABLE
from vla_bench_envs.simpler_google.protocols import CAMERA, PROTOCOLS
from vla_bench_envs.simpler_google.registration import register_environments
from vla_bench_envs.simpler_google.simulator import Simulator
from vla_bench_envs.simpler_google.suites import SUITES, find_suite

MATCHING, VARIANTS = "simpler-google-matching@1", "simpler-google-variants@1"
STILL = np.zeros(7)
CAN, NEAR, OPEN, CLOSE, APPLE = 0, 3, 4, 7, 10


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("calls") / "calls.jsonl"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory, calls: Path) -> str:
    return recorded(tmp_path_factory.mktemp("interpreter"), RECORDED_CALLS=str(calls))


@pytest.fixture(scope="module")
def env(python: str) -> Iterator[SimplerGoogleEnv]:
    made = SimplerGoogleEnv(MATCHING, images="lazy", python=python)
    yield made
    made.close()


def begin(env: SimplerGoogleEnv, task: int, init_state: int = 0) -> dict[str, Any]:
    return env.reset(options={"task": task, "init_state": init_state})[0]


def test_every_sweep_is_built_and_reset_with_what_the_scripts_pass(python: str, calls: Path) -> None:
    simulator, protocol = Simulator(python), PROTOCOLS["simpler"]
    for book in (book for suite in SUITES.values() for book in suite.playbooks):
        for start in (next(sweep.starts()) for sweep in book.sweeps):
            moment, _ = simulator.reset(start, book.horizon, protocol)
            call = json.loads(calls.read_text().splitlines()[-1])
            overlay = call["build"].pop("rgb_overlay_path")
            call["build"].pop("rgb_overlay_cameras", None)  # env_builder's
            assert (Path(overlay).name if overlay else "") == start.overlay
            assert call["env_id"] == start.env_id
            assert call["build"] == {
                "obs_mode": "rgbd", "robot": "google_robot_static", "sim_freq": 513, "control_freq": 3,
                "control_mode": protocol.control_mode, "max_episode_steps": book.horizon,
                "scene_name": start.scene, "camera_cfgs": {"add_segmentation": True}, **dict(start.options),
            }  # fmt: skip
            half = start.robot_yaw_rad / 2  # (w, x, y, z) of the turn; the half turn about z is (0, 0, 0, 1)
            turn = np.array([-np.sin(half), 0, 0, np.cos(half)], np.float32).tolist()
            assert call["seed"] is None
            assert call["options"] == {
                "robot_init_options": {
                    "init_xy": ["float64", list(start.robot_xy_m)],
                    "init_rot_quat": ["float32", turn],
                },
                "obj_init_options": {"init_xy": ["float64", list(start.object_xy_m)]}
                if start.object_xy_m
                else {"episode_id": start.episode_id},
            }
            assert len(moment.instruction) <= SimplerGoogleEnv.LONGEST
    simulator.close()


@pytest.mark.parametrize(("name", "task"), [(MATCHING, CAN), (MATCHING, NEAR), (VARIANTS, CLOSE), (VARIANTS, APPLE)])
def test_the_environment_keeps_its_contract(python: str, name: str, task: int) -> None:
    short = replace(PROTOCOLS["simpler"], name="short", horizons=((name, 3),))
    env = SimplerGoogleEnv(name, short, python=python)
    check_environment(env, task=task)
    env.close()


def test_gymnasium_makes_both_by_name(python: str) -> None:
    register_environments()
    register_environments()
    for suite in SUITES.values():
        made = gymnasium.make(suite.gym_id, python=python, render_mode="rgb_array")
        _, info = made.reset(seed=0)
        picture: Any = made.render()
        assert (info["suite"], picture.shape) == (suite.name, (512, 640, 3))
        made.close()


def test_the_arm_moves_along_the_axes_of_a_base_that_is_turned(env: SimplerGoogleEnv) -> None:
    before = begin(env, NEAR)["proprio"]  # the base is turned by pi - 0.09
    action = np.array([0.03, -0.02, 0.01, 0.0, 0.0, 0.2, 0.0])
    after = env.step(action)[0]["proprio"]
    np.testing.assert_allclose(after[:6] - before[:6], action[:6], atol=1e-6)


def test_the_gripper_is_told_a_change_of_its_target(env: SimplerGoogleEnv) -> None:
    """+1 closes, 0 lets it go on, -1 opens: a target may take four steps to be reached."""
    begin(env, CAN)
    commands = [1.0, 0.0, 0.0, 0.0, 0.0, -1.0, -1.0, -1.0, -1.0, 0.0]
    fingers = [float(env.step(np.array([0.0] * 6 + [command]))[0]["proprio"][-1]) for command in commands]
    np.testing.assert_allclose(fingers[:5], [1 / 3, 2 / 3, 1.0, 1.31, 1.31], atol=1e-5)
    assert fingers[5:] == sorted(fingers[5:], reverse=True)
    assert fingers[-1] <= 0.0


def test_it_is_judged_at_the_horizon_or_at_once(python: str) -> None:
    close, lift = np.array([0.0] * 6 + [1.0]), np.array([0.0, 0.0, 0.05, 0.0, 0.0, 0.0, 0.0])
    steps = {}
    for name in ("simpler", "simpler-once"):
        env = SimplerGoogleEnv(MATCHING, replace(PROTOCOLS[name], horizons=((MATCHING, 8),)), "lazy", python=python)
        begin(env, CAN)
        said = [env.step(action) for action in (close, STILL, STILL, lift)]
        while not (said[-1][2] or said[-1][3]):
            said.append(env.step(STILL))
        steps[name] = len(said)
        assert [(reward, info["success"]) for _, reward, _, _, info in said[-2:]] == [(0.0, False), (1.0, True)]
        assert said[-1][2:4] == (True, False)
        assert said[-1][4]["episode_stats"]["grasped"] is True
        with pytest.raises(NotResetError, match="the episode has ended"):
            env.step(STILL)
        env.close()
    assert steps == {"simpler": 8, "simpler-once": 4}


def test_the_sentence_of_the_apple_changes_after_a_hundred_steps(env: SimplerGoogleEnv) -> None:
    assert begin(env, APPLE)["instruction"] == "open top drawer"
    told = [env.step(STILL) for _ in range(101)]
    assert {said[0]["instruction"] for said in told[:100]} == {"open top drawer"}
    assert told[100][0]["instruction"] == "place apple into top drawer"
    assert [said[4]["is_final_subtask"] for said in told[99:]] == [False, True]
    assert told[100][4]["episode_stats"] == {"qpos": 0.0, "is_drawer_open": False, "has_contact": 0}


def test_a_picture_is_fetched_when_it_is_read_and_only_until_the_next_step(env: SimplerGoogleEnv) -> None:
    begin(env, CAN)
    first, *_ = env.step(STILL)
    second, *_ = env.step(STILL)
    assert second[CAMERA][0].min() == 255, "row 0 is the top"
    with pytest.raises(StaleImageError, match=CAMERA):
        first[CAMERA]


def test_the_benchmark_plays_it(env: SimplerGoogleEnv) -> None:
    class Pulling:
        name = fingerprint = "pulling"
        action_spec = env.tasks[OPEN].action_spec
        cameras = (CAMERA,)

        def reset(self, task: Task, seed: int) -> None: ...

        def act(self, obs: dict[str, Any]) -> ActionChunk:
            assert (obs["instruction"], obs[CAMERA].shape) == ("open top drawer", (512, 640, 3))
            return ActionChunk(np.array([[-0.02, 0, 0, 0, 0, 0, 0]]))

        def synchronize(self) -> None: ...

    task = env.tasks[OPEN]
    once = replace(PROTOCOLS["simpler-once"], cameras=(CAMERA,))
    playing = SimplerGoogleEnv(MATCHING, once, "lazy", python=env._python)
    record = run_episode(playing, Contestant("full", Pulling()), task, Cell(OPEN, 5, 0), once)
    playing.close()
    assert (record.outcome, record.n_steps) == (Outcome.SUCCESS, 8)


def test_unknown_names_and_options_are_refused(env: SimplerGoogleEnv) -> None:
    with pytest.raises(UnknownNameError, match="no suite of SIMPLER's Google robot named 'simpler-google@1'"):
        find_suite("simpler-google@1")
    with pytest.raises(UnknownNameError, match="Did you mean 'simpler'"):
        SimplerGoogleEnv(protocol="simplr")
    with pytest.raises(UnknownNameError, match=f"no task of {MATCHING} named 'fly'"):
        begin(env, "fly")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="task is 11; expected a name, or an index from 0 to 10"):
        begin(env, 11)
    with pytest.raises(OptionError, match="init_state is 36; expected an index from 0 to 35"):
        begin(env, OPEN, 36)
    with pytest.raises(OptionError, match="images is 'never'"):
        SimplerGoogleEnv(images="never")  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="no keys but 'task' and 'init_state'"):
        env.reset(options={"start": 0})


def test_the_doctor_says_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    (absent,) = diagnosis.diagnose()
    assert absent.fine
    assert absent.found == ("not installed (VLA_BENCH_SIMPLER_PYTHON names no interpreter, see docs/simpler.md)")
    monkeypatch.setenv(VARIABLE, "/no/such/python")
    (wrong,) = diagnosis.diagnose()
    assert not wrong.fine
    monkeypatch.setenv(VARIABLE, recorded(tmp_path))
    (found,) = diagnosis.diagnose()
    assert found.fine
    assert found.found.startswith("simpler_env 0.0.1, mani_skill2_real2sim 0.5.3, sapien 2.2.2 on Python 3.")
