"""A client of a robot server: one connection, a heart that beats by itself, one question at a time."""

import os
import queue
import threading
import time
from contextlib import ExitStack
from typing import Any

import numpy as np
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import connect

from vla_bench_envs.robot.encryption import client_context, explained
from vla_bench_envs.robot.errors import RobotLinkError
from vla_bench_envs.robot.messages import MAX_BYTES, PROTOCOL, pack, unpack
from vla_bench_envs.robot.serving import TOKEN_VARIABLE

ANSWER_S = 5.0
"""Patience for an answer; the robot itself has held long before."""


class RemoteLink:
    """A connection to a robot server."""

    def __init__(self, url: str, role: str, token: str | None = None) -> None:
        """Connect and say hello.

        Args:
            url: For example `ws://127.0.0.1:8765`; `wss:` encrypts, and verifies the server's certificate.
            role: `control` moves, `observe` looks, `operator` resets; the last only at the robot's own computer.
            token: The server's secret; None takes it from `VLA_BENCH_ROBOT_TOKEN`.

        Raises:
            RobotLinkError: If nobody answers, or the server does not let this client in.
            CertificateError: If the certificate that is to be trusted cannot be read.
        """
        self.url = url
        self.events: list[dict[str, Any]] = []
        self._lease = ""
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._closing = threading.Event()
        token = os.environ.get(TOKEN_VARIABLE, "") if token is None else token
        self._open = ExitStack()
        try:
            opening = connect(
                url,
                ssl=client_context(url),
                compression=None,
                max_size=MAX_BYTES,
                ping_interval=None,
                open_timeout=ANSWER_S,
                close_timeout=1,
            )
            self._socket = self._open.enter_context(opening)
        except (OSError, EOFError, WebSocketException, ValueError) as caught:
            raise RobotLinkError(url, explained(url, caught)) from caught
        self._reader = threading.Thread(target=self._read, name="robot reader", daemon=True)
        self._reader.start()
        try:
            self.welcome = self.request(
                {"t": "hello", "proto": PROTOCOL, "client": "vla-bench", "role": role, "token": token}
            )
        except BaseException:
            self.close()
            raise
        self._heart = threading.Thread(target=self._beat, name="robot heartbeat", daemon=True)
        self._heart.start()

    @property
    def now_ns(self) -> int:
        """Return the time on this computer's clock."""
        return time.monotonic_ns()

    def request(self, message: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a message; an action's comes with the tick that applies it.

        Raises:
            RobotLinkError: If the connection is closed, or no answer comes in time.
        """
        if "lease" not in message and message["t"] in ("cmd", "act"):
            message = message | {"lease": self._lease}
        self._send(message)
        answer = self._answer_to(message)
        if answer.get("op") == "acquire":
            self._lease = answer.get("lease") or ""
        return answer

    def sleep_until(self, when_ns: int) -> None:
        """Wait."""
        while (left_ns := when_ns - time.monotonic_ns()) > 0:
            time.sleep(left_ns * 1e-9)

    def images(self, obs: dict[str, Any]) -> dict[str, np.ndarray]:
        """Return the pictures that came with an observation."""
        return obs["img"]

    def recover(self) -> None:
        """Do nothing: a fault is ended by the local operator, who has looked at the arm."""

    def close(self) -> None:
        """Leave; safe to call twice."""
        self._closing.set()
        self._open.close()
        self._reader.join(5)

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._socket.send(pack(message))
        except (ConnectionClosed, OSError) as caught:
            raise RobotLinkError(self.url, caught) from caught

    def _answer_to(self, message: dict[str, Any]) -> dict[str, Any]:
        """Return the first answer of the message's kind; older ones belong to questions that were given up."""
        kind = {"hello": "welcome", "get_obs": "obs", "act": "act_ack", "cmd": "ack", "estop": "ack"}[message["t"]]
        op = message.get("op", "estop")
        deadline = time.monotonic() + ANSWER_S
        while (left := deadline - time.monotonic()) > 0:
            try:
                answer = self._answers.get(timeout=left)
            except queue.Empty:
                break
            if answer is None:
                raise RobotLinkError(self.url, self._farewell)
            fits = kind != "ack" or answer["op"] == op
            if answer["t"] == kind and fits and answer.get("seq", 0) == message.get("seq", answer.get("seq", 0)):
                return answer
        raise RobotLinkError(self.url, f"no answer to {message['t']!r} within {ANSWER_S:.0f} s")

    def _read(self) -> None:
        """Sort what arrives, until the connection is closed."""
        self._farewell = "the connection is closed"
        try:
            for raw in self._socket:
                message = unpack(raw) if isinstance(raw, bytes) else {"t": "text"}
                if message["t"] == "event":
                    self.events.append(message)
                elif message["t"] != "hb_ack":
                    self._answers.put(message)
        except (ConnectionClosed, OSError) as caught:
            self._farewell = str(caught)
        close = self._socket.protocol.close_rcvd
        if close is not None and close.reason:
            self._farewell = close.reason
        self._answers.put(None)

    def _beat(self) -> None:
        """Say at every heartbeat that this process lives."""
        period_s = self.welcome["hb_ms"] * 1e-3
        while not self._closing.wait(period_s):
            if self._lease:
                try:
                    self._send({"t": "hb", "lease": self._lease})
                except RobotLinkError:
                    return  # whoever asks next is told
