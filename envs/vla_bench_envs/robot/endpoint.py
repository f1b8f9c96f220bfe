"""The endpoint process: websockets on one side, the supervisor on the other; pictures and the log in between.

It moves nothing. If it hangs, heartbeats no longer reach the supervisor; if it dies, the supervisor notices at once.
"""

import asyncio
import logging
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any, Protocol

import numpy as np
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from vla_bench_envs.robot.channel import Channel, ChannelClosedError
from vla_bench_envs.robot.errors import MessageError, SupervisorLostError
from vla_bench_envs.robot.log import Log
from vla_bench_envs.robot.messages import MAX_BYTES, pack
from vla_bench_envs.robot.reception import Reception
from vla_bench_envs.robot.supervisor import EVERYBODY

log = logging.getLogger(__name__)

HELLO_S = 5.0
"""Patience for the first message of a connection."""

MAX_WAITING = 64
"""Messages that may wait for a client that reads slowly, before its connection is closed."""

POLICY_VIOLATION = 1008
"""Source: RFC 6455, section 7.4.1."""

LOOPBACK = ("127.0.0.1", "::1", "localhost")


class Pictures(Protocol):
    """What draws or captures."""

    captured_ns: dict[str, int]
    """When each camera's picture of the last `draw` was taken, on the server's clock; empty where it was drawn."""

    def draw(self, state: np.ndarray | None) -> dict[str, np.ndarray]:
        """Return a picture by camera."""
        ...

    def close(self) -> None:
        """Free what draws."""
        ...


