"""Packets between the processes of the server: msgpack over a Unix socket that keeps boundaries. Never blocks."""

import os
import select
import socket
import subprocess
import sys
from typing import Any

from vla_bench_envs.robot.messages import pack, unpack

MAX_PACKET_BYTES = 1 << 17
MAX_PACKETS = 64
"""That are taken at a time, so that a flood never holds a tick up."""


class ChannelClosedError(Exception):
    """Say that the process on the other side is gone; the caller knows what that means."""


class Channel:
    """One end of a pair."""

    def __init__(self, end: socket.socket) -> None:
        """Take over a connected socket."""
        self._end = end
        end.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor, for event loops."""
        return self._end.fileno()

    def send(self, message: dict[str, Any]) -> bool:
        """Send a message; return whether there was room for it.

        Raises:
            ChannelClosedError: If the other process is gone.
        """
        try:
            self._end.send(pack(message))
        except BlockingIOError:
            return False
        except OSError as caught:
            raise ChannelClosedError(str(caught)) from caught
        return True

    def receive(self) -> list[dict[str, Any]]:
        """Return what has arrived, oldest first, at most `MAX_PACKETS`.

        Raises:
            ChannelClosedError: If nothing has arrived and the other process is gone.
        """
        arrived: list[dict[str, Any]] = []
        while len(arrived) < MAX_PACKETS:
            try:
                raw = self._end.recv(MAX_PACKET_BYTES)
            except BlockingIOError:
                break
            except OSError as caught:
                raise ChannelClosedError(str(caught)) from caught
            if not raw:
                if arrived:
                    break
                raise ChannelClosedError("closed")
            arrived.append(unpack(raw))
        return arrived

    def wait(self, seconds: float) -> None:
        """Wait until something arrives, or the time is over."""
        select.select([self._end], [], [], max(0.0, seconds))

    def close(self) -> None:
        """Close this end; safe to call twice."""
        self._end.close()


def spawn(module: str) -> tuple[subprocess.Popen[bytes], Channel]:
    """Start a module as a process whose argument is the descriptor of its channel; return both.

    It gets a process group of its own, so that a Ctrl-C meant for the server does not reach it: it ends, in its own
    order, when the channel closes.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        words = [sys.executable, "-m", module, str(theirs.fileno())]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            words, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, env=environment, process_group=0
        )
    return process, Channel(ours)


def inherited() -> Channel:
    """Return the channel that `spawn` gave to this process."""
    return Channel(socket.socket(fileno=int(sys.argv[1])))
