"""Robot servers in their own processes, clients that are killed, and a proxy that spoils a link: for fault tests."""

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np

from vla_bench_envs.robot.client import RemoteLink
from vla_bench_envs.robot.limits import SIMULATED

PATIENCE = {"overrun_ms": 3000, "observation_age_ms": 5000, "heartbeat_lost_ms": 1200, "lease_ttl_ms": 2500}
"""What a machine needs that other work keeps busy; the shipped numbers are tested on the virtual clock, and by the slow
tests in real time."""


def limits_with(**changes: float) -> str:
    """Return the simulated arm's limits file with some numbers changed."""
    text = SIMULATED.read_text()
    for name, value in changes.items():
        text, n_changed = re.subn(rf"^{name} = .*$", f"{name} = {value}", text, flags=re.MULTILINE)
        assert n_changed == 1
    return text


CLIENT = """
import sys, time, numpy as np
from vla_bench_envs.robot.client import RemoteLink
link = RemoteLink(sys.argv[1], "control")
for op in ("acquire", "home"):
    assert link.request({"t": "cmd", "op": op})["ok"]
while link.request({"t": "get_obs"})["phase"] == "HOMING":
    time.sleep(0.02)
assert link.request({"t": "cmd", "op": "arm", "period_ms": 100})["ok"]
for step in range(10**6):
    obs = link.request({"t": "get_obs"})
    push = 0.4 if step // 10 % 2 else -0.4
    chunk = np.array([[0, push, 0, 0, 0, 0, 0]])
    link.request({"t": "act", "seq": step, "obs_seq": obs["seq"], "mode": "delta_pose", "chunk": chunk})
    print(step, flush=True)
    time.sleep(0.05)
"""
"""Moves the arm to and fro until something happens to it."""


SERVER = """
import sys, tyro
from vla_bench.errors import VlaBenchError
from vla_bench_envs.robot.commands import Serve
try:
    sys.exit(tyro.cli(Serve, args=sys.argv[1:]).run())
except VlaBenchError as caught:
    sys.exit(f"vla-bench: {caught}")
except KeyboardInterrupt:
    sys.exit(130)
"""
"""`vla-bench robot serve`, without the seconds that the other commands take to import."""


