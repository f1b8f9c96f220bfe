"""The SIMPLER environment against ManiSkill's own, and against what a user can get wrong.

Needs the extra `simpler`, a Vulkan driver and assets: VLA_BENCH_SIMPLER_ASSETS names a folder with stand-ins, or
MS_ASSET_DIR one with official assets.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

if "VLA_BENCH_SIMPLER_ASSETS" in os.environ:
    os.environ["MS_ASSET_DIR"] = os.environ["VLA_BENCH_SIMPLER_ASSETS"]  # ManiSkill reads it when it is imported
pytest.importorskip("mani_skill", reason="needs pip install 'vla-bench[simpler]'", exc_type=ImportError)

import importlib

from scipy.spatial.transform import Rotation

from vla_bench.errors import ActionError, NotResetError, OptionError, StaleImageError
from vla_bench.testing import check_environment
from vla_bench_envs.simpler import assets, startup, vulkan
from vla_bench_envs.simpler.demonstrations.initial_states import MIN_DISTANCE_M, InitialStates
from vla_bench_envs.simpler.environment import SimplerEnv
from vla_bench_envs.simpler.errors import MissingAssetsError
from vla_bench_envs.simpler.experts import plans
from vla_bench_envs.simpler.experts.policy import ExpertPolicy
from vla_bench_envs.simpler.protocols import CAMERA
from vla_bench_envs.simpler.suites import NAME, SUITES, TWINS
from vla_bench_policies.reference.policy import ReferencePolicy

try:
    assets.check()
except MissingAssetsError as caught:
    pytest.skip(f"{caught} (VLA_BENCH_SIMPLER_ASSETS names stand-ins)", allow_module_level=True)
if not vulkan.has_gpu() and vulkan.swiftshader() is None and not os.environ.get("VK_ICD_FILENAMES"):
    pytest.skip("found neither a GPU nor SwiftShader", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore")  # ManiSkill's and SAPIEN's own, at every import and reset

SUITE = SUITES[NAME]
TASKS = range(len(TWINS))
EGGPLANT = 3
STILL = np.array([0.0] * 6 + [1.0])


def actions() -> np.ndarray:
    """Return a walk of the arm down to the table, with fingers that open and close."""
    rng = np.random.default_rng(0)
    walk = np.hstack([rng.normal(0, 0.02, (8, 3)), rng.normal(0, 0.05, (8, 3)), rng.choice([-1.0, 1.0], (8, 1))])
    walk[:, 2] -= 0.02
    return walk


@pytest.fixture(scope="module")
def env() -> Iterator[SimplerEnv]:
    made = SimplerEnv(protocol="reference-fast", images="lazy", ends_at_success=False)
    yield made
    made.close()


def play(env: SimplerEnv, task: int, init_state: int) -> np.ndarray:
    """Return the simulator's states of an episode."""
    env.reset(options={"task": task, "init_state": init_state})
    states = [env.stage.state]
    for action in actions():
        env.step(action)
        states.append(env.stage.state)
    return np.stack(states)


def official(env_id: str, index: int, obs: bool, shader: str = "minimal") -> Any:
    """Return ManiSkill's own environment after its own reset to an episode; without pictures unless asked for."""
    startup.twin_class(env_id)  # imports it
    cls = importlib.import_module("mani_skill.utils.registration").REGISTERED_ENVS[env_id].cls
    torch = importlib.import_module("torch")

    class Untouched(cls):
        def _setup_scene(self) -> None:
            self._render_device = self.backend.render_device = vulkan.render_system().device
            super()._setup_scene()

        def get_obs(self, *given: Any, **named: Any) -> Any:
            return super().get_obs(*given, **named) if obs else {}

    cls._objects_to_remove_from_greenscreen = []  # which earlier environments of this process have filled
    made = Untouched(
        num_envs=1, obs_mode="rgb+segmentation", render_backend="cpu", sensor_configs={"shader_pack": shader}
    )
    made.reset(seed=0, options={"reconfigure": True, "episode_id": torch.tensor([index])})
    return made


@pytest.mark.parametrize("task", TASKS)
def test_tables_agree_with_maniskill(env: SimplerEnv, task: int) -> None:
    env.reset(options={"task": task, "init_state": 0})
    registered = importlib.import_module("mani_skill.utils.registration").REGISTERED_ENVS[TWINS[task].env_id]
    assert env.simulator.get_language_instruction() == [env.task.instruction]
    assert registered.max_episode_steps == env.task.horizon
    assert env.simulator.control_freq == env.task.control_hz
    assert len({state.tobytes() for state in env.stage.initial_states}) == 24


