"""What an environment promises."""

import warnings
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env, data_equivalence

from vla_bench.testing.promises import accepted, hold, same
from vla_bench.types import Observation

N_ENVIRONMENT_STEPS = 8
"""Steps over which two episodes of an environment are compared."""

N_STEPS_AT_MOST = 10_000
"""Steps after which an environment that has not ended its episode counts as endless."""

NOT_AN_INDEX = 10**6
"""Index that no suite has a task or an initial state for."""


def check_environment(env: gymnasium.Env, task: int = 0, init_states: tuple[int, int] = (0, 1)) -> None:
    """Hold an environment to its contract; one episode is played to its end.

    Hand it over with images drawn at once (`images="eager"`): Gymnasium's checker reads observations of the past.
    A protocol with a short horizon saves most of the time.

    Raises:
        ContractError: Naming the first promise that is broken.
    """
    case = _Cells(env.unwrapped, task, init_states)
    hold(
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
        differing = [name for name in one[0] if not same(one[0][name], other[0][name])]
        if differing or not data_equivalence(one[1:], other[1:], exact=True):
            return f"after {step} steps {', '.join(differing) or 'info, reward or end'} differs, with another between"
    return None


def _an_action_that_is_not_finite_is_refused(case: _Cells) -> str | None:
    case.reset()
    space = case.env.action_space
    return accepted(lambda: case.env.step(np.full(space.shape, np.nan, space.dtype)))


def _an_action_of_another_shape_is_refused(case: _Cells) -> str | None:
    case.reset()
    space = case.env.action_space
    return accepted(lambda: case.env.step(np.zeros((*space.shape[:-1], space.shape[-1] + 1), space.dtype)))


def _a_step_after_the_end_is_refused(case: _Cells) -> str | None:
    case.reset()
    still = np.zeros(case.env.action_space.shape, case.env.action_space.dtype)
    for _ in range(N_STEPS_AT_MOST):
        _, _, terminated, truncated, _ = case.env.step(still)
        if terminated or truncated:
            return accepted(lambda: case.env.step(still))
    return f"the episode goes on after {N_STEPS_AT_MOST} steps"


def _an_unknown_task_is_refused(case: _Cells) -> str | None:
    options = {"task": NOT_AN_INDEX, "init_state": case.init_states[0]}
    return accepted(lambda: case.env.reset(seed=0, options=options))


def _an_unknown_initial_state_is_refused(case: _Cells) -> str | None:
    options = {"task": case.task, "init_state": NOT_AN_INDEX}
    return accepted(lambda: case.env.reset(seed=0, options=options))
