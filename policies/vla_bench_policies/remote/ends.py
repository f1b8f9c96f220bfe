"""The far end of a link, in each of the protocols that policy servers speak."""

import hashlib
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from vla_bench.link import messages
from vla_bench.link.dialects import Dialect
from vla_bench.link.errors import SpeechError, WireError
from vla_bench.link.messages import Offer
from vla_bench.link.wire import packed, unpacked
from vla_bench.policy import ActionChunk
from vla_bench.types import ActionSpec, Observation, Task
from vla_bench_policies.remote.connection import Connection


class End(Protocol):
    """A served policy, as seen from here."""

    connection: Connection
    """What lies between."""

    offer: Offer
    """What it is."""

    def reset(self, task: Task, seed: int) -> None:
        """Begin an episode."""
        ...

    def ask(self, obs: Observation) -> tuple[ActionChunk, float | None]:
        """Return the answer, and the time that the server measured [ms] if it says one."""
        ...


class OwnEnd:
    """A `vla-bench serve`: knows episodes, and says what queries cost."""

    def __init__(self, connection: Connection, offer: Offer) -> None:
        self.connection, self.offer = connection, offer

    def reset(self, task: Task, seed: int) -> None:
        """Begin an episode over there."""
        self.connection.send(packed(messages.beginning(task, seed)))
        reply = self.connection.receive()
        if not checked(self.connection.address, lambda: messages.is_ready(unpacked(reply))):
            raise SpeechError(self.connection.address, "does not confirm the start of an episode", "'ready'")

    def ask(self, obs: Observation) -> tuple[ActionChunk, float | None]:
        """Return the answer as it was given there."""
        self.connection.send(packed(obs))
        return answer(self.connection.address, unpacked_reply(self.connection), self.offer.action_spec)


class OpenpiEnd:
    """A server of openpi's: keeps nothing between queries, cannot be seeded and cannot prove its weights."""

    def __init__(
        self, connection: Connection, metadata: dict[str, Any], dialect: Dialect, execute: int, turned: bool
    ) -> None:
        self.connection, self._dialect, self._turned = connection, dialect, turned
        self._execute = execute or dialect.execute
        told = f"{digest(metadata)}-{self._execute}{'-turned' if turned else ''}"
        self.offer = Offer(dialect.name, "full", f"openpi-{told}", dialect.action_spec, dialect.cameras)

    def reset(self, task: Task, seed: int) -> None:
        """Do nothing: openpi's protocol has no word for it."""

    def ask(self, obs: Observation) -> tuple[ActionChunk, float | None]:
        """Return as many actions of the answer as are applied, within the limits."""
        address, spec = self.connection.address, self.offer.action_spec
        self.connection.send(packed(self._dialect.spoken(obs, self._turned)))
        message = unpacked_reply(self.connection)
        chunk, policy_ms = answer(address, {key: message.get(key) for key in ("actions", "server_timing")}, spec)
        if len(chunk.actions) < self._execute:
            found = f"answers with {len(chunk.actions)} actions"
            raise SpeechError(address, found, f"at least {self._execute}, which execute={self._execute} applies")
        return ActionChunk(np.clip(chunk.actions[: self._execute], spec.low, spec.high)), policy_ms


def answer(address: str, message: dict[str, Any], spec: ActionSpec) -> tuple[ActionChunk, float | None]:
    """Return what a message answers, and the time that the server measured [ms].

    Raises:
        SpeechError: If it is no answer, or its actions have another size.
    """
    chunk = checked(address, lambda: messages.answered(message))
    if chunk.actions.shape[1] != spec.size:
        raise SpeechError(address, f"answers with actions of {chunk.actions.shape[1]} entries", f"{spec.size}")
    return chunk, checked(address, lambda: messages.policy_ms(message))


def unpacked_reply(connection: Connection) -> dict[str, Any]:
    """Return the next message.

    Raises:
        SpeechError: If it is none.
    """
    data = connection.receive()
    return checked(connection.address, lambda: unpacked(data))


def checked(address: str, read: Callable[[], Any]) -> Any:
    """Return what `read` makes of a message.

    Raises:
        SpeechError: If the message is wrong, naming who sent it.
    """
    try:
        return read()
    except WireError as wrong:
        raise SpeechError(address, f"is no peer of this link: {wrong}", "a server of openpi's protocol") from wrong


def digest(told: dict[str, Any]) -> str:
    """Return 16 hexadecimal digits of the SHA-256 of what a server says about itself."""
    return hashlib.sha256(packed(told)).hexdigest()[:16]
