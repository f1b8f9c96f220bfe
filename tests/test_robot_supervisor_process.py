"""The process that owns the arm, when the server in front of it is killed: the arm brakes, and is let go at rest.

A killed process closes its sockets, which is all that the supervisor ever sees of it; `test_robot_server.py` kills one.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field

import numpy as np
import pytest
from robots import HOME, LIMITS, FakeDriver
from test_robot_limiter import broken_limits

from vla_bench_envs.robot import drivers, supervisor_process
from vla_bench_envs.robot.channel import Channel
from vla_bench_envs.robot.messages import checked

SLOW = ("overrun_ms", "heartbeat_lost_ms", "observation_age_ms")
PATIENT = asdict(LIMITS) | dict.fromkeys(SLOW, 5000.0) | {"lease_ttl_ms": 6000.0}
"""Numbers for a machine that other work keeps busy."""


@dataclass
class Owner:
    """A supervisor's loop in a thread, around an arm that writes down what it is told; and the server's end."""

    server: Channel
    driver: FakeDriver = field(default_factory=FakeDriver)
    thread: threading.Thread | None = None
    heard: list[dict] = field(default_factory=list)

    def hear(self, wanted: Callable[[dict], bool]) -> dict:
        """Return the next packet of a kind."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            while self.heard:
                packet = self.heard.pop(0)
                if wanted(packet):
                    return packet
            self.server.wait(0.1)
            self.heard += self.server.receive()
        raise AssertionError("the supervisor said nothing of the kind")

    def ask(self, message: dict) -> dict:
        """Send what a client would, and return the answer."""
        self.server.send({"session": "a", "role": "control", "message": checked(message)})
        return self.hear(lambda packet: packet.get("session") == "a")["message"]

    def move(self) -> None:
        """Bring the arm from IDLE into motion."""
        lease = self.ask({"t": "cmd", "op": "acquire"})["lease"]
        assert self.ask({"t": "cmd", "op": "home", "lease": lease})["ok"]
        self.hear(lambda packet: packet.get("message", {}).get("to") == "READY")
        assert self.ask({"t": "cmd", "op": "arm", "lease": lease, "period_ms": 1000})["ok"]
        seen = self.ask({"t": "get_obs"})["seq"]
        chunk = np.tile([0, 0.5, 0, 0, 0, 0, 0], (60, 1)).astype(float)
        action = {"t": "act", "lease": lease, "seq": 1, "obs_seq": seen, "mode": "delta_pose", "chunk": chunk}
        assert self.ask(action | {"dt_ms": 50.0})["verdict"] == "ok"
        deadline = time.monotonic() + 10
        while self.speed_rad_s() < 0.05 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert self.speed_rad_s() >= 0.05

    def speed_rad_s(self) -> float:
        """Return how fast the fastest joint was last told to move."""
        sent = self.driver.sent[-2:]
        return float(np.ptp([point.joints_rad for point in sent], axis=0).max() * LIMITS.servo_hz) if sent else 0.0


@pytest.fixture
def owner(monkeypatch: pytest.MonkeyPatch) -> Iterator[Owner]:
    """Return a supervisor that has connected its driver."""
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made = Owner(Channel(ours))
    monkeypatch.setattr(drivers, "make", lambda *_: made.driver)
    options = {"limits": PATIENT, "driver": "fake", "options": {}, "dry_run": False}
    own = Channel(theirs)
    made.thread = threading.Thread(target=supervisor_process._start, args=(own, options), daemon=True)
    made.thread.start()
    assert made.hear(lambda packet: "t" in packet)["t"] == "ready"
    yield made
    made.server.close()
    made.thread.join(10)
    own.close()


@pytest.mark.sim
def test_when_the_server_is_killed_a_moving_arm_brakes_within_its_limits_and_is_let_go(owner: Owner) -> None:
    owner.move()
    n_sent = len(owner.driver.sent)
    owner.server.close()
    assert owner.thread is not None
    owner.thread.join(10)
    assert not owner.thread.is_alive()
    assert owner.driver.done[-2:] == ["stop", "close"]
    assert owner.speed_rad_s() == 0.0
    assert len(owner.driver.sent) - n_sent < 100  # rows of the chunk were left: nobody follows them any more
    assert broken_limits(np.array([HOME, *(point.joints_rad for point in owner.driver.sent)])) == []


@pytest.mark.sim
def test_a_driver_that_fails_while_the_arm_brakes_is_let_go_all_the_same(owner: Owner) -> None:
    owner.move()
    owner.driver.raises_in = {"command", "hold"}
    owner.server.close()
    assert owner.thread is not None
    owner.thread.join(10)
    assert not owner.thread.is_alive()
    assert owner.driver.done[-3:] == ["stop", "stop", "close"]  # of FAULT, and at the end whatever happened
