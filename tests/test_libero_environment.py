"""The LIBERO environment against LIBERO's own loop, and against what a user can get wrong."""

import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest

pytest.importorskip("libero.libero")

from gymnasium.utils.env_checker import check_env

from vla_bench.errors import ActionError, NotResetError, OptionError, PinnedVersionError, StaleImageError
from vla_bench_envs.libero import startup
from vla_bench_envs.libero.environment import LiberoEnv
from vla_bench_envs.libero.protocols import AGENT, WRIST, protocol

pytestmark = pytest.mark.sim

STOVE_TASK = 7
"""Of libero-goal: turn on the stove, whose flame is shown by a site that appears."""

STOVE_JOINT = "flat_stove_1_button"
N_STEPS = 8
STOVE_TURNS_AT = 4


def turn_stove_on(simulator: Any) -> None:
    simulator.sim.data.set_joint_qpos(STOVE_JOINT, 1.0)


def actions() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (N_STEPS, 7))


@pytest.fixture(scope="module")
def goal() -> Iterator[LiberoEnv]:
    """Standard pictures of two cameras, drawn when read; success does not end an episode."""
    env = LiberoEnv("libero-goal@1", "reference", images="lazy", ends_at_success=False)
    yield env
    env.close()


@pytest.fixture(scope="module")
def fast() -> Iterator[LiberoEnv]:
    """Cheap pictures, and episodes of three steps."""
    short = replace(protocol("reference-fast"), name="short", horizons=(("libero-goal@1", 3),))
    env = LiberoEnv("libero-goal@1", short)
    yield env
    env.close()


def play(env: LiberoEnv, init_state: int = 0) -> list[dict[str, Any]]:
    """Return every observation, and the simulator's state, of an episode in which the stove is switched on."""
    obs, _ = env.reset(options={"task": STOVE_TASK, "init_state": init_state})
    seen = [{**obs, "state": env.stage.state}]
    for step, action in enumerate(actions()):
        if step == STOVE_TURNS_AT:
            turn_stove_on(env.simulator)
        obs, _, _, _, info = env.step(action)
        seen.append({**obs, "state": env.stage.state, "success": info["success"]})
    return seen


@pytest.fixture(scope="module")
def first_episode(goal: LiberoEnv) -> list[dict[str, Any]]:
    return play(goal)


def official_episode(env: LiberoEnv) -> list[dict[str, Any]]:
    """Return what LIBERO's own environment shows in the same episode, seeded as the protocol says."""
    from libero.libero.envs import OffScreenRenderEnv
    from robosuite.utils.transform_utils import quat2axisangle

    task = env.tasks[STOVE_TASK]
    with startup.quiet(), startup.global_seed(0):
        official = OffScreenRenderEnv(bddl_file_name=str(env.suite.problem_file(task)))
        official.seed(0)
        official.reset()
        obs = official.set_init_state(env.suite.initial_states(task)[0])
        for _ in range(10):
            obs, *_ = official.step([0, 0, 0, 0, 0, 0, -1])

    def seen(success: bool) -> dict[str, Any]:
        proprio = [obs["robot0_eef_pos"], quat2axisangle(obs["robot0_eef_quat"]), obs["robot0_gripper_qpos"]]
        images = {camera: obs[f"{camera}_image"][::-1] for camera in (AGENT, WRIST)}
        return images | {
            "proprio": np.concatenate(proprio).astype(np.float32),
            "instruction": task.instruction,
            "state": official.get_sim_state(),
            "success": success,
        }

    episode = [seen(success=False)]
    for step, action in enumerate(actions()):
        if step == STOVE_TURNS_AT:
            turn_stove_on(official.env)
        obs, _, success, _ = official.step(action)
        episode.append(seen(success=success))
    with startup.quiet():
        official.close()
    return episode


