"""The contracts hold for what we ship, and every promise fails on something that breaks it."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from gymnasium import spaces
from toy import TOY, ToyEnv, ToyPolicy

import vla_bench
from vla_bench import registry
from vla_bench.errors import ContractError
from vla_bench.policy import PolicyWrapper
from vla_bench.testing import check_environment, check_method, check_policy
from vla_bench_policies.methods.full import Full

TASK = TOY.tasks()[0]


@pytest.mark.parametrize("task", range(3))
def test_the_toy_environment_keeps_its_contract(task: int) -> None:
    check_environment(ToyEnv(), task=task, init_states=(2, 4))


@pytest.mark.parametrize("n_actions", [1, 3])
def test_the_toy_policy_keeps_its_contract_with_images_drawn_or_not(n_actions: int) -> None:
    for images in ("eager", "lazy"):
        check_policy(ToyPolicy(n_actions), ToyEnv(images=images), TASK)


@pytest.mark.parametrize("spec", ["full", "action-reuse:1", "action-reuse:2", "action-reuse:2+action-reuse:3"])
def test_methods_keep_their_contract_and_change_no_action_at_their_exact_setting(spec: str) -> None:
    exact = Full() if spec == "full" else registry.method("action-reuse:1")
    check_method(registry.method(spec), ToyPolicy, ToyEnv(), TASK, exact)


class WithAnEndlessEpisode(ToyEnv):
    def step(self, action):
        self._n_steps = 1
        return super().step(action)


class WithAnOldStep(ToyEnv):
    def step(self, action):
        return super().step(action)[1:]


class WithoutAGenerator(ToyEnv):
    def reset(self, *, seed=None, options=None):
        obs, info = super().reset(seed=seed, options=options)
        self._np_random = None
        return obs, info


class WithAFloatImage(ToyEnv):
    def __init__(self):
        super().__init__()
        self.observation_space["front"] = spaces.Box(0, 255, (8, 8, 3), np.float32)

    def _draw(self, camera):
        return super()._draw(camera).astype(np.float32 if camera == "front" else np.uint8)


class WithACameraTheProtocolLacks(ToyEnv):
    def __init__(self):
        super().__init__()
        self.protocol = replace(self.protocol, cameras=("front",))
        self.observation_space.spaces.pop("front")

    def _observe(self):
        obs = super()._observe()
        obs["wrist"] = obs.pop("front")
        return obs


class WithAProprioThatLeavesItsSpaceLate(ToyEnv):
    def _observe(self):
        obs = super()._observe()
        obs["proprio"] += np.float32(100 * (self._n_steps == 5))
        return obs


class WithoutAHash(ToyEnv):
    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed, options=options)[0], {"success": False}


class WithOneHashForAll(ToyEnv):
    def reset(self, *, seed=None, options=None):
        obs, info = super().reset(seed=seed, options=options)
        return obs, info | {"init_state_sha256": 64 * "0"}


class WithSuccessAsANumber(ToyEnv):
    def _succeeds(self):
        return np.bool_(super()._succeeds())


class WithoutSuccessOnTheWay(ToyEnv):
    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, reward, terminated, truncated, {"success": True} if info["success"] else {}


class WithSomethingLeftFromTheLastEpisode(ToyEnv):
    n_resets_at_2 = 0

    def reset(self, *, seed=None, options=None):
        obs, info = super().reset(seed=seed, options=options)
        self.n_resets_at_2 += (options or {}).get("init_state") == 1
        obs["proprio"][0] += np.float32(1e-6 * self.n_resets_at_2)
        return obs, info


class WithAnEarForNaN(ToyEnv):
    def step(self, action):
        return super().step(np.nan_to_num(action))


class WithAnEarForAnyShape(ToyEnv):
    def step(self, action):
        return super().step(np.asarray(action)[:2])


class WithAnIndexErrorForAnyShape(ToyEnv):
    def step(self, action):
        if np.shape(action) != (2,):
            raise IndexError("out of bounds")
        return super().step(action)


class WithStepsAfterTheEnd(ToyEnv):
    def step(self, action):
        self._runs = True
        return super().step(action)


class WithAnyTask(ToyEnv):
    def reset(self, *, seed=None, options=None):
        chosen = dict(options or {})
        if "task" in chosen:
            chosen["task"] %= 3
        return super().reset(seed=seed, options=chosen)


class WithAnyInitialState(ToyEnv):
    def reset(self, *, seed=None, options=None):
        chosen = dict(options or {})
        if "init_state" in chosen:
            chosen["init_state"] %= 5
        return super().reset(seed=seed, options=chosen)


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (WithAnOldStep, "observations lie in the declared space"),
        (WithoutAGenerator, "gymnasium finds no fault"),
        (WithACameraTheProtocolLacks, "observations are cameras proprio and instruction"),
        (WithAFloatImage, "observations are cameras proprio and instruction"),
        (WithAProprioThatLeavesItsSpaceLate, "observations lie in the declared space"),
        (WithoutAHash, "reset tells the hash of the initial state"),
        (WithOneHashForAll, "reset tells the hash of the initial state"),
        (WithSuccessAsANumber, "every step tells success as a bool"),
        (WithoutSuccessOnTheWay, "every step tells success as a bool"),
        (WithSomethingLeftFromTheLastEpisode, "same cell and same actions are the same episode"),
        (WithAnEarForNaN, "an action that is not finite is refused"),
        (WithAnEarForAnyShape, "an action of another shape is refused"),
        (WithAnIndexErrorForAnyShape, "an action of another shape is refused"),
        (WithStepsAfterTheEnd, "a step after the end is refused"),
        (WithAnEndlessEpisode, "a step after the end is refused"),
        (WithAnyTask, "an unknown task is refused"),
        (WithAnyInitialState, "an unknown initial state is refused"),
    ],
)
def test_a_broken_environment_is_told_which_promise_it_breaks(broken: type[ToyEnv], promise: str) -> None:
    with pytest.raises(ContractError, match=f"^{broken.__name__} breaks the contract '{promise}': "):
        check_environment(broken())


@dataclass
class Wrapping(PolicyWrapper):
    """A policy whose answer is spoilt by `spoil(policy, obs, chunk)`."""

    spoil: object = None
    n_calls: int = 0

    @property
    def name(self):
        return "broken"

    def act(self, obs):
        self.n_calls += 1
        return self.spoil(self, obs, self.inner.act(obs))


def writes_into_the_observation(policy, obs, chunk):
    obs["front"][:] = 0
    return chunk


def adds_a_key(policy, obs, chunk):
    obs["seen"] = True
    return chunk


def answers_with_one_vector(policy, obs, chunk):
    return replace(chunk, actions=chunk.actions[0])


def answers_with_nothing(policy, obs, chunk):
    return replace(chunk, actions=chunk.actions[:0])


def answers_with_nan(policy, obs, chunk):
    return replace(chunk, actions=chunk.actions * np.nan)


def answers_beyond_the_limit(policy, obs, chunk):
    return replace(chunk, actions=chunk.actions + 2.0)


def counts_in_numpy(policy, obs, chunk):
    return replace(chunk, rows_computed=np.int64(3))


def has_a_stage_of_nan(policy, obs, chunk):
    return replace(chunk, stages_ms={"vision": float("nan")})


def counts_on_across_episodes(policy, obs, chunk):
    return replace(chunk, actions=chunk.actions * (0.5 if policy.n_calls > 3 else 1.0))


@pytest.mark.parametrize(
    ("spoil", "promise"),
    [
        (writes_into_the_observation, "act leaves the observation untouched"),
        (adds_a_key, "act leaves the observation untouched"),
        (answers_with_one_vector, "actions have shape n by size and keep the limits"),
        (answers_with_nothing, "actions have shape n by size and keep the limits"),
        (answers_with_nan, "actions have shape n by size and keep the limits"),
        (answers_beyond_the_limit, "actions have shape n by size and keep the limits"),
        (counts_in_numpy, "costs are plain numbers"),
        (has_a_stage_of_nan, "costs are plain numbers"),
        (counts_on_across_episodes, "reset forgets"),
    ],
)
def test_a_broken_policy_is_told_which_promise_it_breaks(spoil, promise: str) -> None:
    with pytest.raises(ContractError, match=f"^broken breaks the contract '{promise}': "):
        check_policy(Wrapping(ToyPolicy(), spoil), ToyEnv(), TASK)


class Renamed(ToyPolicy):
    @property
    def fingerprint(self):
        return f"reset: {hasattr(self, '_rng')}"


class Anonymous(ToyPolicy):
    fingerprint = None


class WithoutSynchronize(ToyPolicy):
    @property
    def synchronize(self):
        raise AttributeError


@pytest.mark.parametrize(
    ("policy", "promise"),
    [
        (Renamed(), "name and fingerprint do not change"),
        (Anonymous(), "name and fingerprint do not change"),
        (ToyPolicy(cameras=("ceiling",)), "cameras are among the environments"),
        (WithoutSynchronize(), "a policy has all of its parts"),
    ],
)
def test_a_policy_that_describes_itself_wrongly_is_told_so(policy: ToyPolicy, promise: str) -> None:
    with pytest.raises(ContractError, match=f"^toy breaks the contract '{promise}': "):
        check_policy(policy, ToyEnv(), TASK)


@dataclass(frozen=True)
class Breaking:
    """A method that breaks one promise."""

    name: str
    wrapper: type = PolicyWrapper

    def apply(self, policy):
        return self.wrapper(policy)


class Blind(PolicyWrapper):
    cameras = ()


class Timid(PolicyWrapper):
    def act(self, obs):
        chunk = self.inner.act(obs)
        return replace(chunk, actions=chunk.actions * (1 - 1e-12))


class Remembering(PolicyWrapper):
    n_calls = 0

    def act(self, obs):
        self.n_calls += 1
        chunk = self.inner.act(obs)
        return replace(chunk, actions=chunk.actions * (0.5 if self.n_calls > 3 else 1.0))


@pytest.mark.parametrize(
    ("method", "subject", "promise"),
    [
        (Breaking("full"), "full", "name makes the method again"),
        (Breaking("blind", Blind), "blind", "the policy stays what it says it is"),
        (Breaking("timid", Timid), "timid", "the exact setting changes no action"),
        (Breaking("remembering", Remembering), "toy", "reset forgets"),
    ],
)
def test_a_broken_method_is_told_which_promise_it_breaks(method: Breaking, subject: str, promise: str) -> None:
    with pytest.raises(ContractError, match=f"^{subject} breaks the contract '{promise}': "):
        check_method(method, ToyPolicy, ToyEnv(), TASK, exact=method)


def test_a_method_without_an_exact_setting_or_a_registered_name_can_keep_the_contract() -> None:
    check_method(Breaking("timid", Timid), ToyPolicy, ToyEnv(), TASK)
    vla_bench.register("method", "timid-registered", lambda: Breaking("timid-registered", Timid))
    check_method(registry.method("timid-registered"), ToyPolicy, ToyEnv(), TASK)
