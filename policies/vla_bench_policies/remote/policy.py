"""A policy that runs behind a server, as the benchmark's policy."""

import math
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from vla_bench.errors import OptionError
from vla_bench.link import dialects
from vla_bench.link.errors import ChangedServerError, LinkLostError, SpeechError
from vla_bench.link.messages import Offer
from vla_bench.link.secret import read_token
from vla_bench.link.wire import unpacked
from vla_bench.policy import ActionChunk
from vla_bench.types import Observation, Task
from vla_bench_policies.remote.connection import Connection
from vla_bench_policies.remote.ends import End, OpenpiEnd, OwnEnd, checked
from vla_bench_policies.remote.vla_eval import VlaEvalEnd

OPEN_S = 10.0
"""How long connecting may take, and how long the server's first message."""


class RemotePolicy:
    """Asks a policy server: `remote:ws://HOST:PORT`.

    What the harness records as `policy_ms` contains the network. The stages tell it apart: `link` is the time of
    packing, copies, network and queue, the others are the server's, which add up to the `policy_ms` that it measured. A
    server that reports its time and no stages has one, `policy`; one that reports no time has none, not even `link`.

    A link that breaks ends the episode in an error; the next `reset` connects again, and refuses a server that
    meanwhile serves something else.
    """

    def __init__(
        self, address: str, dialect: str = "", execute: int = 0, turned: bool = False, timeout_s: float = 60.0,
        token_file: str = "",
    ) -> None:  # fmt: skip
        """Connect.

        Args:
            address: For example `ws://127.0.0.1:8000`.
            dialect: What the server calls the entries of an observation, for servers of other projects: `pi0-libero` or
                `vla-eval-libero`. A `vla-bench serve` needs none.
            execute: Actions of an openpi server's chunk that are applied before the next look; 0 means the dialect's.
            turned: Whether pictures are turned by 180 degrees for a server of others, under a protocol that does not.
            timeout_s: How long an answer may take [s]; a server that compiles at its first query may need minutes.
            token_file: File with the server's token. A file, since this text is written into results.

        Raises:
            OptionError: If an option is wrong, or means nothing to this server.
            UnreachableError: If nobody answers.
            RefusedError: If the server does not let this client in.
            SpeechError: If it speaks another protocol.
        """
        if not isinstance(address, str) or not address.startswith(("ws://", "wss://")):
            raise OptionError("the address of the policy", address, "something like ws://127.0.0.1:8000")
        if not isinstance(timeout_s, int | float) or not 0 < timeout_s < math.inf:
            raise OptionError("timeout_s", timeout_s, "a positive number of seconds")
        if not isinstance(execute, int) or execute < 0:
            raise OptionError("execute", execute, "a positive number of actions, or 0 for the dialect's")
        if not isinstance(turned, bool):
            raise OptionError("turned", turned, "True or False")
        self._address, self._timeout_s, self._execute, self._turned = address, float(timeout_s), execute, turned
        self._dialect = dialects.dialect(dialect) if dialect else None
        self._token = read_token(Path(token_file)) if token_file else None
        self._end: End | None = self._opened()
        self._offer = self._end.offer
        method = "" if self._offer.method == "full" else f"+{self._offer.method}"
        self.name = f"remote-{self._offer.policy}{method}"
        self.fingerprint = f"remote-{self._offer.fingerprint}{method}"
        self.action_spec = self._offer.action_spec
        self.cameras = self._offer.cameras

    def reset(self, task: Task, seed: int) -> None:
        """Begin an episode, over a new link if the last one is lost.

        Raises:
            ChangedServerError: If the server now serves something else.
            VlaBenchError: If it cannot be reached or reports an error.
        """
        if self._end is not None:
            try:
                return self._with_end(lambda end: end.reset(task, seed))
            except LinkLostError:
                pass  # between two episodes nothing is lost with it
        self._end = self._opened()
        if self._end.offer != self._offer:
            changed = self._end.offer
            self._drop()
            raise ChangedServerError(self._address, _differences(self._offer, changed))
        return self._with_end(lambda end: end.reset(task, seed))

    def act(self, obs: Observation) -> ActionChunk:
        """Return the server's answer, with the link's time as a stage.

        Raises:
            VlaBenchError: If the link breaks, nobody answers in time, or the answer is none.
        """
        began = perf_counter_ns()
        chunk, policy_ms = self._with_end(lambda end: end.ask(obs))
        whole_ms = (perf_counter_ns() - began) * 1e-6
        if policy_ms is None:
            return chunk
        if policy_ms > whole_ms:
            self._drop()
            found = f"says that a query took {policy_ms:.3f} ms, which was answered in {whole_ms:.3f} ms"
            raise SpeechError(self._address, found, "less")
        stages_ms = chunk.stages_ms or {"policy": policy_ms}
        return replace(chunk, stages_ms={**stages_ms, "link": whole_ms - policy_ms})

    def synchronize(self) -> None:
        """Do nothing: an answer is only sent once the server's device is done."""

    def _with_end(self, call: Callable[[End], Any]) -> Any:
        """Return what `call` does with the far end; whatever goes wrong, the link is not used again."""
        if self._end is None:
            raise LinkLostError(self._address, "no episode is running on it")
        try:
            return call(self._end)
        except BaseException:
            self._drop()
            raise

    def _drop(self) -> None:
        """Close the link, so that no late answer is taken for the next one and the seat is free."""
        end, self._end = self._end, None
        if end is not None:
            end.connection.close()

    def _opened(self) -> End:
        connection = Connection(self._address, self._token, OPEN_S, self._timeout_s)
        try:
            return self._greeted(connection)
        except BaseException:
            connection.close()
            raise

    def _greeted(self, connection: Connection) -> End:
        """Return the far end in the protocol that it speaks."""
        if self._dialect is not None and self._dialect.protocol == "vla-eval":
            if self._execute:
                raise OptionError("execute", self._execute, "none: a vla-eval server answers one action a step")
            return VlaEvalEnd(connection, self._dialect, self._turned)
        greeting = connection.receive(OPEN_S)
        metadata = checked(self._address, lambda: unpacked(greeting))
        offer = checked(self._address, lambda: Offer.of_message(metadata))
        if offer is None:
            if self._dialect is None:
                known = ", ".join(dialects.DIALECTS)
                raise OptionError("dialect", "", f"one of {known}: {self._address} is no 'vla-bench serve'")
            return OpenpiEnd(connection, metadata, self._dialect, self._execute, self._turned)
        if self._dialect is not None or self._execute or self._turned:
            found = (self._dialect and self._dialect.name, self._execute, self._turned)
            expected = "none of them: a 'vla-bench serve' reads our observations, and says itself how many actions"
            raise OptionError("(dialect, execute, turned)", found, expected)
        return OwnEnd(connection, offer)


def _differences(one: Offer, other: Offer) -> list[str]:
    pairs = ((own.name, getattr(one, own.name), getattr(other, own.name)) for own in fields(Offer))
    return [f"{name}: {was!r} became {became!r}" for name, was, became in pairs if was != became]
