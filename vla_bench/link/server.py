"""A policy behind a websocket."""

import hmac
import logging
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from ipaddress import ip_address
from types import TracebackType

from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from vla_bench.errors import OptionError, VlaBenchError
from vla_bench.link.dialects import Dialect
from vla_bench.link.errors import OpenDoorError
from vla_bench.link.messages import Offer
from vla_bench.link.seats import Seats
from vla_bench.link.session import Session
from vla_bench.link.wire import MOST_BYTES
from vla_bench.policy import Policy

log = logging.getLogger(__name__)

HEALTH = "/healthz"
"""Path that answers `OK` to anybody. Source: openpi at 15a9616, `websocket_policy_server.py`, `_health_check`."""

SEAT_WAIT_S = 1.0
"""How long a client waits for a seat that is being given back: the next run begins right after the last one."""

PING_S, PONG_S = 10.0, 20.0
"""A client that has not answered a ping for so long is gone: a half-open link must not keep a seat for ever."""

CLOSE_S = 2.0
"""How long the closing handshake may take."""


class PolicyServer:
    """Serves as many clients at once as it is given policies, one query at a time.

    Each client has a policy of its own, with a memory of its own; a client for whom none is left is refused with HTTP
    503 before the websocket opens. Queries take turns, since two on one device would each be measured slower than it
    is. One that waits for its turn pays in the link's time, never in the policy's.
    """

    def __init__(
        self, policies: Sequence[Policy], offer: Offer, *, host: str = "127.0.0.1", port: int = 0,
        token: str | None = None, dialect: Dialect | None = None, seed: int = 0,
    ) -> None:  # fmt: skip
        """Listen; nobody is answered before `serve_forever`.

        Args:
            policies: One for each client.
            offer: What clients are told.
            host: Address to listen at.
            port: Port; 0 means one that is free.
            token: What clients must know; None lets everybody in.
            dialect: What clients that are not ours call the entries of an observation; None means our names.
            seed: Of every episode of such clients.

        Raises:
            OpenDoorError: If other machines could connect without a token.
            OptionError: If nothing can listen there.
        """
        if token is None and not _loopback(host):
            raise OpenDoorError(host)
        self._seats, self._offer, self._token = Seats(policies), offer, token
        self._dialect, self._seed, self._turn = dialect, seed, threading.Lock()
        self._change, self._stopped = threading.Lock(), False
        self._server: Server | None = None
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server((host, port), family=family)
        except OSError as caught:
            raise OptionError("--host and --port", f"{host}:{port}", f"an address to listen at ({caught})") from caught
        own, port = self._socket.getsockname()[:2]
        self.address = f"ws://[{own}]:{port}" if ":" in own else f"ws://{own}:{port}"
        """What clients connect to, for example `ws://127.0.0.1:8000`."""

    def __enter__(self) -> "PolicyServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all links and the door."""
        self.stop()

    def serve_forever(self) -> None:
        """Answer clients until `stop` is called from another thread."""
        with self._change:
            if self._stopped:
                return
            self._server = serve(
                self._converse, sock=self._socket, process_request=self._admit, compression=None, max_size=MOST_BYTES,
                ping_interval=PING_S, ping_timeout=PONG_S, close_timeout=CLOSE_S,
            )  # fmt: skip
        self._server.serve_forever()

    def stop(self) -> None:
        """Close all links and wait for their last query."""
        with self._change:
            self._stopped = True
        if self._server is None:
            self._socket.close()
        else:
            self._server.shutdown()

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Return why a client is not let in, or None."""
        if request.path == HEALTH:
            return connection.respond(HTTPStatus.OK, "OK\n")
        given = request.headers.get("Authorization", "")  # as openpi's client sends its `api_key`
        if self._token is not None and not hmac.compare_digest(given.encode(), f"Api-Key {self._token}".encode()):
            return connection.respond(HTTPStatus.UNAUTHORIZED, "a token is needed: 'Authorization: Api-Key TOKEN'\n")
        if not self._seats.reserve(connection, SEAT_WAIT_S):
            text = f"all {len(self._seats)} seats are taken by other clients\n"
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, text)
        return None

    def _converse(self, connection: ServerConnection) -> None:
        """Serve one client; its mistakes and the policy's end its link, never the server."""
        seat = self._seats.occupy(connection)
        try:
            Session(connection, seat.policy, self._turn, self._dialect, self._seed).run(self._offer)
        except ConnectionClosed as left:
            log.info("a client left: %s", left)
        except VlaBenchError as refused:
            log.warning("a client is refused: %s", refused)
            _tell(connection, str(refused))
        except BaseException as caught:  # told to the client, then raised again: the websocket's thread logs it
            _tell(connection, f"{type(caught).__name__}: {caught}")
            raise
        finally:
            self._seats.leave(seat)


def _tell(connection: ServerConnection, text: str) -> None:
    """Send an error as openpi does: a text frame, then the end."""
    with suppress(ConnectionClosed):
        connection.send(text)
        connection.close(CloseCode.INTERNAL_ERROR, "the reason is in the frame before")


def _loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
