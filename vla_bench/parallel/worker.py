"""The process that holds an environment and plays one episode after the other."""

from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import gymnasium

from vla_bench import registry
from vla_bench.contestant import Contestant
from vla_bench.errors import VlaBenchError
from vla_bench.parallel.exchange import Exchange
from vla_bench.parallel.heart import Heart
from vla_bench.parallel.seat import Character, SeatPolicy
from vla_bench.policy import PrivilegedPolicy
from vla_bench.protocol import Protocol
from vla_bench.realtime.waiting import Realtime
from vla_bench.rollout import run_episode
from vla_bench.suite import Suite
from vla_bench.types import Task


@dataclass(frozen=True)
class WorkerJob:
    """All that a worker must know."""

    suite: Suite
    protocol: Protocol
    tasks: tuple[Task, ...]
    policy: str
    methods: tuple[str, ...]
    registered: dict[tuple[str, str], Any]
    """Policy and methods that a script has added."""
    crew: Connection
    heart: Heart
    link: Connection | None = None
    """To the desk; without one the worker loads the policy itself."""
    exchange: Exchange | None = None
    character: Character | None = None
    realtime: Realtime | None = None
    divisions: tuple[tuple[str, str], ...] = ()
    """Of each method, as the desk has found them."""
    timed: bool = False
    """Whether times mean anything: only if nothing else runs beside."""


def work(job: WorkerJob) -> None:
    """Make the environment, say so, and play what the crew sends until it is gone."""
    job.heart.listen()
    registry.take(job.registered)
    job.heart.beat()
    try:
        policy, contestants = _contestants(job)
        env = job.suite.make(job.protocol)
    except VlaBenchError as caught:
        job.crew.send(("cannot", str(caught)))
        return
    tasks = {task.index: task for task in job.tasks}
    beating = _Beating(env, job.heart)
    if isinstance(policy, PrivilegedPolicy):
        policy.attach(env)
    job.heart.rest()
    job.crew.send(("ready", (policy.name, policy.fingerprint)))
    try:
        while True:
            method, cell, attempt = job.crew.recv()
            job.heart.beat()
            task = tasks[cell.task]
            record = run_episode(beating, contestants[method], task, cell, job.protocol, attempt, job.realtime)
            job.heart.rest()
            job.crew.send(("record", record))
    except (EOFError, ConnectionError):
        pass  # the crew is gone, or has no more to play
    finally:
        env.close()


def _contestants(job: WorkerJob) -> tuple[Any, dict[str, Contestant]]:
    """Return the policy, and what plays under each method."""
    if job.link is None:
        policy = registry.policy(job.policy)
        contestants = {method: Contestant.of(method, policy, job.timed) for method in job.methods}
    else:
        assert job.character is not None
        assert job.exchange is not None
        seats = {method: SeatPolicy(method, job.character, job.link, job.exchange) for method in job.methods}
        policy = next(iter(seats.values()))
        divisions = dict(job.divisions)
        contestants = {
            method: Contestant(method, seat, division=divisions[method], timed=False) for method, seat in seats.items()
        }
    for contestant in contestants.values():
        contestant.check(job.tasks[0])
    return policy, contestants


class _Beating(gymnasium.Wrapper):
    """An environment that shows life after every step."""

    def __init__(self, env: gymnasium.Env, heart: Heart) -> None:
        super().__init__(env)
        self._heart = heart

    def reset(self, **options: Any) -> Any:
        """Reset, and show life."""
        found = self.env.reset(**options)
        self._heart.beat()
        return found

    def step(self, action: Any) -> Any:
        """Step, and show life."""
        found = self.env.step(action)
        self._heart.beat()
        return found
