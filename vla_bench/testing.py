"""Contracts that any environment, policy or method can be held to; they need no test framework.

Each promise is a function whose name is the promise and that returns what was found instead, or None if it is kept.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env, data_equivalence

from vla_bench import registry
from vla_bench.errors import ContractError, VlaBenchError
from vla_bench.policy import ActionChunk, Method, Policy, PrivilegedPolicy
from vla_bench.types import Observation, Task

N_ENVIRONMENT_STEPS = 8
"""Steps over which two episodes of an environment are compared."""

N_STEPS_AT_MOST = 10_000
"""Steps after which an environment that has not ended its episode counts as endless."""

NOT_AN_INDEX = 10**6
"""Index that no suite has a task or an initial state for."""

WRONG = (
    ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError,
    Warning, gymnasium.error.Error, VlaBenchError,
)  # fmt: skip
"""What broken code raises; anything else passes through."""


def check_environment(env: gymnasium.Env, task: int = 0, init_states: tuple[int, int] = (0, 1)) -> None:
    """Hold an environment to its contract; one episode is played to its end.

    Hand it over with images drawn at once (`images="eager"`): Gymnasium's checker reads observations of the past.
    A protocol with a short horizon saves most of the time.

    Raises:
        ContractError: Naming the first promise that is broken.
    """
    case = _Cells(env.unwrapped, task, init_states)
    _hold(
        type(env.unwrapped).__name__,
        case,
        _observations_are_cameras_proprio_and_instruction,
        _observations_lie_in_the_declared_space,
        _gymnasium_finds_no_fault,
        _reset_tells_the_hash_of_the_initial_state,
        _every_step_tells_success_as_a_bool,
        _same_cell_and_same_actions_are_the_same_episode,
        _an_action_that_is_not_finite_is_refused,
        _an_action_of_another_shape_is_refused,
        _a_step_after_the_end_is_refused,
        _an_unknown_task_is_refused,
        _an_unknown_initial_state_is_refused,
    )


def check_policy(policy: Policy, env: gymnasium.Env, task: Task, n_steps: int = 20) -> None:
    """Hold a policy to its contract, over three episodes of at most `n_steps` queries.

    Raises:
        ContractError: Naming the first promise that is broken.
    """
    if isinstance(policy, PrivilegedPolicy):
        policy.attach(env)
    case = _Played(policy, env, task, n_steps)
    _hold(
        str(getattr(policy, "name", type(policy).__name__)),
        case,
        _a_policy_has_all_of_its_parts,
        _cameras_are_among_the_environments,
        _name_and_fingerprint_do_not_change,
        _act_leaves_the_observation_untouched,
        _actions_have_shape_n_by_size_and_keep_the_limits,
        _costs_are_plain_numbers,
        _reset_forgets,
    )


def check_method(
    method: Method, make_policy: Callable[[], Policy], env: gymnasium.Env, task: Task, exact: Method | None = None
) -> None:
    """Hold a method to its contract, and what it makes of a policy to the contract of a policy.

    `exact` is the method at the setting that must change no action; None if it has no such setting.

    Raises:
        ContractError: Naming the first promise that is broken.
    """
    case = _Wrapped(method, make_policy, env, task, exact)
    _hold(method.name, case, _name_makes_the_method_again, _the_policy_stays_what_it_says_it_is)
    check_policy(method.apply(make_policy()), env, task)
    _hold(method.name, case, _the_exact_setting_changes_no_action)


@dataclass(frozen=True)
class _Cells:
    env: Any
    task: int
    init_states: tuple[int, int]

    def reset(self, which: int = 0) -> tuple[Observation, dict[str, Any]]:
        obs, info = self.env.reset(seed=0, options={"task": self.task, "init_state": self.init_states[which]})
        return deepcopy(dict(obs)), info

    @cached_property
    def first(self) -> list[tuple[Any, ...]]:
        """Return the episode that several promises look at."""
        return self.play()

    def play(self, which: int = 0) -> list[tuple[Any, ...]]:
        """Return everything that `reset` and `step` say while the same actions are applied."""
        space = self.env.action_space
        said: list[tuple[Any, ...]] = [self.reset(which)]
        for action in np.random.default_rng(0).uniform(space.low, space.high, (N_ENVIRONMENT_STEPS, *space.shape)):
            obs, reward, terminated, truncated, info = self.env.step(action.astype(space.dtype))
            said.append((deepcopy(dict(obs)), dict(info), reward, terminated, truncated))
            if terminated or truncated:
                break
        return said


def _gymnasium_finds_no_fault(case: _Cells) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(case.env, skip_render_check=case.env.spec is None)  # without a spec it cannot make another one


def _observations_are_cameras_proprio_and_instruction(case: _Cells) -> str | None:
    space = case.env.observation_space
    if not isinstance(space, spaces.Dict) or not {"proprio", "instruction"} < set(space):
        return f"the space is {space}"
    images = {name: found for name, found in space.items() if name not in ("proprio", "instruction")}
    wrong = [name for name, found in images.items() if found.dtype != np.uint8 or (found.shape or ())[2:] != (3,)]
    if wrong:
        return f"{wrong[0]!r} is {images[wrong[0]]}, no uint8 image (height, width, 3)"
    if not isinstance(space["instruction"], spaces.Text) or space["proprio"].dtype != np.float32:
        return f"proprio is {space['proprio']} and instruction is {space['instruction']}"
    cameras = getattr(getattr(case.env, "protocol", None), "cameras", tuple(images))
    return None if set(cameras) == set(images) else f"cameras {sorted(images)}, the protocol has {sorted(cameras)}"


def _observations_lie_in_the_declared_space(case: _Cells) -> str | None:
    space = case.env.observation_space
    for step, (obs, *_) in enumerate(case.first):
        wrong = [name for name in space if name not in obs or obs[name] not in space[name]] + [*(set(obs) - set(space))]
        if wrong:
            return f"after {step} steps {wrong[0]!r} is {obs.get(wrong[0], 'missing')!r}"
    return None


def _reset_tells_the_hash_of_the_initial_state(case: _Cells) -> str | None:
    one, other, again = (case.reset(which)[1].get("init_state_sha256") for which in (0, 1, 0))
    if not isinstance(one, str) or len(one) != 64 or set(one) - set("0123456789abcdef"):
        return f"info['init_state_sha256'] is {one!r}"
    if one != again:
        return f"one state has two hashes, {one} and {again}"
    return f"two states have the hash {one}" if one == other else None


def _every_step_tells_success_as_a_bool(case: _Cells) -> str | None:
    for step, (_, info, *_) in enumerate(case.first):
        if not isinstance(info.get("success"), bool):
            return f"after {step} steps info['success'] is {info.get('success', 'missing')!r}"
    return None


def _same_cell_and_same_actions_are_the_same_episode(case: _Cells) -> str | None:
    case.play(1)
    first, again = case.first, case.play()
    if len(first) != len(again):
        return f"it took {len(first) - 1} steps, then {len(again) - 1}"
    for step, (one, other) in enumerate(zip(first, again, strict=True)):
        differing = [name for name in one[0] if not _same(one[0][name], other[0][name])]
        if differing or not data_equivalence(one[1:], other[1:], exact=True):
            return f"after {step} steps {', '.join(differing) or 'info, reward or end'} differs, with another between"
    return None


def _an_action_that_is_not_finite_is_refused(case: _Cells) -> str | None:
    case.reset()
    space = case.env.action_space
    return _accepted(lambda: case.env.step(np.full(space.shape, np.nan, space.dtype)))


def _an_action_of_another_shape_is_refused(case: _Cells) -> str | None:
    case.reset()
    space = case.env.action_space
    return _accepted(lambda: case.env.step(np.zeros((*space.shape[:-1], space.shape[-1] + 1), space.dtype)))


def _a_step_after_the_end_is_refused(case: _Cells) -> str | None:
    case.reset()
    still = np.zeros(case.env.action_space.shape, case.env.action_space.dtype)
    for _ in range(N_STEPS_AT_MOST):
        _, _, terminated, truncated, _ = case.env.step(still)
        if terminated or truncated:
            return _accepted(lambda: case.env.step(still))
    return f"the episode goes on after {N_STEPS_AT_MOST} steps"


def _an_unknown_task_is_refused(case: _Cells) -> str | None:
    options = {"task": NOT_AN_INDEX, "init_state": case.init_states[0]}
    return _accepted(lambda: case.env.reset(seed=0, options=options))


def _an_unknown_initial_state_is_refused(case: _Cells) -> str | None:
    options = {"task": case.task, "init_state": NOT_AN_INDEX}
    return _accepted(lambda: case.env.reset(seed=0, options=options))


@dataclass(frozen=True)
class _Answer:
    before: Observation
    after: Observation
    chunk: ActionChunk


@dataclass(frozen=True)
class _Played:
    policy: Policy
    env: gymnasium.Env
    task: Task
    n_steps: int

    @cached_property
    def first(self) -> list[_Answer]:
        """Return the first episode of the policy's life, in which it cannot remember another."""
        return self.play()

    def play(self, seed: int = 0) -> list[_Answer]:
        """Return what the policy is given and answers; the first action of each chunk is applied."""
        obs, _ = self.env.reset(seed=seed, options={"task": self.task.index, "init_state": 0})
        self.policy.reset(self.task, seed)
        answers: list[_Answer] = []
        for _ in range(self.n_steps):
            seen = {key: obs[key] for key in (*self.cameras, "proprio", "instruction")}
            before = deepcopy(seen)
            chunk = self.policy.act(seen)
            self.policy.synchronize()
            answers.append(_Answer(before, seen, deepcopy(chunk)))
            if _chunk_fault(chunk, self.policy):
                break
            obs, _, terminated, truncated, _ = self.env.step(chunk.actions[0])
            if terminated or truncated:
                break
        return answers

    @property
    def cameras(self) -> Iterable[str]:
        known = [key for key in self.env.observation_space if key not in ("proprio", "instruction")]  # type: ignore[attr-defined]
        return known if self.policy.cameras is None else self.policy.cameras