@pytest.mark.parametrize("task", TASKS)
def test_states_equal_maniskills_own_bit_for_bit(env: SimplerEnv, task: int) -> None:
    theirs = official(TWINS[task].env_id, 5, obs=False)
    states = [theirs.get_state()[0].numpy().copy()]
    for action in actions():
        angles = Rotation.from_rotvec(action[3:6]).as_euler("XYZ")
        theirs.step(np.concatenate([action[:3], angles, action[6:]]).astype(np.float32))
        states.append(theirs.get_state()[0].numpy().copy())
    np.testing.assert_array_equal(play(env, task, 5), np.stack(states))


@pytest.mark.parametrize("task", TASKS)
def test_an_episode_does_not_depend_on_the_one_before(env: SimplerEnv, task: int) -> None:
    first = play(env, task, 3)
    play(env, task, 7)
    np.testing.assert_array_equal(play(env, task, 3), first)


def test_poses_of_the_caller_are_a_start(env: SimplerEnv) -> None:
    _, first = env.reset(options={"task": 2, "init_state": 4})
    state = env.stage.state
    _, again = env.reset(options={"init_state": env.stage.initial_states[4]})
    np.testing.assert_array_equal(env.stage.state, state)
    assert again == first | {"init_state": -1}


def test_a_rotation_vector_turns_the_tool_about_the_axes_of_the_base(env: SimplerEnv) -> None:
    before, _ = env.reset(options={"task": 1, "init_state": 0})
    turn = np.array([0.1, -0.05, 0.12])
    after, *_ = env.step(np.concatenate([np.zeros(3), turn, [1.0]]))
    for _ in range(4):
        after, *_ = env.step(STILL)
    turned = Rotation.from_rotvec(after["proprio"][3:6]) * Rotation.from_rotvec(before["proprio"][3:6]).inv()
    np.testing.assert_allclose(turned.as_rotvec(), turn, atol=0.02)
    np.testing.assert_allclose(after["proprio"][:3], before["proprio"][:3], atol=0.004)


def test_grippers_sign_is_open_is_positive(env: SimplerEnv) -> None:
    env.reset(options={"task": 1, "init_state": 0})
    for sign, finger in ((-1.0, 0.014), (1.0, 0.038)):
        for _ in range(6):
            obs, *_ = env.step(np.append(np.zeros(6), sign))
        np.testing.assert_allclose(obs["proprio"][6:], finger, atol=0.002)