class Server:
    """A server of the simulated arm in real time."""

    def __init__(
        self,
        folder: Path,
        *options: str,
        patient: bool = True,
        limits: bool = True,
        environment: dict[str, str] | None = None,
    ) -> None:
        if limits:
            path = folder / "limits.toml"
            path.write_text(limits_with(**PATIENCE) if patient else SIMULATED.read_text())
            options = ("--limits", str(path), *options)
        ours = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
        threads = {"OMP_NUM_THREADS": "1", "LP_NUM_THREADS": "1", "PYTHONPATH": ours}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, "--port", "0", *options],
            env=os.environ | threads | (environment or {}),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.announced = self.process.stdout.readline()
        found = re.search(r"wss?://(?:127\.0\.0\.1|localhost):(\d+)", self.announced)
        if found is None:
            raise AssertionError(self.announced + self.close())
        self.port, self.url = int(found[1]), found[0]

    def children(self) -> list[int]:
        """Return the processes under this one, the nearest first."""
        found, wave = [], [self.process.pid]
        while wave:
            wave = [
                int(child)
                for pid in wave
                for task in Path(f"/proc/{pid}/task").glob("*/children")
                for child in task.read_text().split()
            ]
            found += wave
        return found

    def close(self) -> str:
        """End it as Ctrl-C does, and return what it complained of."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            _, complaints = self.process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            _, complaints = self.process.communicate()
            complaints += " (killed by the test)"
        return complaints


class Client:
    """A process that moves the arm."""

    def __init__(self, url: str) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", CLIENT, url], stdout=subprocess.PIPE, text=True)
        for _ in range(8):
            assert self.process.stdout.readline(), "the client ended"

    def end(self, with_signal: int) -> int:
        """Send a signal and return when [ns]."""
        sent_ns = time.monotonic_ns()
        self.process.send_signal(with_signal)
        return sent_ns

    def close(self) -> None:
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class Proxy:
    """A link between a client and a server that can be stalled, throttled or reset."""

    def __init__(self, port: int) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self._listening.getsockname()[1]}"
        self._port, self._ends = port, []
        self._cut = False
        self._bytes_s = {"up": 0.0, "down": 0.0}
        self._flowing = threading.Event()
        self._flowing.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def stall(self, is_stalled: bool) -> int:
        now_ns = time.monotonic_ns()
        (self._flowing.clear if is_stalled else self._flowing.set)()
        return now_ns

    def throttle(self, up: float = 0.0, down: float = 0.0) -> int:
        """Let no more bytes a second through, to the server and to the client; 0 is as many as there are."""
        now_ns = time.monotonic_ns()
        self._bytes_s = {"up": up, "down": down}
        return now_ns

    def reset(self) -> int:
        """Reset both connections, as a dying router does."""
        self._cut = True
        for end in self._ends:
            end.shutdown(socket.SHUT_RD)  # wakes the thread that reads it: a socket in use is not reset
        time.sleep(0.02)
        now_ns = time.monotonic_ns()
        for end in self._ends:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()
        self._ends = []
        return now_ns

    def close(self) -> None:
        self._cut = True
        self._flowing.set()
        self._listening.close()
        for end in self._ends:
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                one, _ = self._listening.accept()
            except OSError:
                return
            other = socket.create_connection(("127.0.0.1", self._port))
            self._ends += [one, other]
            for source, sink, way in ((one, other, "up"), (other, one, "down")):
                threading.Thread(target=self._pump, args=(source, sink, way), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, way: str) -> None:
        try:
            while data := source.recv(1 << 16):
                self._flowing.wait()
                self._trickle(sink, data, way)
            if not self._cut:
                sink.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def _trickle(self, sink: socket.socket, data: bytes, way: str) -> None:
        """Send bytes at the rate of now: twenty pieces a second."""
        while data:
            rate = self._bytes_s[way]
            size = max(1, int(rate / 20)) if rate else len(data)
            sink.sendall(data[:size])
            data = data[size:]
            if rate:
                time.sleep(size / rate)


class Driven:
    """A client in this process: armed, with its own sequence numbers."""

    def __init__(self, url: str, token: str | None = None) -> None:
        self.link = RemoteLink(url, "control", token)
        self.sequence = 0

    def arm(self) -> "Driven":
        assert self.command("acquire")["ok"]
        if self.look()["phase"] == "IDLE":
            assert self.command("home")["ok"]
            while self.look()["phase"] == "HOMING":
                time.sleep(0.02)
        said = self.command("arm", period_ms=100)
        assert said["ok"], (said["reason"], said["cause"])
        return self

    def command(self, op: str, **fields) -> dict:
        return self.link.request({"t": "cmd", "op": op} | fields)

    def look(self) -> dict:
        return self.link.request({"t": "get_obs"})

    def act(self, action, **fields) -> dict:
        self.sequence += 1
        seen = fields.pop("obs_seq", None)
        message = {"t": "act", "seq": self.sequence, "obs_seq": self.look()["seq"] if seen is None else seen}
        return self.link.request(
            message | {"mode": "delta_pose", "chunk": np.atleast_2d(np.array(action, float))} | fields
        )

    def close(self) -> None:
        self.link.close()


def event(link: RemoteLink, to: str, since_ns: int, patience_s: float = 3.0) -> dict:
    """Return the first event since then in which the robot went to a phase."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        for found in list(link.events):
            if found["to"] == to and found["t_ns"] >= since_ns:
                return found
        time.sleep(0.005)
    raise AssertionError(f"the robot did not go to {to}; {link.events[-3:]}")


class Lateness:
    """How late this machine wakes a process that asked for 5 ms: what a bound in real time cannot do without."""

    def __enter__(self) -> "Lateness":
        self.worst_ms, self._ends = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._measure, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    @property
    def allowance_ms(self) -> float:
        """Return what three processes in a row may have waited for a processor."""
        return 3 * self.worst_ms

    def _measure(self) -> None:
        while not self._ends.is_set():
            asked = time.monotonic()
            time.sleep(0.005)
            self.worst_ms = max(self.worst_ms, (time.monotonic() - asked) * 1e3 - 5)