def test_episode_equals_liberos_own_bit_for_bit(goal: LiberoEnv, first_episode: list[dict[str, Any]]) -> None:
    official = official_episode(goal)
    for ours, theirs in zip(first_episode, official, strict=True):
        np.testing.assert_equal({"success": False} | ours, theirs)
    assert not first_episode[STOVE_TURNS_AT]["success"]
    assert first_episode[STOVE_TURNS_AT + 1]["success"]


def test_reused_environment_equals_a_fresh_one_bit_for_bit(
    goal: LiberoEnv, first_episode: list[dict[str, Any]]
) -> None:
    goal.reset(options={"task": STOVE_TASK, "init_state": 5})
    for action in np.ones((3, 7)):  # closes the gripper and leaves the stove's flame on or off as it is
        goal.step(action)
    for again, first in zip(play(goal), first_episode, strict=True):
        np.testing.assert_equal(again, first)


def test_unread_image_is_refused_after_the_next_step(goal: LiberoEnv) -> None:
    obs, _ = goal.reset(options={"task": STOVE_TASK, "init_state": 0})
    obs[AGENT]
    after, *_ = goal.step(np.zeros(7))
    assert obs[AGENT].shape == (128, 128, 3)
    with pytest.raises(StaleImageError, match=WRIST):
        obs[WRIST]
    goal.reset()
    with pytest.raises(StaleImageError):
        dict(after)


