"""Seats on other nodes: Ray says where a crew finds room, and when one is lost."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from vla_bench import provenance, registry
from vla_bench.cluster.errors import LostCrewError, NoClusterError, NoRoomError, OtherNodeError
from vla_bench.cluster.options import FleetOptions
from vla_bench.cluster.outpost import Opened, Outpost, installation
from vla_bench.errors import VlaBenchError
from vla_bench.parallel.crew import CannotWorkError, sendable
from vla_bench.parallel.dealing import Ended, Turn, lost_record
from vla_bench.plan import ResolvedPlan

LOOK_EVERY_S = 0.5
"""Time between two looks at what has ended."""

CONNECT_S = 10.0
"""Time within which a cluster's first node must answer."""

ROOM_S = 120.0
"""Time within which some node must have room for a crew: as long as a cluster that grows takes for a node."""

LOST_IN_A_ROW = 3
"""Crews that may be lost before they could begin until the run stops."""

FAREWELL_S = 10.0
"""Time that crews are given to end their processes."""


@dataclass
class _Task:
    """A turn on its way."""

    turn: Turn
    attempt: int
    began: float


@dataclass
class _Post:
    """A crew on a node, as the fleet sees it."""

    actor: Any
    placed: Any
    """Reference to the name of its node, which comes when it has found one."""
    opening: Any
    """Reference to what it says when it can begin."""
    node: str = ""
    opened: bool = False
    playing: dict[int, _Task] = field(default_factory=dict)
    """By seat of the crew."""
    answers: dict[Any, int] = field(default_factory=dict)
    """Seat of each reference that is waited for."""

    @property
    def awaited(self) -> list[Any]:
        """Return the references that something may come of."""
        first = [self.placed] if not self.node else [] if self.opened else [self.opening]
        return [*first, *self.answers]


