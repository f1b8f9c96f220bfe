"""One client's conversation with its policy."""

import threading
from collections.abc import Callable
from time import perf_counter_ns
from typing import Any

from websockets.sync.server import ServerConnection

from vla_bench.link import messages
from vla_bench.link.dialects import Dialect
from vla_bench.link.errors import ForeignObservationError
from vla_bench.link.wire import packed, unpacked
from vla_bench.policy import Policy
from vla_bench.types import Observation, Task

FOREIGN_HORIZON = 1_000
"""Control steps in the task of a client that names none: longer than any suite's, since nothing is cut by it here."""


class Session:
    """Answers one client until it leaves.

    A client of ours says when an episode begins, with task and seed, and is told what each query cost. openpi's
    protocol has no word for either: for its clients an episode begins with the connection and whenever the prompt
    changes. One that wants the policy to forget between two episodes of one prompt connects anew.
    """

    def __init__(
        self, connection: ServerConnection, policy: Policy, turn: threading.Lock, dialect: Dialect | None, seed: int
    ) -> None:
        self._connection, self._policy, self._turn = connection, policy, turn
        self._dialect, self._seed = dialect, seed
        self._ours = False
        self._prompt: str | None = None
        self._previous_ms: float | None = None

    def run(self, offer: messages.Offer) -> None:
        """Greet and answer; ends with the connection.

        Raises:
            websockets.ConnectionClosed: When the client leaves.
            VlaBenchError: If the client sends what cannot be answered.
        """
        self._connection.send(packed(offer.to_message()))
        while True:
            data = self._connection.recv()
            began = perf_counter_ns()
            self._connection.send(packed(self._answer(unpacked(data))))
            self._previous_ms = (perf_counter_ns() - began) * 1e-6

    def _answer(self, message: dict[str, Any]) -> dict[str, Any]:
        episode = messages.begun(message)
        if episode is not None:
            self._ours = True
            self._timed(lambda: self._policy.reset(*episode))
            return messages.ready()
        obs = self._observed(message)
        if not self._ours and obs["instruction"] != self._prompt:
            self._begin(obs["instruction"])
        chunk, policy_ms = self._timed(lambda: self._policy.act(obs))
        timing = {"infer_ms": policy_ms}
        if self._previous_ms is not None:
            timing["prev_total_ms"] = self._previous_ms
        costs = messages.costs(chunk) if self._ours else {}  # openpi's broker would cut every array by its step
        return {"actions": chunk.actions, "server_timing": timing, **costs}

    def _observed(self, message: dict[str, Any]) -> Observation:
        """Return what the policy reads, under our names."""
        if self._dialect is not None and not self._ours:
            return self._dialect.heard(message)
        cameras = self._policy.cameras
        wanted = list(message) if cameras is None else [*cameras, "proprio", "instruction"]
        for key in (*wanted, "proprio", "instruction"):
            if key not in message:
                raise ForeignObservationError(key, sorted(map(str, message)), wanted)
        return {key: message[key] for key in wanted}

    def _begin(self, prompt: str) -> None:
        spec = self._policy.action_spec
        task = Task("remote", 0, "remote", prompt, FOREIGN_HORIZON, n_initial_states=1, action_spec=spec)
        self._timed(lambda: self._policy.reset(task, self._seed))
        self._prompt = prompt

    def _timed(self, call: Callable[[], Any]) -> tuple[Any, float]:
        """Return what a call returns and its time [ms], device work included; one client's turn at a time."""
        with self._turn:
            self._policy.synchronize()
            began = perf_counter_ns()
            result = call()
            self._policy.synchronize()
            return result, (perf_counter_ns() - began) * 1e-6