def test_rotated_pictures_are_upright_and_mirrored(goal: LiberoEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    upright = goal.reset(options={"task": STOVE_TASK, "init_state": 0})[0][AGENT]
    monkeypatch.setattr(goal, "protocol", replace(goal.protocol, rotate_180=True))
    turned = goal.reset(options={"init_state": 0})[0][AGENT]
    np.testing.assert_array_equal(turned, upright[:, ::-1])


def test_fast_pictures_leave_physics_alone(fast: LiberoEnv, first_episode: list[dict[str, Any]]) -> None:
    obs, _ = fast.reset(options={"task": STOVE_TASK, "init_state": 0})
    np.testing.assert_array_equal(fast.stage.state, first_episode[0]["state"])
    np.testing.assert_array_equal(obs["proprio"], first_episode[0]["proprio"])
    gap = np.abs(obs[AGENT].astype(int) - first_episode[0][AGENT])
    assert 0 < gap.mean() < 6  # grey levels; 3.3 measured


def test_reset_leaves_the_callers_random_numbers_alone(fast: LiberoEnv) -> None:
    np.random.seed(3)  # noqa: NPY002 - the global generator is what is tested
    expected = np.random.random(2)  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    first = np.random.random()  # noqa: NPY002
    fast.reset(seed=0)
    assert [first, np.random.random()] == expected.tolist()  # noqa: NPY002


def test_fixtures_depend_on_the_scene_seed_and_on_nothing_else(
    fast: LiberoEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fixtures(init_state: int) -> np.ndarray:
        fast.reset(options={"task": STOVE_TASK, "init_state": init_state})
        return fast.simulator.sim.model.body_pos.copy()

    expected = fixtures(0)
    np.testing.assert_array_equal(fixtures(7), expected)
    monkeypatch.setattr(fast.stage, "_scene_seed", 1)
    assert not np.array_equal(fixtures(0), expected)


def test_horizon_truncates_and_ends_the_episode(fast: LiberoEnv) -> None:
    fast.reset(options={"task": STOVE_TASK, "init_state": 0})
    ends = [fast.step(np.zeros(7))[1:4] for _ in range(3)]
    assert ends == [(0.0, False, False), (0.0, False, False), (0.0, False, True)]
    with pytest.raises(NotResetError, match=r"^the episode has ended: call reset\(\) before step\(\)$"):
        fast.step(np.zeros(7))


def test_success_rewards_and_ends_the_episode(fast: LiberoEnv) -> None:
    fast.reset(options={"task": STOVE_TASK, "init_state": 0})
    turn_stove_on(fast.simulator)
    _, reward, terminated, truncated, info = fast.step(np.zeros(7))
    assert (reward, terminated, truncated, info) == (1.0, True, False, {"success": True})
    with pytest.raises(NotResetError):
        fast.step(np.zeros(7))


def test_reset_says_what_was_started(fast: LiberoEnv) -> None:
    state = fast.suite.initial_states(fast.tasks[STOVE_TASK])[3]
    obs, info = fast.reset(options={"task": "turn_on_the_stove", "init_state": 3})
    assert info == {
        "success": False,
        "suite": "libero-goal@1",
        "task": "turn_on_the_stove",
        "task_index": STOVE_TASK,
        "init_state": 3,
        "init_state_sha256": hashlib.sha256(state.tobytes()).hexdigest(),
        "protocol": fast.protocol.hash,
        "settle_steps": 10,
    }
    _, same = fast.reset(options={"init_state": state})
    assert same == info | {"init_state": -1}
    assert obs["instruction"] == "turn on the stove"


def test_initial_state_is_drawn_from_the_seed(fast: LiberoEnv) -> None:
    drawn = [fast.reset(seed=seed, options={"task": STOVE_TASK})[1]["init_state"] for seed in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state": 1}, "options is ['state']; expected no keys but 'task' and 'init_state'"),
        ({"init_state": 50}, "init_state is 50; expected an index from 0 to 49, or a state (NumPy array)"),
        ({"init_state": -1}, "init_state is -1; expected an index from 0 to 49, or a state (NumPy array)"),
        ({"init_state": 0.5}, "init_state is 0.5; expected an index from 0 to 49, or a state (NumPy array)"),
        (
            {"init_state": np.zeros(7)},
            "init_state is 'an array of shape (7,)'; expected 79 finite numbers: a state of 'turn_on_the_stove', "
            "not another's",
        ),
    ],
)
def test_wrong_reset_option_is_refused(fast: LiberoEnv, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        fast.reset(options={"task": STOVE_TASK} | options)
    assert str(caught.value) == message
    with pytest.raises(NotResetError, match="has not begun"):
        fast.step(np.zeros(7))


@pytest.mark.parametrize(
    ("action", "found"),
    [
        (np.zeros(6), r"an array of shape \(6,\) and type float64"),
        (np.zeros((1, 7)), r"an array of shape \(1, 7\) and type float64"),
        (["a"] * 7, r"an array of shape \(7,\) and type <U1"),
        ([np.nan] * 7, r"\[nan, nan, nan, nan, nan, nan, nan\]"),
    ],
)
def test_wrong_action_is_refused_and_the_episode_goes_on(fast: LiberoEnv, action: Any, found: str) -> None:
    fast.reset(options={"task": STOVE_TASK, "init_state": 0})
    with pytest.raises(ActionError, match=rf"^the action is {found}; expected 7 finite numbers in \[-1, 1\]: look at"):
        fast.step(action)
    fast.step(np.zeros(7))


def test_action_beyond_its_limits_is_clipped(fast: LiberoEnv) -> None:
    def state_after(action: np.ndarray) -> np.ndarray:
        fast.reset(options={"task": STOVE_TASK, "init_state": 0})
        fast.step(action)
        return fast.stage.state

    np.testing.assert_array_equal(state_after(np.full(7, 5.0)), state_after(np.ones(7, np.float32)))


def test_step_before_reset_is_refused() -> None:
    env = LiberoEnv()
    with pytest.raises(NotResetError, match="the episode has not begun"):
        env.step(np.zeros(7))
    with pytest.raises(NotResetError):
        _ = env.simulator


def test_gymnasiums_checker_finds_nothing(fast: LiberoEnv) -> None:
    registered = gymnasium.make("vla_bench/LiberoGoal-v0", protocol=fast.protocol, render_mode="rgb_array").unwrapped
    assert isinstance(registered, LiberoEnv)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(registered)
    registered.close()


def test_another_mujoco_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _: "3.11.0")
    with pytest.raises(PinnedVersionError) as caught:
        startup.check_mujoco()
    assert f"mujoco 3.11.0 is installed, the protocol is defined on {startup.MUJOCO_VERSION}" in str(caught.value)