@pytest.mark.parametrize(
    ("action", "found"),
    [(np.zeros(6), r"an array of shape \(6,\)"), ([np.nan] * 7, r"\[nan"), (["a"] * 7, "an array of shape")],
)
def test_a_wrong_action_is_refused_and_the_episode_goes_on(env: SimplerEnv, action: Any, found: str) -> None:
    env.reset(options={"task": 1, "init_state": 0})
    with pytest.raises(ActionError, match=f"^the action is {found}"):
        env.step(action)
    env.step(STILL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"state": 1}, "options is ['state']; expected no keys but 'task' and 'init_state'"),
        ({"init_state": 24}, "init_state is 24; expected an index from 0 to 23, or poses (NumPy array)"),
        (
            {"init_state": np.zeros(7)},
            "init_state is 'an array of shape (7,)'; expected 2 x 7 finite numbers: positions and quaternions of two "
            "objects",
        ),
    ],
)
def test_a_wrong_reset_option_is_refused(env: SimplerEnv, options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        env.reset(options={"task": 1} | options)
    assert str(caught.value) == message
    with pytest.raises(NotResetError):
        env.step(STILL)


@pytest.mark.parametrize("success", ["end", "once"])
def test_success_is_judged_when_the_protocol_says(success: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = replace(SUITE.protocol("reference-fast"), name="short", horizons=((NAME, 3),), success=success)
    env = SimplerEnv(protocol=protocol, images="lazy")
    env.reset(options={"task": 1, "init_state": 0})
    monkeypatch.setattr(env.stage, "step", lambda _: True)
    said = [env.step(STILL)[1:]]
    while not (said[-1][1] or said[-1][2]):
        said.append(env.step(STILL)[1:])
    over = (1.0, True, False, {"success": True})
    runs = (0.0, False, False, {"success": False})
    assert said == ([over] if success == "once" else [runs, runs, over])
    env.close()


@pytest.mark.parametrize("task", TASKS)
def test_demonstrations_start_near_where_policies_are_evaluated_and_never_there(env: SimplerEnv, task: int) -> None:
    env.reset(options={"task": task, "init_state": 0})
    one, other = InitialStates(env.stage, seed=0), InitialStates(env.stage, seed=1)
    drawn = np.stack([one.draw(index) for index in range(50)])
    official = env.stage.initial_states
    apart = np.linalg.norm(drawn[:, None, :, :2] - official[None, :, :, :2], axis=-1).max(axis=-1)
    assert (apart > MIN_DISTANCE_M).all()
    assert (apart.min(axis=1) < 0.03 * np.sqrt(2) + 1e-6).all()
    assert len({state.tobytes() for state in drawn}) == 50
    np.testing.assert_allclose(np.linalg.norm(drawn[:, :, 3:], axis=-1), 1.0, atol=1e-6)
    np.testing.assert_array_equal(one.draw(3), drawn[3])
    assert np.abs(other.draw(3) - drawn[3]).max() > 0


def test_an_expert_without_its_object_says_that_it_has_failed(env: SimplerEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    env.reset(options={"task": 2, "init_state": 0})
    policy = ExpertPolicy()
    policy.attach(env)
    policy.reset(env.task, seed=0)
    monkeypatch.setattr(plans, "HELD_RISE_M", 1.0)
    monkeypatch.setattr(plans, "ATTEMPTS", 1)
    for _ in range(40):
        env.step(policy.act({}).actions[0])
    assert (policy.finished, policy.failure) == (False, "none of 3 grasps held")


@pytest.mark.parametrize("task", TASKS)
def test_the_expert_solves_the_first_start_and_leaves_it_solved(task: int) -> None:
    env, policy = SimplerEnv(protocol="simpler", images="lazy"), ExpertPolicy()
    policy.attach(env)
    obs, _ = env.reset(options={"task": task, "init_state": 0})
    policy.reset(env.task, seed=0)
    ended = False
    while not ended:
        obs, _, succeeded, truncated, _ = env.step(policy.act(obs).actions[0])
        ended = succeeded or truncated
    env.close()
    assert policy.finished
    assert succeeded


@pytest.mark.slow
@pytest.mark.parametrize("shader", ["minimal", "default"])
@pytest.mark.parametrize("task", [1, EGGPLANT])
def test_pictures_equal_maniskills_own_bit_for_bit(task: int, shader: Any) -> None:
    protocol = replace(SUITE.protocol("simpler"), name="same", shader=shader)
    env = SimplerEnv(protocol=protocol)
    ours = [env.reset(options={"task": task, "init_state": 5})[0][CAMERA]]
    ours += [env.step(np.append(action[:6], -1.0))[0][CAMERA] for action in actions()[:2]]
    env.close()
    theirs = official(TWINS[task].env_id, 5, obs=True, shader=shader)
    for step, picture in enumerate(ours):
        np.testing.assert_array_equal(picture, theirs._last_obs["sensor_data"][CAMERA]["rgb"][0].numpy())
        action = np.append(actions()[min(step, 1), :6], -1.0)
        angles = Rotation.from_rotvec(action[3:6]).as_euler("XYZ")
        theirs.step(np.concatenate([action[:3], angles, action[6:]]).astype(np.float32))


@pytest.mark.slow
def test_unread_image_is_refused_after_the_next_step(env: SimplerEnv) -> None:
    obs, _ = env.reset(options={"task": 1, "init_state": 0})
    assert obs[CAMERA].shape == (128, 128, 3)
    after, *_ = env.step(STILL)
    env.step(STILL)
    with pytest.raises(StaleImageError, match=CAMERA):
        after[CAMERA]


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_the_environment_keeps_its_contract(task: int) -> None:
    short = replace(SUITE.protocol("reference-fast"), name="short", horizons=((NAME, 3),))
    env = SimplerEnv(protocol=short)
    check_environment(env, task=task)
    env.close()


@pytest.mark.slow
def test_a_fingerprint_is_the_same_twice_and_tells_the_assets() -> None:
    protocol = SUITE.protocol("reference-fast")
    first, again = SUITE.fingerprint(protocol), SUITE.fingerprint(protocol)
    assert first == again
    assert first["assets"].startswith(assets.kind())


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_the_expert_succeeds_in_nine_of_ten_starts(task: int) -> None:
    env, policy = SimplerEnv(protocol="simpler", images="lazy"), ExpertPolicy()
    policy.attach(env)
    solved = 0
    for index in range(24):
        obs, _ = env.reset(options={"task": task, "init_state": index})
        policy.reset(env.task, seed=0)
        ended = False
        while not ended:
            obs, _, succeeded, truncated, _ = env.step(policy.act(obs).actions[0])
            ended = succeeded or truncated
        solved += succeeded
    env.close()
    assert solved >= 0.9 * 24


@pytest.mark.slow
def test_the_policy_that_ships_solves_most_starts_of_the_eggplant() -> None:
    policy = ReferencePolicy("simpler", execute=4)
    env = SimplerEnv(protocol="reference-fast", images="lazy")
    solved = 0
    for index in range(0, 24, 4):
        obs, _ = env.reset(options={"task": EGGPLANT, "init_state": index})
        policy.reset(env.task, seed=0)
        ended = succeeded = False
        while not ended:
            for action in policy.act(obs).actions:
                obs, _, succeeded, truncated, _ = env.step(action)
                if ended := succeeded or truncated:
                    break
        solved += succeeded
    env.close()
    assert solved >= 4
