"""The only loop that steps an environment, and the only clock."""

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from math import isfinite
from time import perf_counter, perf_counter_ns

import gymnasium
import numpy as np

from vla_bench.errors import ActionSpecMismatchError, OptionError
from vla_bench.policy import ActionChunk, Policy
from vla_bench.protocol import Protocol
from vla_bench.types import Cell, EpisodeRecord, Observation, Outcome, Query, Task, jerk_of

log = logging.getLogger(__name__)

WARMUP_QUERIES = 20
"""First queries of a method in a process that stay out of latency figures. Source: the measurement protocol of this
project: caches, allocators and frequency scaling settle within them."""


@dataclass
class Contestant:
    """A policy under one method, and how warm it is in this process."""

    method: str
    policy: Policy
    n_queries: int = 0

    def check(self, task: Task) -> None:
        """Refuse a policy whose actions mean something else than the task's.

        Raises:
            ActionSpecMismatchError: Naming every field that differs.
        """
        differences = self.policy.action_spec.differences(task.action_spec)
        if differences:
            raise ActionSpecMismatchError(self.policy.name, task.suite, differences)


@dataclass
class _Episode:
    """What is gathered while an episode runs."""

    n_steps: int = 0
    init_state_sha256: str = ""
    success: bool = False
    queries: list[Query] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)


def run_episode(
    env: gymnasium.Env, contestant: Contestant, task: Task, cell: Cell, protocol: Protocol, attempt: int = 1
) -> EpisodeRecord:
    """Play one episode and return its raw facts; whatever is raised inside becomes an outcome of its own.

    `KeyboardInterrupt` and `SystemExit` pass through: an episode in flight is not recorded.
    """
    start = perf_counter()
    episode = _Episode()
    error = None
    try:
        _play(env, contestant, task, cell, protocol, episode)
        outcome = Outcome.SUCCESS if episode.success else Outcome.TIMEOUT
    except Exception as caught:  # recorded, counted, shown and retried; see Outcome.ERROR
        log.exception("episode %s of %s ended in an error", cell, contestant.method)
        outcome, error = Outcome.ERROR, f"{type(caught).__name__}: {caught}"
    actions = np.array(episode.actions).reshape(-1, task.action_spec.size)
    return EpisodeRecord(
        suite=task.suite,
        method=contestant.method,
        policy=contestant.policy.name,
        cell=cell,
        outcome=outcome,
        n_steps=episode.n_steps,
        init_state_sha256=episode.init_state_sha256,
        protocol=str(protocol),
        path_m=float(np.linalg.norm(actions[:, :3], axis=1).sum() * task.action_spec.translation_m),
        jerk=jerk_of(actions),
        wall_s=perf_counter() - start,
        queries=tuple(episode.queries),
        error=error,
        attempt=attempt,
    )


def _play(
    env: gymnasium.Env, contestant: Contestant, task: Task, cell: Cell, protocol: Protocol, episode: _Episode
) -> None:
    policy = contestant.policy
    obs, info = env.reset(seed=cell.seed, options={"task": cell.task, "init_state": cell.init_state})
    episode.init_state_sha256 = info["init_state_sha256"]
    policy.reset(task, cell.seed)
    keys = observed_keys(policy, protocol)
    horizon = protocol.horizon(task.suite, task.horizon)
    while episode.n_steps < horizon and not episode.success:
        chunk, timing = _timed_query(policy, obs, keys)
        step = episode.n_steps
        applied_ns = perf_counter_ns()
        for action in islice(chunk.actions, horizon - step):  # the horizon may cut a chunk short
            obs, _, _, _, info = env.step(action)
            episode.actions.append(np.asarray(action, dtype=float))
            episode.n_steps += 1
            if info["success"]:
                episode.success = True
                break
        episode.queries.append(_query(contestant, episode, chunk, timing, step, perf_counter_ns() - applied_ns))
        contestant.n_queries += 1


def observed_keys(policy: Policy, protocol: Protocol) -> list[str]:
    """Return the entries of an observation that `policy` is given: an image it does not read is never rendered."""
    cameras = protocol.cameras if policy.cameras is None else policy.cameras
    missing = set(cameras) - set(protocol.cameras)
    if missing:
        expected = f"cameras of the protocol {protocol.name!r}: {', '.join(protocol.cameras)}"
        raise OptionError(f"what {policy.name!r} reads", sorted(missing), expected)
    return [*cameras, "proprio", "instruction"]


def _timed_query(policy: Policy, obs: Observation, keys: Iterable[str]) -> tuple[ActionChunk, tuple[float, ...]]:
    """Return the policy's answer, and [ms] the time to observe, to act, and both with what lies between them."""
    asked = perf_counter_ns()
    seen = {key: obs[key] for key in keys}
    observed = perf_counter_ns()
    policy.synchronize()
    start = perf_counter_ns()
    chunk = policy.act(seen)
    policy.synchronize()
    end = perf_counter_ns()
    if chunk.actions.ndim != 2 or not len(chunk.actions):
        raise ValueError(
            f"{policy.name!r} answered with actions of shape {chunk.actions.shape}; expected (n >= 1, size)"
        )
    return chunk, ((observed - asked) * 1e-6, (end - start) * 1e-6, (perf_counter_ns() - asked) * 1e-6)


def _finite(ms: float, stage: str) -> float:
    if not isfinite(ms):
        raise ValueError(f"the policy reports {ms} ms for its stage {stage!r}; expected a finite number")
    return float(ms)


def _query(
    contestant: Contestant, episode: _Episode, chunk: ActionChunk, timing: tuple[float, ...], step: int, apply_ns: int
) -> Query:
    observe_ms, policy_ms, step_ms = timing
    return Query(
        step=step,
        n_actions=len(chunk.actions),
        n_executed=episode.n_steps - step,
        observe_ms=observe_ms,
        policy_ms=policy_ms,
        step_ms=step_ms,
        apply_ms=apply_ns * 1e-6,
        is_first_step=step == 0,
        is_warmup=contestant.n_queries < WARMUP_QUERIES,
        rows_computed=None if chunk.rows_computed is None else int(chunk.rows_computed),
        rows_reused=None if chunk.rows_reused is None else int(chunk.rows_reused),
        stages_ms={str(stage): _finite(ms, stage) for stage, ms in chunk.stages_ms.items()},
        cache=json.loads(json.dumps(chunk.cache, allow_nan=False)) if chunk.cache else {},  # raises here, not later
    )
