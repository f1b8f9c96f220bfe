"""Who is let in: the first message of a session, its role and its token; and what a client may then send. No I/O."""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vla_bench_envs.robot.errors import MessageError
from vla_bench_envs.robot.messages import PROTOCOL, checked, unpack

Forward = Callable[[str, str, dict[str, Any]], None]
"""Takes session, role and a checked message to the supervisor."""


@dataclass(frozen=True)
class Visitor:
    """A session that was let in."""

    role: str
    client: str


class Reception:
    """Let sessions in by `hello`, and pass on what they send when it is of the schema."""

    def __init__(self, welcome: dict[str, Any], forward: Forward, token: str = "") -> None:
        """Answer with `welcome`; an empty token lets everybody in, which is for loopback only."""
        self._welcome, self._forward, self._token = welcome, forward, token
        self.visitors: dict[str, Visitor] = {}

    def receive(self, session: str, raw: bytes, local: bool) -> dict[str, Any] | None:
        """Take a client's bytes; return the `welcome` that answers a `hello`, otherwise None.

        Raises:
            MessageError: If the message is not of the schema, or the client is not let in; close the connection then.
        """
        message = checked(unpack(raw))
        visitor = self.visitors.get(session)
        if visitor is None:
            self.visitors[session] = self._admitted(message, local)
            return {"t": "welcome", "session": session} | self._welcome
        if message["t"] == "hello":
            raise MessageError("a second 'hello'", "one for each connection")
        self._forward(session, visitor.role, message)
        return None

    def leave(self, session: str) -> None:
        """Forget a session whose connection is closed."""
        self.visitors.pop(session, None)

    def _admitted(self, message: dict[str, Any], local: bool) -> Visitor:
        if message["t"] != "hello":
            raise MessageError(f"the type {message['t']!r} before 'hello'", "'hello' first")
        if message["proto"] != PROTOCOL:
            raise MessageError(f"the protocol {message['proto']}", f"protocol {PROTOCOL}")
        if self._token and not hmac.compare_digest(message["token"].encode(), self._token.encode()):
            raise MessageError("a wrong token", "the secret that the server was started with")
        if message["role"] == "operator" and not local:
            raise MessageError("the role 'operator' from another machine", "an operator at the robot's own computer")
        return Visitor(message["role"], message["client"])
