"""What a policy promises."""

import json
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property

import gymnasium
import numpy as np

from vla_bench.policy import ActionChunk, Policy, PrivilegedPolicy
from vla_bench.testing.promises import hold, same
from vla_bench.types import Observation, Task


def check_policy(policy: Policy, env: gymnasium.Env, task: Task, n_steps: int = 20) -> None:
    """Hold a policy to its contract, over three episodes of at most `n_steps` queries.

    Raises:
        ContractError: Naming the first promise that is broken.
    """
    if isinstance(policy, PrivilegedPolicy):
        policy.attach(env)
    case = Played(policy, env, task, n_steps)
    hold(
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


@dataclass(frozen=True)
class Answer:
    """What a policy was given, what it left of it, and what it said."""

    before: Observation
    after: Observation
    chunk: ActionChunk


@dataclass(frozen=True)
class Played:
    """A policy in front of an environment and a task."""

    policy: Policy
    env: gymnasium.Env
    task: Task
    n_steps: int

    @cached_property
    def first(self) -> list[Answer]:
        """Return the first episode of the policy's life, in which it cannot remember another."""
        return self.play()

    def play(self, seed: int = 0) -> list[Answer]:
        """Return what the policy is given and answers; the first action of each chunk is applied."""
        obs, _ = self.env.reset(seed=seed, options={"task": self.task.index, "init_state": 0})
        self.policy.reset(self.task, seed)
        answers: list[Answer] = []
        for _ in range(self.n_steps):
            seen = {key: obs[key] for key in (*self.cameras, "proprio", "instruction")}
            before = deepcopy(seen)
            chunk = self.policy.act(seen)
            self.policy.synchronize()
            answers.append(Answer(before, seen, deepcopy(chunk)))
            if _chunk_fault(chunk, self.policy):
                break
            obs, _, terminated, truncated, _ = self.env.step(chunk.actions[0])
            if terminated or truncated:
                break
        return answers

    @property
    def cameras(self) -> Iterable[str]:
        """Return the images that the policy is given."""
        known = [key for key in self.env.observation_space if key not in ("proprio", "instruction")]  # type: ignore[attr-defined]
        return known if self.policy.cameras is None else self.policy.cameras


def _a_policy_has_all_of_its_parts(case: Played) -> str | None:
    missing = [name for name in dir(Policy) if not name.startswith("_") and not hasattr(case.policy, name)]
    return f"{missing[0]!r} is missing" if missing else None


def _cameras_are_among_the_environments(case: Played) -> str | None:
    unknown = set(case.cameras) - set(case.env.observation_space)  # type: ignore[call-overload]
    return f"it reads {sorted(unknown)}" if unknown else None


def _act_leaves_the_observation_untouched(case: Played) -> str | None:
    for step, answer in enumerate(case.first):
        keys = answer.before.keys() | answer.after.keys()
        changed = [key for key in keys if not same(answer.before.get(key), answer.after.get(key))]
        if changed:
            return f"query {step} changed {changed[0]!r}"
    return None


def _actions_have_shape_n_by_size_and_keep_the_limits(case: Played) -> str | None:
    faults = ((step, _chunk_fault(answer.chunk, case.policy)) for step, answer in enumerate(case.first))
    return next((f"query {step} {fault}" for step, fault in faults if fault), None)


def _costs_are_plain_numbers(case: Played) -> str | None:
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
        try:
            json.dumps(chunk.cache, allow_nan=False)
        except (TypeError, ValueError) as caught:
            return f"query {step} has cache={chunk.cache!r}, which is no JSON ({caught})"
    return None


def _reset_forgets(case: Played) -> str | None:
    case.play(seed=1)
    return first_difference(case.first, case.play(), "the same seed and observations, with an episode between")


def _name_and_fingerprint_do_not_change(case: Played) -> str | None:
    before = (case.policy.name, case.policy.fingerprint)
    _ = case.first  # plays, and may change them
    after = (case.policy.name, case.policy.fingerprint)
    if not all(isinstance(word, str) and word for word in before):
        return f"they are {before}, no strings"
    return None if before == after else f"{before} became {after}"


def _chunk_fault(chunk: ActionChunk, policy: Policy) -> str | None:
    actions, spec = np.asarray(chunk.actions), policy.action_spec
    if actions.ndim != 2 or not len(actions) or actions.shape[1] != spec.size:
        return f"has actions of shape {actions.shape}, expected (n >= 1, {spec.size})"
    if not np.isfinite(actions).all():
        return "has an action that is not finite"
    inside = spec.low <= actions.min() and actions.max() <= spec.high
    return None if inside else f"has actions in [{actions.min()}, {actions.max()}], beyond [{spec.low}, {spec.high}]"


def first_difference(one: list[Answer], other: list[Answer], what: str) -> str | None:
    """Return the first query at which two episodes of answers part, or None."""
    for step, (a, b) in enumerate(zip(one, other, strict=False)):
        if not same(np.asarray(a.chunk.actions), np.asarray(b.chunk.actions)):
            return f"query {step} answers differently: {what}"
    return None if len(one) == len(other) else f"{len(one)} and {len(other)} queries: {what}"