def _a_policy_has_all_of_its_parts(case: _Played) -> str | None:
    missing = [name for name in dir(Policy) if not name.startswith("_") and not hasattr(case.policy, name)]
    return f"{missing[0]!r} is missing" if missing else None


def _cameras_are_among_the_environments(case: _Played) -> str | None:
    unknown = set(case.cameras) - set(case.env.observation_space)  # type: ignore[call-overload]
    return f"it reads {sorted(unknown)}" if unknown else None


def _act_leaves_the_observation_untouched(case: _Played) -> str | None:
    for step, answer in enumerate(case.first):
        keys = answer.before.keys() | answer.after.keys()
        changed = [key for key in keys if not _same(answer.before.get(key), answer.after.get(key))]
        if changed:
            return f"query {step} changed {changed[0]!r}"
    return None


def _actions_have_shape_n_by_size_and_keep_the_limits(case: _Played) -> str | None:
    faults = ((step, _chunk_fault(answer.chunk, case.policy)) for step, answer in enumerate(case.first))
    return next((f"query {step} {fault}" for step, fault in faults if fault), None)


def _costs_are_plain_numbers(case: _Played) -> str | None:
    for step, answer in enumerate(case.first):
        chunk = answer.chunk
        for name in ("rows_computed", "rows_reused"):
            if type(getattr(chunk, name)) not in (int, type(None)):
                return f"query {step} has {name}={getattr(chunk, name)!r}, no int or None"
        if not isinstance(chunk.stages_ms, Mapping):
            return f"query {step} has stages_ms={chunk.stages_ms!r}, no mapping"
        for name, ms in chunk.stages_ms.items():
            if type(name) is not str or not isinstance(ms, int | float) or not np.isfinite(ms):
                return f"query {step} has stages_ms[{name!r}]={ms!r}, no finite number"
    return None