@dataclass
class Fleet:
    """`Hands` on other nodes; leave no crew behind by `at_work`. Seat i is seat i mod k of crew i div k."""

    plan: ResolvedPlan
    options: FleetOptions
    _posts: list[_Post] = field(default_factory=list, init=False)
    _first: Opened | None = field(default=None, init=False)
    """What the first crew has said: all others must say the same."""
    _lost_in_a_row: int = field(default=0, init=False)
    _ended: list[Ended] = field(default_factory=list, init=False)
    """What the next look returns."""

    @contextmanager
    def at_work(self) -> Iterator["Fleet"]:
        """Connect and ask for crews; let all of them go however the block ends.

        Raises:
            NoClusterError: If nobody answers at the address.
            CannotWorkError: If what a script has registered cannot be sent.
        """
        self._added = sendable(registry.registered(self.plan.policy, self.plan.methods))
        with _connected(self.options.address):
            try:
                self._began = monotonic()
                self._posts = [self._asked_for() for _ in range(self.options.crews)]
                yield self
            finally:
                self._let_go()

    def conditions(self) -> dict[str, str]:
        """Return what must be equal between episodes that are compared, as the first crew has found it.

        Raises:
            CannotWorkError: If a crew cannot begin.
            NoRoomError: If no node can take one.
        """
        while self._first is None:
            self._look()
        return dict(self._first.conditions)

    def free(self) -> list[int]:
        """Return the seats that wait for a turn."""
        n = self.options.crew.workers
        return [
            index * n + seat
            for index, post in enumerate(self._posts)
            if post.opened
            for seat in range(n)
            if seat not in post.playing
        ]

    def give(self, seat: int, turn: Turn, attempt: int) -> None:
        """Let a free seat play."""
        index, own = divmod(seat, self.options.crew.workers)
        post = self._posts[index]
        post.playing[own] = _Task(turn, attempt, monotonic())
        post.answers[post.actor.play.remote(own, turn, attempt)] = own

    def look(self) -> list[Ended]:
        """Wait a moment, replace crews that were lost, and return what has ended.

        Raises:
            CannotWorkError: If a crew cannot begin.
            OtherNodeError: If a node would play under other conditions than the first.
            NoRoomError: If no node can take a crew.
            LostCrewError: If one crew after the other is lost before it can begin.
        """
        self._look()
        ended, self._ended = self._ended, []
        return ended

    def _asked_for(self) -> _Post:
        """Return a crew that has just been asked for; Ray looks for a node with room."""
        actor: Any = ray.remote(Outpost).options(
            num_cpus=self.options.crew.workers, num_gpus=self.options.gpus, scheduling_strategy="SPREAD",
            max_concurrency=self.options.crew.workers + 3, runtime_env={"env_vars": _variables()},
        ).remote(self.plan, self.options.crew, self._added)  # fmt: skip
        return _Post(actor, actor.node.remote(), actor.open.remote())

    def _look(self) -> None:
        awaited = {reference: index for index, post in enumerate(self._posts) for reference in post.awaited}
        ready, _ = ray.wait(list(awaited), num_returns=1, timeout=LOOK_EVERY_S)
        if ready:
            ready, _ = ray.wait(list(awaited), num_returns=len(awaited), timeout=0)
        lost: dict[int, RayError] = {}
        for reference in ready:
            try:
                self._take(awaited[reference], reference, ray.get(reference))
            except RayTaskError as caught:  # it was raised over there: ours to pass on, or a bug
                if isinstance(caught.cause, VlaBenchError):
                    raise CannotWorkError(str(caught.cause)) from None
                raise
            except RayError as caught:
                lost[awaited[reference]] = caught
        for index, caught in lost.items():
            self._replace(index, caught)
        self._check_room()

    def _take(self, index: int, reference: Any, found: Any) -> None:
        post = self._posts[index]
        if reference == post.placed:
            post.node = found
        elif reference == post.opening:
            self._check(found)
            post.opened, self._lost_in_a_row = True, 0
        else:
            own = post.answers.pop(reference)
            del post.playing[own]
            self._ended.append(Ended(index * self.options.crew.workers + own, found.record, found.lost))

    def _check(self, found: Opened) -> None:
        """Refuse a crew that cannot begin, or whose node is of another kind than the first."""
        if found.problem:
            raise CannotWorkError(f"{found.problem} (on node {found.node})")
        self._first = self._first or found
        differing = [
            *provenance.differences(installation(), found.installation),
            *provenance.differences(self._first.conditions, found.conditions),
        ]
        if differing:
            raise OtherNodeError(found.node, differing)

    def _replace(self, index: int, caught: RayError) -> None:
        """Ask for another crew; what the old one had in hand is lost."""
        post = self._posts[index]
        ray.kill(post.actor)
        said = str(caught).strip().partition("\n")[0]
        reason = f"its crew on node {post.node or 'unknown'} was lost ({type(caught).__name__}: {said})"
        if not post.opened:
            self._lost_in_a_row += 1
            if self._lost_in_a_row == LOST_IN_A_ROW:
                raise LostCrewError(LOST_IN_A_ROW, reason)
        name = self._first.policy if self._first else self.plan.policy
        for own, task in post.playing.items():
            record = lost_record(self.plan, name, task.turn, task.attempt, monotonic() - task.began, reason)
            self._ended.append(Ended(index * self.options.crew.workers + own, record, lost=True))
        self._posts[index] = self._asked_for()

    def _let_go(self) -> None:
        leaving = [post.actor.close.remote() for post in self._posts if post.opened]
        if leaving:
            ray.wait(leaving, num_returns=len(leaving), timeout=FAREWELL_S)
        for post in self._posts:
            ray.kill(post.actor)

    def _check_room(self) -> None:
        """Stop waiting for a node when no crew has one."""
        if any(post.node for post in self._posts):
            self._began = monotonic()
        elif monotonic() - self._began > ROOM_S:
            wanted = {"CPU": float(self.options.crew.workers), "GPU": self.options.gpus}
            raise NoRoomError(wanted, ray.available_resources(), ROOM_S)


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """Be connected to a cluster while inside; a connection that was there before stays."""
    if ray.is_initialized():
        yield
        return
    try:
        if address != "auto":  # Ray itself goes on trying for minutes
            host, _, port = address.rpartition(":")
            socket.create_connection((host, int(port)), CONNECT_S).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except (OSError, ValueError) as caught:
        raise NoClusterError(address, caught) from None
    try:
        yield
    finally:
        ray.shutdown()


def _variables() -> dict[str, str]:
    """Return the variables that move pixels as they are here, and one thread for each process unless more is asked."""
    own = {name: os.environ[name] for name in provenance.THREADS if name in os.environ}
    return {name: "1" for name in provenance.THREADS if name.endswith("_THREADS")} | own
