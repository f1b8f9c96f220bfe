"""The bridge on a virtual clock, in one process: the same supervisor, gate, messages and checks, bit-identical runs.

Time passes only when the client lets it, in servo periods. Physics, watchdogs and latencies live on that clock.
"""

from collections import deque
from typing import Any

import numpy as np

from vla_bench.types import ActionSpec
from vla_bench_envs.robot import requests
from vla_bench_envs.robot.driver import Driver
from vla_bench_envs.robot.drivers.simulated import SimulatedArm
from vla_bench_envs.robot.limits import Limits
from vla_bench_envs.robot.messages import pack, unpack
from vla_bench_envs.robot.phases import Phase
from vla_bench_envs.robot.reception import Reception
from vla_bench_envs.robot.suites import SUITE, RobotSuite
from vla_bench_envs.robot.supervisor import EVERYBODY, Supervisor
from vla_bench_envs.robot.tabletop.collision import Collision
from vla_bench_envs.robot.tabletop.pictures import Pictures
from vla_bench_envs.robot.welcome import observation_facts, robot_facts

SESSION = "lockstep"
START_NS = 1_000_000_000
"""Of the virtual clock."""

STANDING_TICKS = 30
"""After which an arm that was put in place is known to stand."""


class LockstepLink:
    """A client's view of the bridge, with the bridge behind it."""

    def __init__(
        self, limits: Limits, image_size_px: int, driver: Driver | None = None, suite: RobotSuite = SUITE
    ) -> None:
        """Start the bridge around a driver, by default the simulated arm."""
        self.driver = SimulatedArm(limits) if driver is None else driver
        self.supervisor = Supervisor(limits, self.driver, Collision(limits), ActionSpec(), dry_run=False)
        self.pictures = Pictures(limits, image_size_px, suite.scene)
        self.now_ns = START_NS
        facts = robot_facts(self.driver, self.supervisor.spec, limits, dry_run=False)
        facts |= observation_facts(self.pictures.names, image_size_px) | {"suite": suite.name}
        self._reception = Reception(facts, self._forward)
        self._inbox: deque[dict[str, Any]] = deque()
        self._lease = ""
        self._beaten_ns = START_NS
        self.events: list[dict[str, Any]] = []
        self.supervisor.connect(self.now_ns)
        self.welcome = self._hello()

    def request(self, message: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a message; an action's comes with the next tick."""
        if "lease" not in message and message["t"] in ("cmd", "act"):
            message = message | {"lease": self._lease}
        self._reception.receive(SESSION, pack(message), local=True)
        self._deliver()
        while not self._inbox:
            self.wait(1)
        answer = self._inbox.popleft()
        if answer.get("op") == "acquire":
            self._lease = answer.get("lease") or ""
        return answer

    def sleep_until(self, when_ns: int) -> None:
        """Let time pass until then, in whole servo periods."""
        period_ns = self.supervisor.limits.period_ns
        self.wait(max(0, -(-(when_ns - self.now_ns) // period_ns)))

    def wait(self, n_ticks: int) -> None:
        """Let servo periods pass; the client's heart beats."""
        limits = self.supervisor.limits
        for _ in range(n_ticks):
            self.now_ns += limits.period_ns
            if self._lease and self.now_ns - self._beaten_ns >= limits.heartbeat_ms * 1e6:
                self.supervisor.lease.beat(SESSION, self._lease, self.now_ns)
                self._beaten_ns = self.now_ns
            self.supervisor.tick(self.now_ns)
            self._deliver()

    def images(self, obs: dict[str, Any]) -> dict[str, np.ndarray]:
        """Return the pictures of an observation by camera."""
        return self.pictures.draw(obs["scene"])

    def recover(self) -> None:
        """End a fault as the operator who stands at this arm, which is put back to its home."""
        if self.supervisor.phase is Phase.FAULT:
            self.driver.begin(0, 0)
            reset = {"t": "cmd", "op": "reset", "lease": ""}
            requests.receive(self.supervisor, "operator", "operator", reset, self.now_ns)
            self._deliver()
            self._inbox.clear()
            self.wait(STANDING_TICKS)

    def close(self) -> None:
        """Free what draws."""
        requests.gone(self.supervisor, SESSION, self.now_ns)
        self.driver.close()
        self.pictures.close()

    def _hello(self) -> dict[str, Any]:
        hello = {"t": "hello", "proto": 1, "client": "lockstep", "role": "control"}
        welcome = self._reception.receive(SESSION, pack(hello), local=True)
        assert welcome is not None
        return unpack(pack(welcome))

    def _forward(self, session: str, role: str, message: dict[str, Any]) -> None:
        requests.receive(self.supervisor, session, role, message, self.now_ns)

    def _deliver(self) -> None:
        while self.supervisor.outbox:
            session, message = self.supervisor.outbox.popleft()
            message = unpack(pack(message))
            if session == EVERYBODY:
                self.events.append(message)
            else:
                self._inbox.append(message)
