"""Processes that play the expert, a task each: spawned, since what draws does not survive a fork."""

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from vla_bench import registry
from vla_bench.errors import VlaBenchError
from vla_bench.protocol import Protocol
from vla_bench.types import Task
from vla_bench_envs.demonstrations.attempts import Shelf
from vla_bench_envs.demonstrations.driver import Driver
from vla_bench_envs.demonstrations.leads import LONGEST, Lead
from vla_bench_envs.demonstrations.pushes import Pushes
from vla_bench_envs.demonstrations.recording import record
from vla_bench_envs.demonstrations.source import source_of
from vla_bench_envs.demonstrations.visits import Visitor

RUN_ON_S = 3.0
"""Simulated time beyond the task's horizon that a plan may take: release and retreat come after success."""

_CANNOT = 3
"""Exit code of a process that has said what the user can mend."""


class CollectorError(VlaBenchError):
    """Report that a process which plays the expert has ended before its work was done."""

    def __init__(self, task: str, reason: str) -> None:
        super().__init__(
            f"collecting {task!r} stopped: {reason}; every demonstration before is safe: "
            f"mend it, then run the same command again to go on"
        )


@dataclass(frozen=True)
class Job:
    """All that a process must know to collect demonstrations of a task."""

    directory: Path
    task: Task
    episodes: int
    protocol: Protocol
    seed: int
    pushes_hz: float = 0.0
    driver: Driver | None = None
    """Moves the arm instead of the expert."""
    lead: Driver | None = None
    """Moves the arm before the expert."""


def collect_task(job: Job) -> None:
    """Try one initial state after the other until the task has its demonstrations or is given up."""
    shelf = Shelf(job.directory, job.task.index)
    source, rate_hz = source_of(registry.suite(job.task.suite)), job.task.control_hz
    run_on = 0 if job.driver else round(RUN_ON_S * rate_hz)
    run_on += LONGEST if job.lead else 0
    horizon = job.protocol.horizon(job.task.suite, job.task.horizon) + run_on
    longer = replace(job.protocol, horizons=((job.task.suite, horizon),))
    parent = os.getppid()
    visitor = Visitor(job.driver) if job.driver else None
    lead = Lead(job.lead) if job.lead else None
    with source.stand(job.task, longer, job.seed) as stand, shelf.alone():
        while not shelf.done(job.episodes) and os.getppid() == parent:  # without its parent it stops
            index = len(shelf.attempts)
            state = stand.states.draw(index)
            if visitor:
                recording = visitor.visit(stand, job.task, state, index)
            else:
                pushes = Pushes(job.pushes_hz, rate_hz, stand.states.generator(index, "pushes"), source.push)
                led = (lead, stand.states.generator(index, "lead")) if lead else None
                recording = record(stand, job.task, state, job.seed, pushes, led)
            shelf.add(recording, round(rate_hz))


class Crew:
    """As many processes as are wanted at a time, a job each."""

    def __init__(self, jobs: Sequence[Job], n_workers: int) -> None:
        """Start nothing yet."""
        self._waiting = list(jobs)
        self._n_workers = n_workers
        self._running: list[tuple[Job, Any, Any]] = []
        self._context = multiprocessing.get_context("spawn")

    @property
    def busy(self) -> bool:
        """Return whether a job waits or runs."""
        return bool(self._waiting or self._running)

    def advance(self, seconds: float) -> None:
        """Start what can be started and wait until a process ends, at most that long.

        Raises:
            CollectorError: If a process ended before its job was done.
        """
        while self._waiting and len(self._running) < self._n_workers:
            self._start(self._waiting.pop(0))
        wait([process.sentinel for _, process, _ in self._running], timeout=seconds)
        for entry in [entry for entry in self._running if not entry[1].is_alive()]:
            self._running.remove(entry)
            self._check(*entry)

    @contextmanager
    def at_work(self) -> Iterator["Crew"]:
        """Leave no process behind, however the block ends."""
        try:
            yield self
        finally:
            for _, process, _ in self._running:
                process.terminate()
            for _, process, _ in self._running:
                process.join()

    def _start(self, job: Job) -> None:
        source_of(registry.suite(job.task.suite)).prepare()  # children inherit what is set here
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_work, args=(job, sender), daemon=True)
        process.start()
        sender.close()
        self._running.append((job, process, receiver))

    def _check(self, job: Job, process: Any, receiver: Any) -> None:
        code = process.exitcode
        try:
            if code == _CANNOT:
                raise CollectorError(job.task.name, receiver.recv())
            if code and code < 0:
                raise CollectorError(job.task.name, f"signal {-code} ended its process (out of memory? It needs 2 GB)")
            if code:
                raise CollectorError(job.task.name, f"its process ended with code {code}, for the reason above")
        finally:
            receiver.close()
            process.close()


def _work(job: Job, sender: Any) -> None:
    try:
        collect_task(job)
    except VlaBenchError as caught:
        sender.send(str(caught))
        raise SystemExit(_CANNOT) from None
    except KeyboardInterrupt:
        raise SystemExit(1) from None