def _reset_forgets(case: _Played) -> str | None:
    case.play(seed=1)
    return _first_difference(case.first, case.play(), "the same seed and observations, with an episode between")


def _name_and_fingerprint_do_not_change(case: _Played) -> str | None:
    before = (case.policy.name, case.policy.fingerprint)
    _ = case.first  # plays, and may change them
    after = (case.policy.name, case.policy.fingerprint)
    if not all(isinstance(word, str) and word for word in before):
        return f"they are {before}, no strings"
    return None if before == after else f"{before} became {after}"


@dataclass(frozen=True)
class _Wrapped:
    method: Method
    make_policy: Callable[[], Policy]
    env: gymnasium.Env
    task: Task
    exact: Method | None


def _name_makes_the_method_again(case: _Wrapped) -> str | None:
    known = registry.names("method")
    if any(part.partition(":")[0] not in known for part in case.method.name.split("+")):
        return None
    again = registry.method(case.method.name)
    same = type(again) is type(case.method) and again.name == case.method.name
    return None if same else f"the registry makes {again.name!r} ({type(again).__name__})"


def _the_policy_stays_what_it_says_it_is(case: _Wrapped) -> str | None:
    policy = case.make_policy()
    wrapped = case.method.apply(policy)
    for name in ("name", "action_spec", "cameras"):
        if getattr(wrapped, name) != getattr(policy, name):
            return f"{name} became {getattr(wrapped, name)!r}, was {getattr(policy, name)!r}"
    return None


