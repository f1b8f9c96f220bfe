"""The only loop that steps an environment."""

import logging
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice
from time import perf_counter, perf_counter_ns

import gymnasium
import numpy as np

from vla_bench.contestant import Contestant
from vla_bench.errors import OptionError
from vla_bench.policy import Policy
from vla_bench.protocol import Protocol
from vla_bench.realtime.latency import Constant
from vla_bench.realtime.waiting import Realtime
from vla_bench.types import Cell, EpisodeRecord, Outcome, Query, Task, jerk_of

log = logging.getLogger(__name__)


@dataclass
class _Episode:
    """What is gathered while an episode runs."""

    n_steps: int = 0
    init_state_sha256: str = ""
    success: bool = False
    failed: bool = False
    """Whether the environment said that the episode cannot go on, as a robot does that was driven into a fault."""

    queries: list[Query] = field(default_factory=list)
    actions: list[np.ndarray] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        """Return whether no further step is to be taken."""
        return self.success or self.failed


def run_episode(
    env: gymnasium.Env, contestant: Contestant, task: Task, cell: Cell, protocol: Protocol, attempt: int = 1,
    realtime: Realtime | None = None,
) -> EpisodeRecord:  # fmt: skip
    """Play one episode and return its raw facts; whatever is raised inside becomes an outcome of its own.

    `KeyboardInterrupt` and `SystemExit` pass through: an episode in flight is not recorded.

    Args:
        env: Of the task's suite.
        contestant: Who plays.
        task: What.
        cell: From which start.
        protocol: Under which the environment was made.
        attempt: How often this was tried, this one included.
        realtime: Latency in the loop; None gives every answer at once.
    """
    start = perf_counter()
    episode = _Episode()
    error = None
    try:
        _play(env, contestant, task, cell, protocol, episode, realtime)
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
        division=realtime.division(contestant.division) if realtime else contestant.division,
        timed=contestant.timed,
        actions_sha256=sha256(np.ascontiguousarray(actions).tobytes()).hexdigest(),
    )


def _play(
    env: gymnasium.Env, contestant: Contestant, task: Task, cell: Cell, protocol: Protocol, episode: _Episode,
    realtime: Realtime | None,
) -> None:  # fmt: skip
    policy = contestant.policy
    obs, info = env.reset(seed=cell.seed, options={"task": cell.task, "init_state": cell.init_state})
    episode.init_state_sha256 = info["init_state_sha256"]
    policy.reset(task, cell.policy_seed)
    keys = observed_keys(policy, protocol)
    horizon = protocol.horizon(task.suite, task.horizon)
    clock = realtime or Realtime(Constant(0.0))
    loop = clock.loop(contestant.method, task.action_spec, 1e3 / protocol.control_hz, cell.policy_seed)
    loop.begin(protocol)
    while episode.n_steps < horizon and not episode.is_over:
        answer = contestant.ask(obs, keys)
        step = episode.n_steps
        applied_ns = perf_counter_ns()
        n_answered = 0
        for action, is_answer in islice(loop.actions(answer), horizon - step):  # the horizon may cut a chunk short
            obs, _, _, _, info = env.step(action)
            episode.actions.append(action)
            episode.n_steps += 1
            n_answered += is_answer
            episode.success, episode.failed = bool(info["success"]), bool(info.get("failed"))
            if episode.is_over:
                break
        applied_ms = (perf_counter_ns() - applied_ns) * 1e-6
        n_waited = episode.n_steps - step - n_answered
        charged_ms = loop.charged_ms if realtime else 0.0
        episode.queries.append(answer.query(step, n_answered, applied_ms, charged_ms, n_waited))


def observed_keys(policy: Policy, protocol: Protocol) -> list[str]:
    """Return the entries of an observation that `policy` is given: an image it does not read is never rendered."""
    cameras = protocol.cameras if policy.cameras is None else policy.cameras
    missing = set(cameras) - set(protocol.cameras)
    if missing:
        expected = f"cameras of the protocol {protocol.name!r}: {', '.join(protocol.cameras)}"
        raise OptionError(f"what {policy.name!r} reads", sorted(missing), expected)
    return [*cameras, "proprio", "instruction"]
