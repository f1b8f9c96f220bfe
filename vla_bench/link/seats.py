"""Places for clients: each has a policy of its own, so that no client can disturb what another one's remembers."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

from websockets.protocol import State
from websockets.sync.server import ServerConnection

from vla_bench.policy import Policy

POLL_S = 0.05
"""Between two looks for a free place: a client that died during the handshake tells nobody."""


@dataclass
class Seat:
    """A policy, and the client that it answers."""

    policy: Policy
    connection: ServerConnection | None = None
    occupied: bool = False
    """Whether the session has begun; until then the seat falls back if the connection closes."""

    @property
    def free(self) -> bool:
        """Return whether a client can have it."""
        dead = self.connection is not None and self.connection.state is State.CLOSED
        return self.connection is None or (dead and not self.occupied)


class Seats:
    """As many as there are policies; a client that finds none free waits a moment, then is refused."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self._seats = [Seat(policy) for policy in policies]
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._seats)

    def reserve(self, connection: ServerConnection, wait_s: float) -> bool:
        """Keep a free seat for a client; False if there is none within `wait_s`."""
        until = monotonic() + wait_s
        with self._changed:
            while True:
                for seat in self._seats:
                    if seat.free:
                        seat.connection, seat.occupied = connection, False
                        return True
                if monotonic() >= until:
                    return False
                self._changed.wait(POLL_S)

    def occupy(self, connection: ServerConnection) -> Seat:
        """Return the seat that was reserved for a client."""
        with self._changed:
            seat = next(seat for seat in self._seats if seat.connection is connection)
            seat.occupied = True
            return seat

    def leave(self, seat: Seat) -> None:
        """Give a seat back."""
        with self._changed:
            seat.connection, seat.occupied = None, False
            self._changed.notify_all()
