"""The other end of the policy link, written from the published protocols and not from our code.

openpi (15a9616): the server sends metadata on connect; the client sends an observation a message; the server answers a
map with `actions` and `server_timing`, or text that reports an error and closes. Arrays are maps with bytes as keys.
vla-evaluation-harness (e1ee9ad): typed messages with numbers; arrays are maps with text as keys.
"""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgpack
import numpy as np
import websockets
from websockets.asyncio.server import serve
from websockets.sync.client import ClientConnection, connect

from vla_bench.link.command import offered
from vla_bench.link.server import PolicyServer
from vla_bench.policy import Policy


@contextmanager
def serving(*policies: Policy, method: str = "full", **options: Any) -> Iterator[PolicyServer]:
    """Run our server in a thread."""
    with PolicyServer(policies, offered(policies[0], method), **options) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
    thread.join(10)
    assert not thread.is_alive()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as door:
        return door.getsockname()[1]


def openpi_bytes(message: Any) -> bytes:
    def default(value):
        if isinstance(value, np.ndarray):
            array = {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str}
            return {**array, b"shape": value.shape}
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}

    return msgpack.packb(message, default=default)


def openpi_message(data: bytes) -> Any:
    def hook(found):
        if b"__ndarray__" in found:
            return np.ndarray(buffer=found[b"data"], dtype=np.dtype(found[b"dtype"]), shape=found[b"shape"])
        if b"__npgeneric__" in found:
            return np.dtype(found[b"dtype"]).type(found[b"data"])
        return found

    return msgpack.unpackb(data, object_hook=hook)


def dial(address: str, **options: Any) -> ClientConnection:
    """Return an open websocket, which the caller closes."""
    return connect(address, compression=None, proxy=None, **options).__enter__()


class OpenpiClient:
    """Asks as openpi's `WebsocketClientPolicy` does."""

    def __init__(self, address: str, api_key: str | None = None) -> None:
        headers = {"Authorization": f"Api-Key {api_key}"} if api_key else None
        self.websocket = dial(address, max_size=None, additional_headers=headers)
        self.metadata = openpi_message(self.websocket.recv(timeout=10))

    def infer(self, obs: dict[str, Any]) -> dict[str, Any]:
        self.websocket.send(openpi_bytes(obs))
        reply = self.websocket.recv(timeout=20)
        if isinstance(reply, str):
            raise RuntimeError(reply)
        return openpi_message(reply)

    def close(self) -> None:
        self.websocket.close()


class AsyncServer:
    """A server in a thread, whose handler is a coroutine."""

    def __init__(self, port: int = 0) -> None:
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._wanted_port = port
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._run()))

    async def handle(self, websocket) -> None:
        raise NotImplementedError

    async def _run(self) -> None:
        self._over = asyncio.Event()
        options = {"compression": None, "max_size": None, "ping_interval": None, "close_timeout": 0.2}
        async with serve(self.handle, "127.0.0.1", self._wanted_port, **options) as server:
            self.port = server.sockets[0].getsockname()[1]
            self._ready.set()
            await self._over.wait()

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *raised) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._loop.close()

    @property
    def address(self) -> str:
        return f"ws://127.0.0.1:{self.port}"


class OpenpiServer(AsyncServer):
    """Serves a function as openpi's `WebsocketPolicyServer` does."""

    def __init__(self, infer: Callable[[dict], dict], metadata: dict | None = None, timed: bool = True) -> None:
        super().__init__()
        self.infer, self.metadata, self.timed = infer, metadata or {}, timed
        self.seen: list[dict] = []

    async def handle(self, websocket) -> None:
        await websocket.send(openpi_bytes(self.metadata))
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                message = openpi_message(await websocket.recv())
                self.seen.append(message)
                began = time.monotonic()
                try:
                    action = self.infer(message)
                except (ArithmeticError, LookupError, ValueError) as caught:
                    await websocket.send(f"Traceback: {caught!r}")
                    await websocket.close(1011, "Internal server error. Traceback included in previous frame.")
                    return
                if self.timed:
                    action = {**action, "server_timing": {"infer_ms": (time.monotonic() - began) * 1000}}
                await websocket.send(openpi_bytes(action))


class RawServer(AsyncServer):
    """Sends what it is told to, whatever it hears."""

    def __init__(self, *said: bytes | str, then: str = "wait") -> None:
        super().__init__()
        self.said, self.then = said, then

    async def handle(self, websocket) -> None:
        said = list(self.said)
        with contextlib.suppress(websockets.ConnectionClosed):
            await websocket.send(said.pop(0))
            while True:
                await websocket.recv()
                if said:
                    await websocket.send(said.pop(0))
                elif self.then == "die":
                    websocket.transport.abort()


class VlaEvalServer(AsyncServer):
    """Serves a function as vla-eval's `serve` does: one action a step."""

    def __init__(self, predict: Callable[[dict], np.ndarray], **observation_params: bool) -> None:
        super().__init__()
        self.predict, self.params = predict, observation_params
        self.heard: list[tuple[str, Any]] = []

    async def handle(self, websocket) -> None:
        with contextlib.suppress(websockets.ConnectionClosed):
            while True:
                message = msgpack.unpackb(await websocket.recv(), object_hook=self._array)
                kind, payload, number = message["type"], message["payload"], message["seq"]
                assert isinstance(message["timestamp"], float)
                self.heard.append((kind, payload))
                if kind == "hello":
                    told = {"harness_version": "0.8.0", "protocol_version": 1, "model_server": "Fake"}
                    await self._say(websocket, "hello", {**told, "observation_params": self.params}, number)
                elif kind == "observation":
                    try:
                        await self._say(websocket, "action", {"actions": self.predict(payload)}, number)
                    except ValueError as caught:
                        await self._say(websocket, "error", {"error": f"observation_failed: {caught}"}, number)

    @staticmethod
    def _array(found):
        if "__ndarray__" not in found:
            return found
        return np.frombuffer(found["data"], np.dtype(found["dtype"])).reshape(found["shape"])

    @staticmethod
    async def _say(websocket, kind: str, payload: Any, number: int) -> None:
        def default(array):
            return {
                "__ndarray__": True,
                "data": array.tobytes(),
                "dtype": array.dtype.str,
                "shape": list(array.shape),
            }

        message = {"type": kind, "payload": payload, "seq": number, "timestamp": time.time()}
        await websocket.send(msgpack.packb(message, default=default))