class Endpoint:
    """Sessions of clients, in front of one supervisor."""

    def __init__(
        self, channel: Channel, welcome: dict[str, Any], pictures: Pictures | None, token: str, record: Log | None
    ) -> None:
        """Take over the channel; `welcome` is what clients are told, `record` where everything is logged."""
        self._channel, self._pictures, self._record = channel, pictures, record
        self._reception = Reception(welcome, self._forward, token)
        self._outgoing: dict[str, asyncio.Queue[bytes | None]] = {}
        self._numbers = count(1)
        self._drawing = ThreadPoolExecutor(1, "pictures")  # an OpenGL context belongs to one thread
        self._undrawn: dict[str, dict[str, Any]] = {}
        """Observation that is to be drawn next, by session."""
        self._lost: asyncio.Future[None] | None = None

    async def run(
        self, host: str, port: int, started: "asyncio.Future[int] | None" = None, tls: ssl.SSLContext | None = None
    ) -> None:
        """Serve until cancelled; with `tls` a connection that is not encrypted is refused.

        Raises:
            SupervisorLostError: If the supervisor is gone.
        """
        loop = asyncio.get_running_loop()
        self._lost = loop.create_future()
        loop.add_reader(self._channel.fileno(), self._take)
        try:
            options: dict[str, Any] = {"compression": None, "max_size": MAX_BYTES, "ping_interval": None, "ssl": tls}
            async with serve(self._visit, host, port, **options) as server:
                if started is not None:
                    started.set_result(_port(server))
                await self._lost
        finally:
            loop.remove_reader(self._channel.fileno())
            if self._pictures is not None:
                self._drawing.submit(self._pictures.close)  # in the thread that owns the OpenGL context
            self._drawing.shutdown()
            if self._record is not None:
                self._record.close()

    async def _visit(self, connection: ServerConnection) -> None:
        """Serve one client until it leaves, or says something that it must not."""
        session = f"s{next(self._numbers)}"
        outgoing = self._outgoing[session] = asyncio.Queue(MAX_WAITING)
        writer = asyncio.create_task(_write(connection, outgoing))
        address = connection.remote_address
        local = bool(address) and address[0] in LOOPBACK
        try:
            async with asyncio.timeout(HELLO_S):
                self._hear(session, await connection.recv(), local)
            async for raw in connection:
                self._hear(session, raw, local)
        except MessageError as caught:
            log.warning("%s: %s", session, caught)
            await connection.close(POLICY_VIOLATION, str(caught)[:120])
        except TimeoutError:
            await connection.close(POLICY_VIOLATION, "no hello")
        except ConnectionClosed:
            pass
        finally:
            self._outgoing.pop(session, None)
            self._reception.leave(session)
            writer.cancel()
            self._send({"gone": session})

    def _hear(self, session: str, raw: Any, local: bool) -> None:
        welcome = self._reception.receive(session, raw, local)
        if welcome is not None:
            self._queue(session, welcome)

    def _forward(self, session: str, role: str, message: dict[str, Any]) -> None:
        self._send({"session": session, "role": role, "message": message})
        if self._record is not None and message["t"] not in ("hb", "get_obs"):
            self._record.write(f"/{message['t']}", {"session": session, "role": role} | message, time.monotonic_ns())

    def _send(self, packet: dict[str, Any]) -> None:
        """Pass on to the supervisor; if it hangs its own clients notice, and so does its driver's watchdog."""
        try:
            if not self._channel.send(packet):
                log.error("the supervisor takes no messages")
        except ChannelClosedError:
            self._lose()

    def _lose(self) -> None:
        if self._lost is not None and not self._lost.done():
            self._lost.set_exception(SupervisorLostError())

    def _take(self) -> None:
        """Take what the supervisor sent to its sessions."""
        try:
            packets = self._channel.receive()
        except ChannelClosedError:
            self._lose()
            return
        for packet in packets:
            session, message = packet["session"], packet["message"]
            if message["t"] == "obs":
                self._draw_soon(session, message)
                continue
            if self._record is not None and message["t"] != "hb_ack":
                self._record.write(f"/{message['t']}", {"session": session} | message, time.monotonic_ns())
            for receiver in list(self._outgoing) if session == EVERYBODY else (session,):
                if receiver in self._reception.visitors:
                    self._queue(receiver, message)

    def _draw_soon(self, session: str, message: dict[str, Any]) -> None:
        """Have an observation drawn; of those that a session waits for only the newest: no session holds others up."""
        self._undrawn[session] = message
        loop = asyncio.get_running_loop()
        loop.run_in_executor(self._drawing, self._draw, session, loop)

    def _draw(self, session: str, loop: asyncio.AbstractEventLoop) -> None:
        """Add the pictures of a session's newest observation and send it; in the thread that draws."""
        message = self._undrawn.pop(session, None)
        if message is None:
            return  # an older one was asked for, too, and this one was drawn in its place
        scene = message.pop("scene", None)
        message["img"] = {} if self._pictures is None else self._pictures.draw(scene)
        message["t_img_ns"] = {} if self._pictures is None else self._pictures.captured_ns
        loop.call_soon_threadsafe(self._queue, session, message)
        if self._record is not None:
            loop.call_soon_threadsafe(self._log_obs, session, message)

    def _log_obs(self, session: str, message: dict[str, Any]) -> None:
        if self._record is None:
            return
        facts = {key: value for key, value in message.items() if key != "img"}
        self._record.write("/obs", {"session": session} | facts, message["t_cap_ns"])
        for camera, pixels in message["img"].items():
            self._record.picture(camera, pixels, message["t_cap_ns"])

    def _queue(self, session: str, message: dict[str, Any]) -> None:
        outgoing = self._outgoing.get(session)
        if outgoing is None:
            return
        if outgoing.full():  # it does not read: half-open, throttled, or stopped
            while not outgoing.empty():
                outgoing.get_nowait()
            outgoing.put_nowait(None)
            return
        outgoing.put_nowait(pack(message))


async def _write(connection: ServerConnection, outgoing: "asyncio.Queue[bytes | None]") -> None:
    """Send what waits for one client; None closes its connection."""
    try:
        while (raw := await outgoing.get()) is not None:
            await connection.send(raw)
        await connection.close(POLICY_VIOLATION, "this client does not read what it is sent")
    except ConnectionClosed:
        pass


def _port(server: Server) -> int:
    return next(iter(server.sockets)).getsockname()[1]
