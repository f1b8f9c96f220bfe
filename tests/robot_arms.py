"""Arms of other makers, as their packages would show them: for tests of drivers without the arms."""

import time
from dataclasses import asdict
from types import ModuleType

import numpy as np
from robots import LIMITS

from vla_bench_envs.robot.limits import parse

UR_HOME_RAD = (3.1416, -1.5, 1.9, -1.97, -1.5708, 0.0)
UR_LIMITS = parse(
    asdict(LIMITS)
    | {
        "arm": "ur5e-2f85",
        "joint_low_rad": (-6.2,) * 6,
        "joint_high_rad": (6.2,) * 6,
        "joint_velocity_rad_s": (1.2,) * 6,
        "joint_acceleration_rad_s2": (6.0,) * 6,
        "joint_torque_nm": (150.0, 150.0, 150.0, 28.0, 28.0, 28.0),
        "gripper_open_m": 0.085,
        "home_rad": UR_HOME_RAD,
    }
)


class Controller:
    """A UR controller: servoing follows at once; a protective stop ends its program."""

    def __init__(self) -> None:
        self.joints = list(UR_HOME_RAD)
        self.protective, self.emergency, self.running, self.connected = False, False, True, True
        self.still = False
        """Whether its clock stands."""
        self.done: list[str] = []
        self._began = time.monotonic()

    def modules(self) -> dict[str, ModuleType]:
        """Return what ur_rtde's modules would be for this controller."""
        made = {}
        for name, kind in (
            ("rtde_control.RTDEControlInterface", self._control),
            ("rtde_receive.RTDEReceiveInterface", self._receive),
            ("dashboard_client.DashboardClient", self._dashboard),
        ):
            module, _, own = name.partition(".")
            made[module] = ModuleType(module)
            setattr(made[module], own, kind)
        return made

    def _receive(self, address: str) -> object:
        arm = self

        class Receive:
            getActualQ = staticmethod(lambda: list(arm.joints))
            getActualQd = staticmethod(lambda: [0.0] * 6)
            getTargetMoment = staticmethod(lambda: [1.0] * 6)
            isConnected = staticmethod(lambda: arm.connected)
            isProtectiveStopped = staticmethod(lambda: arm.protective)
            isEmergencyStopped = staticmethod(lambda: arm.emergency)
            getTimestamp = staticmethod(lambda: 7.0 if arm.still else time.monotonic() - arm._began)
            disconnect = staticmethod(lambda: None)

        return Receive()

    def _control(self, address: str) -> object:
        if address == "nowhere":
            raise RuntimeError("Failed to start control script, before timeout of 5 seconds")
        arm = self

        class Control:
            isProgramRunning = staticmethod(lambda: arm.running)
            stopScript = staticmethod(lambda: arm.done.append("stopScript"))
            disconnect = staticmethod(lambda: arm.done.append("disconnect"))

            def servoJ(self, joints, speed, acceleration, period_s, lookahead_s, gain) -> bool:
                assert (period_s, lookahead_s, gain) == (0.01, 0.1, 300.0)
                if arm.running:
                    arm.joints = list(joints)
                return arm.running

            def servoStop(self, deceleration: float) -> bool:
                arm.done.append("servoStop")
                return True

            def triggerProtectiveStop(self) -> bool:
                arm.protective, arm.running = True, False
                return True

            def reuploadScript(self) -> bool:
                arm.running = not arm.protective
                return arm.running

        return Control()

    def _dashboard(self, address: str) -> object:
        arm = self

        class Dashboard:
            connect = disconnect = staticmethod(lambda: None)

            def unlockProtectiveStop(self) -> None:
                arm.protective = False

        return Dashboard()


class LeRobotArm:
    """A robot with LeRobot's interface: degrees, a gripper from 0 (closed) to 100 (open), and motors that are slow."""

    names = tuple(f"joint_{index}.pos" for index in range(7))

    def __init__(self, home_rad: tuple[float, ...] = LIMITS.home_rad, fails_after: int = -1, lacks: str = "") -> None:
        self.positions = dict(zip(self.names, np.degrees(home_rad), strict=True)) | {"gripper.pos": 100.0}
        self.left, self.lacks = fails_after, lacks
        self.is_connected = False
        self.sent: list[dict[str, float]] = []

    def connect(self) -> None:
        self.is_connected = True

    def get_observation(self) -> dict[str, float]:
        self.left -= 1
        if self.left == -1:
            raise ConnectionError("motor 3 does not answer")
        time.sleep(0.002)
        return {key: float(value) for key, value in self.positions.items() if key != self.lacks}

    def send_action(self, action: dict[str, float]) -> dict[str, float]:
        self.sent.append(action)
        self.positions |= action
        return action

    def disconnect(self) -> None:
        self.is_connected = False