def _the_exact_setting_changes_no_action(case: _Wrapped) -> str | None:
    if case.exact is None:
        return None
    policies = (case.make_policy(), case.exact.apply(case.make_policy()))
    for policy in policies:
        if isinstance(policy, PrivilegedPolicy):
            policy.attach(case.env)
    alone, wrapped = (_Played(policy, case.env, case.task, 20).play() for policy in policies)
    return _first_difference(alone, wrapped, f"{case.exact.name!r} against the policy alone")


def _hold(subject: str, case: Any, *promises: Callable[[Any], str | None]) -> None:
    for promise in promises:
        name = promise.__name__.replace("_", " ").strip()
        try:
            found = promise(case)
        except WRONG as caught:
            raise ContractError(subject, name, f"{type(caught).__name__}: {caught}") from caught
        if found is not None:
            raise ContractError(subject, name, found)


def _accepted(call: Callable[[], object]) -> str | None:
    """Return what happened instead of a `VlaBenchError`."""
    try:
        call()
    except VlaBenchError:
        return None
    except WRONG as caught:
        return f"{type(caught).__name__} instead of a VlaBenchError: {caught}"
    return "it was accepted"


def _chunk_fault(chunk: ActionChunk, policy: Policy) -> str | None:
    actions, spec = np.asarray(chunk.actions), policy.action_spec
    if actions.ndim != 2 or not len(actions) or actions.shape[1] != spec.size:
        return f"has actions of shape {actions.shape}, expected (n >= 1, {spec.size})"
    if not np.isfinite(actions).all():
        return "has an action that is not finite"
    inside = spec.low <= actions.min() and actions.max() <= spec.high
    return None if inside else f"has actions in [{actions.min()}, {actions.max()}], beyond [{spec.low}, {spec.high}]"


def _first_difference(one: list[_Answer], other: list[_Answer], what: str) -> str | None:
    for step, (a, b) in enumerate(zip(one, other, strict=False)):
        if not _same(np.asarray(a.chunk.actions), np.asarray(b.chunk.actions)):
            return f"query {step} answers differently: {what}"
    return None if len(one) == len(other) else f"{len(one)} and {len(other)} queries: {what}"


def _same(one: Any, other: Any) -> bool:
    """Tell whether two entries of an observation are equal to the last bit."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    return type(one) is type(other) and bool(one == other)
