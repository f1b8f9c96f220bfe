"""A crew on a node of a cluster: it plays what it is sent, and looks after its own processes."""

import os
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Event
from typing import Any, TypeVar

from vla_bench import provenance, registry
from vla_bench.errors import VlaBenchError
from vla_bench.parallel.crew import Crew, CrewOptions
from vla_bench.parallel.dealing import Ended, Turn
from vla_bench.plan import ResolvedPlan

T = TypeVar("T")

LOOK_EVERY_S = 0.05
"""Time that a turn may lie until the crew sees it."""


@dataclass(frozen=True)
class Opened:
    """What an outpost says about itself when it can begin, or why it cannot."""

    node: str
    """Name of the machine."""
    policy: str = ""
    conditions: Mapping[str, str] = field(default_factory=dict)
    """What must be equal between episodes that are compared."""
    installation: Mapping[str, str] = field(default_factory=dict)
    """Commit and packages."""
    problem: str = ""


@dataclass
class _Asked:
    """A turn that somebody waits for."""

    seat: int
    turn: Turn
    attempt: int
    ended: Future[Ended]


class Outpost:
    """Runs a crew in a thread of its own; every method may be called from any thread."""

    def __init__(self, plan: ResolvedPlan, options: CrewOptions, registered: dict[tuple[str, str], Any]) -> None:
        """Start nothing yet.

        Args:
            plan: What is played, in part here.
            options: Of the crew.
            registered: Policy and methods that a script has added.
        """
        registry.take(registered)
        self._plan, self._options = plan, options
        self._opened: Future[Opened] = Future()
        self._asked: SimpleQueue[_Asked] = SimpleQueue()
        self._left = Event()
        self._work: Future[None] | None = None

    def node(self) -> str:
        """Return the machine's name."""
        return os.uname().nodename

    def open(self) -> Opened:
        """Start the crew, and return what it is, or why it cannot begin."""
        self._work = ThreadPoolExecutor(1).submit(self._serve)
        try:
            return self._first(self._opened)
        except VlaBenchError as caught:
            return Opened(self.node(), problem=str(caught))

    def play(self, seat: int, turn: Turn, attempt: int) -> Ended:
        """Return how a turn came out that a free seat has played.

        Raises:
            CannotWorkError: If a process that died cannot be replaced.
        """
        asked = _Asked(seat, turn, attempt, Future())
        self._asked.put(asked)
        return self._first(asked.ended)

    def close(self) -> None:
        """End all processes of the crew."""
        self._left.set()
        if self._work is not None:
            wait([self._work])

    def _first(self, future: Future[T]) -> T:
        """Return the future's result, or raise what has ended the crew."""
        assert self._work is not None
        either: list[Future[Any]] = [future, self._work]
        wait(either, return_when=FIRST_COMPLETED)
        if not future.done():
            self._work.result()
        return future.result()

    def _serve(self) -> None:
        """Play until nobody wants more; the only thread that touches the crew."""
        waited_for: dict[int, _Asked] = {}
        with Crew(self._plan, self._options).at_work() as crew:
            conditions = crew.conditions()
            self._opened.set_result(Opened(self.node(), crew.policy()[0], conditions, installation()))
            while not self._left.is_set():
                while (asked := self._next()) is not None:
                    waited_for[asked.seat] = asked
                free = crew.free()
                for seat in waited_for.keys() & free:
                    crew.give(seat, waited_for[seat].turn, waited_for[seat].attempt)
                for ended in crew.look(LOOK_EVERY_S):
                    waited_for.pop(ended.seat).ended.set_result(ended)

    def _next(self) -> _Asked | None:
        try:
            return self._asked.get_nowait()
        except Empty:
            return None


def installation() -> dict[str, str]:
    """Return commit and packages of this process; uncommitted changes are left out, since they come and go."""
    return {"commit": provenance.commit().removesuffix("-dirty"), **provenance.packages()}
