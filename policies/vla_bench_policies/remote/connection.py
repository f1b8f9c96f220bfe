"""A websocket on which every wait ends."""

import socket
import struct
import weakref
from contextlib import ExitStack, suppress

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.sync.client import connect

from vla_bench.errors import OptionError
from vla_bench.link.errors import AnswerTimeoutError, FarEndError, LinkLostError, RefusedError, UnreachableError
from vla_bench.link.wire import MOST_BYTES

CLOSE_S = 1.0
"""How long the closing handshake may take."""


class Connection:
    """One websocket to a policy server; lost at the first mistake, and then opened anew by whoever needs it."""

    def __init__(self, address: str, token: str | None, open_s: float, answer_s: float) -> None:
        """Open it.

        Args:
            address: For example `ws://127.0.0.1:8000`, or `wss://` with TLS.
            token: Sent as openpi's client sends its `api_key`; None for none.
            open_s: How long opening may take [s].
            answer_s: How long sending, and waiting for an answer, may each take [s].

        Raises:
            OptionError: If the address is none.
            UnreachableError: If nobody answers.
            RefusedError: If the server lets nobody in, or not this client.
        """
        self.address, self._answer_s = address, answer_s
        stack = ExitStack()
        try:
            opening = connect(
                address, compression=None, max_size=MOST_BYTES, open_timeout=open_s, close_timeout=CLOSE_S, proxy=None,
                ping_interval=None,  # openpi's server answers no ping while it infers; waits end by themselves here
                additional_headers={"Authorization": f"Api-Key {token}"} if token else None,
            )  # fmt: skip
            websocket = stack.enter_context(opening)  # since 17.1 websockets warns of connections without
        except (InvalidURI, ValueError) as caught:
            raise OptionError("the address of the policy", address, "something like ws://127.0.0.1:8000") from caught
        except InvalidStatus as refused:
            answer = refused.response
            raise RefusedError(address, answer.status_code, (answer.body or b"").decode(errors="replace")) from refused
        except (OSError, InvalidHandshake, EOFError) as caught:
            raise UnreachableError(address, f"{type(caught).__name__}: {caught}") from caught
        limit = struct.pack("ll", int(answer_s), int(answer_s % 1 * 1e6))
        websocket.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)  # or a full buffer blocks for ever
        self._websocket = websocket
        self.close = weakref.finalize(self, _close, stack)
        """Close it; also done when nobody refers to it any more, and at exit: a forgotten policy keeps no seat."""

    def send(self, data: bytes) -> None:
        """Send a message.

        Raises:
            LinkLostError: If the link is broken or the server takes nothing in.
        """
        try:
            self._websocket.send(data)
        except ConnectionClosed as lost:
            raise self._lost(lost) from lost

    def receive(self, within_s: float | None = None) -> bytes:
        """Return the next message; `within_s` is another time to wait than for answers.

        Raises:
            AnswerTimeoutError: If none comes in time.
            FarEndError: If the server reports an error, which openpi's protocol does by text.
            LinkLostError: If the link is broken.
        """
        wait_s = self._answer_s if within_s is None else within_s
        try:
            data = self._websocket.recv(timeout=wait_s)
        except TimeoutError as late:
            raise AnswerTimeoutError(self.address, wait_s) from late
        except ConnectionClosed as lost:
            raise self._lost(lost) from lost
        if isinstance(data, str):
            raise FarEndError(self.address, data)
        return data

    def _lost(self, lost: ConnectionClosed) -> Exception:
        """Return what to say about a closed link: what the server said last, if it has said something."""
        with suppress(ConnectionClosed, TimeoutError):
            last = self._websocket.recv(timeout=0)
            if isinstance(last, str):
                return FarEndError(self.address, last)
        return LinkLostError(self.address, lost)


def _close(stack: ExitStack) -> None:
    with suppress(ConnectionClosed, OSError):
        stack.close()
