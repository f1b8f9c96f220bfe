"""Processes that play on this machine, and what happens when one of them dies."""

import os
import pickle
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from threading import current_thread, main_thread
from time import perf_counter
from typing import Any

from vla_bench import provenance, registry
from vla_bench.errors import VlaBenchError
from vla_bench.parallel.dealing import Ended, Turn, lost_record
from vla_bench.parallel.desk import DeskJob, serve
from vla_bench.parallel.exchange import Exchange
from vla_bench.parallel.heart import Heart
from vla_bench.parallel.seat import Character
from vla_bench.parallel.worker import WorkerJob, work
from vla_bench.plan import ResolvedPlan

LOOK_EVERY_S = 0.5
"""Time between two looks at who is still alive."""

BEGIN_S = 900.0
"""Time that a process may take to begin, if it may not even be silent for longer: imports, weights of a 7B model from a
slow disk, scenes. Choice."""


class CannotWorkError(VlaBenchError):
    """Pass on why a process cannot begin."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


@dataclass(frozen=True)
class CrewOptions:
    """How a plan is played in parallel."""

    workers: int = 2
    """Environments, each in a process."""

    share: bool | None = None
    """Whether one process holds the policy and answers all workers in batches; None does so if the policy can be
    shared. Otherwise each worker loads it."""

    stall_s: float = 300.0
    """Time without a control step, or for one answer, after which a process counts as hung: it writes its stacks and is
    replaced. To begin, it may take `BEGIN_S`."""

    @property
    def begin_s(self) -> float:
        """Return the time after which a process that has not begun counts as hung."""
        return max(self.stall_s, BEGIN_S)


@dataclass
class _Hand:
    """A worker, and what it plays."""

    process: BaseProcess
    crew: Connection
    heart: Heart
    ready: bool = False
    gone: bool = False
    turn: Turn | None = None
    attempt: int = 1
    began: float = 0.0


@dataclass
class _Front:
    """The desk, as the crew sees it."""

    process: BaseProcess
    link: Connection
    heart: Heart
    character: Character
    divisions: tuple[tuple[str, str], ...]


@dataclass
class Crew:
    """`Hands` on this machine, a process each; leave none behind by `at_work`."""

    plan: ResolvedPlan
    options: CrewOptions
    _context: SpawnContext = field(default_factory=lambda: get_context("spawn"), init=False)
    _hands: list[_Hand] = field(default_factory=list, init=False)
    _desk: _Front | None = field(default=None, init=False)
    _seats: list[tuple[Connection, Connection, Exchange]] = field(default_factory=list, init=False)
    """Of each worker: its end of the pipe to the desk, the desk's end, and where its pictures lie."""
    _played_by: tuple[str, str] | None = field(default=None, init=False)
    """Name and fingerprint of the policy."""
    _ended: list[Ended] = field(default_factory=list, init=False)
    """What the next look returns."""

    @contextmanager
    def at_work(self) -> Iterator["Crew"]:
        """Start the desk; end all processes however the block ends."""
        with tempfile.TemporaryDirectory(prefix="vla-bench-") as folder, _few_threads(self.options.workers):
            self._folder = Path(folder)
            try:
                self._open()
                yield self
            finally:
                for one in [*self._hands, *([self._desk] if self._desk else [])]:
                    one.process.kill()
                    one.process.join()

    def policy(self) -> tuple[str, str]:
        """Return the policy's name and fingerprint, as the first process has said.

        Raises:
            CannotWorkError: If a process cannot make its environment or policy.
        """
        while self._played_by is None:
            self._look(LOOK_EVERY_S)
        return self._played_by

    def conditions(self) -> dict[str, str]:
        """Return what must be equal between episodes that are compared; a fixed episode is played for it.

        Raises:
            CannotWorkError: If a process cannot make its environment or policy.
        """
        physics = self.plan.suite.fingerprint(self.plan.protocol)
        return provenance.conditions(str(self.plan.protocol), self.policy()[1], physics) | self.plan.clock

    def free(self) -> list[int]:
        """Return the seats that wait for a turn."""
        return [seat for seat, hand in enumerate(self._hands) if hand.ready and hand.turn is None]

    def give(self, seat: int, turn: Turn, attempt: int) -> None:
        """Let a free seat play."""
        hand, (cell, method) = self._hands[seat], turn
        hand.turn, hand.attempt, hand.began = turn, attempt, perf_counter()
        with suppress(OSError):  # it has died: the next look finds it
            hand.crew.send((method, cell, attempt))

    def look(self, wait_s: float = LOOK_EVERY_S) -> list[Ended]:
        """Wait a moment, replace who has died or hangs, and return what has ended.

        Raises:
            CannotWorkError: If a process cannot make its environment or policy.
        """
        self._look(wait_s)
        ended, self._ended = self._ended, []
        return ended

    def _open(self) -> None:
        self._added = sendable(registry.registered(self.plan.policy, self.plan.methods))
        if self.options.share is not False:
            for _ in range(self.options.workers):
                self._seats.append((*self._context.Pipe(), Exchange(self._context, self.plan.protocol)))
            self._desk = self._opened_desk()
            if self._desk is None:
                self._seats = []
        self._hands = [self._hired(seat) for seat in range(self.options.workers)]

    def _opened_desk(self) -> _Front | None:
        """Start the process that holds the policy, and wait until it does; None if the policy cannot be shared."""
        here, there = self._context.Pipe()
        heart = Heart(self._context, self._folder / "desk.stacks")
        seats = tuple((desk_end, exchange) for _, desk_end, exchange in self._seats)
        job = DeskJob(self.plan.policy, self.plan.methods, self._added, self.plan.tasks[0], seats, there, heart)
        process = self._started(serve, job)
        there.close()
        if not here.poll(self.options.begin_s):
            shown = self._hung(process, heart, self.options.begin_s)
            process.kill()
            process.join()
            raise CannotWorkError(f"the policy's process {shown}, before it could begin")
        try:
            kind, found = here.recv()
        except EOFError:
            raise CannotWorkError(f"the policy's process {_end_of(process)} before it could begin") from None
        if kind == "unshared" and self.options.share is None:
            process.join()
            return None
        if kind != "ready":
            raise CannotWorkError(found)
        character, divisions = found
        self._played_by = character.name, character.fingerprint
        return _Front(process, here, heart, character, tuple(divisions.items()))

    def _hired(self, seat: int) -> _Hand:
        """Return a worker that has just been started."""
        plan, (here, there) = self.plan, self._context.Pipe()
        heart = Heart(self._context, self._folder / f"worker-{seat}.stacks")
        link, exchange = (self._seats[seat][0], self._seats[seat][2]) if self._seats else (None, None)
        job = WorkerJob(
            plan.suite, plan.protocol, plan.tasks, plan.policy, plan.methods, self._added, there, heart, link, exchange,
            self._desk and self._desk.character, plan.realtime, self._desk.divisions if self._desk else (),
            timed=plan.timed,
        )  # fmt: skip
        process = self._started(work, job)
        there.close()
        return _Hand(process, here, heart)

    def _started(self, main: Callable[[Any], None], job: Any) -> BaseProcess:
        """Return a process that leaves interrupts to this one, from its first moment on: it inherits being deaf."""
        process = self._context.Process(target=main, args=(job,), daemon=True)
        if current_thread() is not main_thread():
            process.start()
            return process
        heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            process.start()
        finally:
            signal.signal(signal.SIGINT, heard)
        return process

    def _look(self, wait_s: float) -> None:
        """Take what the workers send; replace who has died or hangs."""
        links: dict[Any, int] = {hand.crew: seat for seat, hand in enumerate(self._hands)}
        for link in wait(list(links), wait_s):
            self._take(links[link])
        if self._desk is not None:
            self._watch(self._desk)
        for seat, hand in enumerate(self._hands):
            if hand.gone:
                self._replace(seat, "its worker " + _end_of(hand.process))
            elif hand.heart.silent_s > (self.options.stall_s if hand.ready else self.options.begin_s):
                self._replace(seat, "its worker " + self._hung(hand.process, hand.heart, hand.heart.silent_s))

    def _take(self, seat: int) -> None:
        hand = self._hands[seat]
        try:
            kind, found = hand.crew.recv()
        except (EOFError, OSError):
            hand.gone = True
            return
        if kind == "cannot":
            raise CannotWorkError(found)
        if kind == "ready":
            hand.ready, self._played_by = True, self._played_by or found
            return
        hand.turn = None
        self._ended.append(Ended(seat, found))

    def _watch(self, desk: _Front) -> None:
        """Replace a desk that has died or hangs, and all workers: some wait for its answer."""
        if desk.process.is_alive() and desk.heart.silent_s <= self.options.stall_s:
            return
        dead = not desk.process.is_alive()
        reason = _end_of(desk.process) if dead else self._hung(desk.process, desk.heart, desk.heart.silent_s)
        for one in (desk, *self._hands):
            one.process.kill()
            one.process.join()
        # questions to the old desk must not reach the new one
        self._seats = [(*self._context.Pipe(), exchange) for _, _, exchange in self._seats]
        self._desk = self._opened_desk()
        for seat in range(len(self._hands)):
            self._replace(seat, f"the policy's process {reason}", begun=self._played_by is not None)

    def _hung(self, process: BaseProcess, heart: Heart, silent_s: float) -> str:
        return f"showed no life for {silent_s:.0f} s and was ended; its stacks:\n{heart.stacks(process.pid or 0)}"

    def _replace(self, seat: int, reason: str, begun: bool = False) -> None:
        """Start another worker; what the old one played is lost.

        Args:
            seat: Whose.
            reason: For the record of what is lost.
            begun: Whether it is no fault of the worker's if it was not ready yet.
        """
        hand = self._hands[seat]
        hand.process.kill()
        hand.process.join()
        if not (hand.ready or begun):
            raise CannotWorkError(f"{reason}, before it could begin: play with --workers 1 to see why")
        self._hands[seat] = self._hired(seat)
        if hand.turn is not None:
            assert self._played_by is not None
            wall_s = perf_counter() - hand.began
            record = lost_record(self.plan, self._played_by[0], hand.turn, hand.attempt, wall_s, reason)
            self._ended.append(Ended(seat, record, lost=True))


def sendable(added: dict[tuple[str, str], Any]) -> dict[tuple[str, str], Any]:
    """Return what a script has registered, or say why another process cannot have it."""
    for (kind, name), item in added.items():
        try:
            pickle.dumps(item)
        except (pickle.PicklingError, AttributeError, TypeError) as caught:
            raise CannotWorkError(
                f"the {kind} {name!r} was registered as something that no other process can have ({caught}); expected "
                f"a class or function at the top of a module"
            ) from None
    return added


def _end_of(process: BaseProcess) -> str:
    process.join()
    code = process.exitcode or 0
    return f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"


@contextmanager
def _few_threads(workers: int) -> Iterator[None]:
    """Let processes that are started within share the cores: libraries take all of them otherwise."""
    each = str(max(1, (os.cpu_count() or 1) // workers))
    before = dict(os.environ)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "LP_NUM_THREADS"):
        os.environ.setdefault(name, each)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
