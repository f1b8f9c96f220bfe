"""Arms, limits and clients for tests of the robot bridge: no simulator, no processes."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vla_bench.types import ActionSpec
from vla_bench_envs.robot import limits as robot_limits
from vla_bench_envs.robot import requests
from vla_bench_envs.robot.driver import Caps, DriverSpec, RobotState
from vla_bench_envs.robot.errors import DriverError
from vla_bench_envs.robot.limiter import SetPoint
from vla_bench_envs.robot.messages import checked, pack, unpack
from vla_bench_envs.robot.supervisor import EVERYBODY, Supervisor

LIMITS = robot_limits.load(robot_limits.SIMULATED)
SPEC = ActionSpec()
HOME = np.array(LIMITS.home_rad)
TICK_NS = LIMITS.period_ns


def away(*offset: float) -> np.ndarray:
    """Return the home posture and an offset [rad]."""
    return HOME + np.array(offset)


def free(joints: np.ndarray) -> bool:
    """Touch nothing."""
    return False


def wall(joints: np.ndarray) -> bool:
    """Touch something when the first joint turns beyond 0.3 rad."""
    return bool(joints[0] > 0.3)


@dataclass
class FakeDriver:
    """Follow every set-point at once and write it down."""

    joints_rad: np.ndarray = field(default_factory=HOME.copy)
    sent: list[SetPoint] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    halted: list[int] = field(default_factory=list)
    """How many set-points had been sent whenever the arm was told to stand: from there on it brakes by itself."""
    raises_in: set[str] = field(default_factory=set)
    overrides: dict[str, Any] = field(default_factory=dict)
    """Fields of the state that are measured differently."""
    age_ns: int = 0
    spec: DriverSpec = field(default_factory=lambda: DriverSpec("fake", "panda", ("nothing",)))
    caps: Caps = field(default_factory=lambda: Caps(moves=True))

    def _do(self, name: str) -> None:
        if name in self.raises_in:
            raise DriverError("fake", f"was told to fail in {name}")
        self.done.append(name)

    def connect(self, now_ns: int) -> None:
        self._do("connect")

    def read(self, now_ns: int) -> RobotState:
        if "read" in self.raises_in:
            raise DriverError("fake", "was told to fail in read")
        facts = {
            "t_ns": now_ns - self.age_ns,
            "joints_rad": self.joints_rad.copy(),
            "velocities_rad_s": np.zeros(7),
            "torques_nm": np.zeros(7),
            "gripper_m": self.sent[-1].gripper_m if self.sent else 0.08,
        }
        return RobotState(**facts | self.overrides)

    def command(self, set_point: SetPoint) -> None:
        if "command" in self.raises_in:
            raise DriverError("fake", "was told to fail in command")
        self.sent.append(set_point)
        self.joints_rad = set_point.joints_rad

    def hold(self) -> None:
        self._do("hold")
        self.halted.append(len(self.sent))

    def stop(self) -> None:
        self._do("stop")
        self.halted.append(len(self.sent))

    def home(self) -> None:
        self._do("home")

    def recover(self) -> None:
        self._do("recover")

    def begin(self, task: int, init_state: int) -> str:
        self._do("begin")
        return 64 * "0"

    def close(self) -> None:
        self._do("close")


class Desk:
    """A supervisor on a clock of its own, and clients that talk to it through packed messages."""

    def __init__(self, driver: Any = None, limits: robot_limits.Limits = LIMITS, dry_run: bool = False, collides=free):
        self.driver = FakeDriver() if driver is None else driver
        self.now_ns = 10**9
        self.supervisor = Supervisor(limits, self.driver, collides, SPEC, dry_run)
        self.events: list[dict[str, Any]] = []
        self.inbox: dict[str, list[dict[str, Any]]] = {}
        self.leases: dict[str, str] = {}
        self.sequence = 0
        self.beating: set[str] = set()

    @property
    def phase(self) -> str:
        return str(self.supervisor.phase)

    @property
    def cause(self) -> str:
        return str(self.supervisor.cause)

    def deliver(self) -> None:
        while self.supervisor.outbox:
            session, message = self.supervisor.outbox.popleft()
            message = unpack(pack(message))
            (self.events if session == EVERYBODY else self.inbox.setdefault(session, [])).append(message)

    def ask(self, session: str, message: dict[str, Any], role: str = "control") -> dict[str, Any]:
        requests.receive(self.supervisor, session, role, checked(unpack(pack(message))), self.now_ns)
        self.deliver()
        return self.inbox[session].pop() if self.inbox.get(session) else {}

    def command(self, session: str, op: str, role: str = "control", **fields: Any) -> dict[str, Any]:
        said = self.ask(session, {"t": "cmd", "op": op, "lease": self.leases.get(session, "")} | fields, role)
        if "lease" in said:
            self.leases[session] = said["lease"]
        return said

    def wait(self, seconds: float) -> None:
        for _ in range(round(seconds * 1e9 / TICK_NS)):
            self.now_ns += TICK_NS
            for session in self.beating:
                requests.receive(
                    self.supervisor, session, "control", {"t": "hb", "lease": self.leases[session]}, self.now_ns
                )
                self.inbox.setdefault(session, [])
            self.supervisor.tick(self.now_ns)
            self.deliver()
            for inbox in self.inbox.values():
                inbox[:] = [said for said in inbox if said["t"] != "hb_ack"]

    def act(self, session: str, action: Any, **fields: Any) -> dict[str, Any]:
        """Send one action for the newest observation, wait for one tick, and return the acknowledgement."""
        self.sequence += 1
        observation = self.ask(session, {"t": "get_obs"})["seq"] if "obs_seq" not in fields else 0
        chunk = np.atleast_2d(np.asarray(action, dtype=float))
        message = {"t": "act", "lease": self.leases.get(session, ""), "seq": self.sequence, "obs_seq": observation}
        said = self.ask(session, message | {"mode": "delta_pose", "chunk": chunk} | fields)
        if not said:  # accepted: the acknowledgement comes with the tick
            self.wait(0.01)
            said = self.inbox[session].pop()
        return said

    def armed(self, session: str = "a") -> "Desk":
        """Connect, take the lease, go home and arm."""
        if self.phase == "OFFLINE":
            self.supervisor.connect(self.now_ns)
        assert self.command(session, "acquire")["ok"]
        self.beating.add(session)
        assert self.command(session, "home")["ok"]
        for _ in range(40):
            if self.phase == "HOMING":
                self.wait(0.1)
        assert self.command(session, "arm", period_ms=100)["ok"]
        return self
