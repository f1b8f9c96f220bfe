"""An arm of Universal Robots (e-Series) by the package ur_rtde: joint servoing over its real-time data exchange."""

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np

from vla_bench.errors import MissingPackageError, OptionError
from vla_bench_envs.robot.driver import Caps, DriverSpec, RobotState, asked_sha256
from vla_bench_envs.robot.drivers.robotiq import Robotiq
from vla_bench_envs.robot.errors import DriverError
from vla_bench_envs.robot.limiter import SetPoint
from vla_bench_envs.robot.limits import Limits

NAME = "ur"

LOOKAHEAD_S, GAIN = 0.1, 300.0
"""Smoothing and stiffness of `servoJ`. Source: the defaults of URScript's servoj."""

BRAKING_M_S2 = 10.0
"""Deceleration when servoing ends. Source: the default of ur_rtde's servoStop."""

UNLOCK_S = 5.5
"""A protective stop is released no sooner. Source: Universal Robots' documentation of its dashboard server: 5 s."""

GRIPPERS = ("none", "robotiq")

Answer = TypeVar("Answer")


class UniversalArm:
    """One arm, and a Robotiq gripper if it has one."""

    def __init__(self, limits: Limits, address: str, gripper: str = "none") -> None:
        """Remember what to connect to.

        Args:
            limits: Of the arm.
            address: Of the controller.
            gripper: `robotiq` speaks to Robotiq's URCap on the controller; `none` moves no fingers.

        Raises:
            OptionError: If the gripper is none of these.
            MissingPackageError: If ur_rtde is not installed.
        """
        if gripper not in GRIPPERS:
            raise OptionError("gripper", gripper, f"one of {', '.join(GRIPPERS)}")
        try:
            import dashboard_client  # type: ignore[import-not-found]
            import rtde_control  # type: ignore[import-not-found]
            import rtde_receive  # type: ignore[import-not-found]
        except ImportError as caught:
            raise MissingPackageError(NAME, "ur_rtde", caught, "ur") from caught
        self._makes = (
            rtde_receive.RTDEReceiveInterface,
            rtde_control.RTDEControlInterface,
            dashboard_client.DashboardClient,
        )
        self._limits, self._address, self._has_gripper = limits, address, gripper == "robotiq"
        self._receive: Any = None
        self._control: Any = None
        self._dashboard: Any = None
        self._gripper: Robotiq | None = None
        self._servoing = False
        self._stopped_s = 0.0
        self._seen = -1.0, 0
        self.stopped = False
        """Whether set-points are ignored until `recover`."""

    @property
    def spec(self) -> DriverSpec:
        """Return who it is."""
        return DriverSpec(NAME, self._limits.arm)

    @property
    def caps(self) -> Caps:
        """Return what it can do: move."""
        return Caps(moves=True)

    def connect(self, now_ns: int) -> None:
        """Open the arm and load the servo program; it stands.

        Raises:
            DriverError: If it does not answer, or is stopped: somebody has to look at it first.
        """
        receive, control, dashboard = self._makes
        problem = f"cannot open {self._address}"
        self._receive = self._asked(problem, lambda: receive(self._address))
        if self._receive.isProtectiveStopped() or self._receive.isEmergencyStopped():
            raise DriverError(NAME, f"finds the arm at {self._address} stopped; release it at its own panel")
        self._control = self._asked(problem, lambda: control(self._address))
        self._dashboard = dashboard(self._address)
        self._asked("cannot open the dashboard", self._dashboard.connect)
        if self._has_gripper:
            self._gripper = Robotiq(self._address, self._limits)

    def read(self, now_ns: int) -> RobotState:
        """Return the newest state; it is as old as the controller's own clock says that it stood still.

        Torques are the motors' target moments: this arm measures currents.
        """
        receive = self._opened(self._receive)
        if not receive.isConnected():
            raise DriverError(NAME, "has lost the controller")
        clock = float(receive.getTimestamp())
        if clock != self._seen[0]:
            self._seen = clock, now_ns
        return RobotState(
            t_ns=self._seen[1],
            joints_rad=np.array(receive.getActualQ()),
            velocities_rad_s=np.array(receive.getActualQd()),
            torques_nm=np.array(receive.getTargetMoment()),
            gripper_m=self._gripper.width_m if self._gripper else self._limits.gripper_open_m,
            collision=receive.isProtectiveStopped() and not self.stopped,
        )

    def command(self, set_point: SetPoint) -> None:
        """Servo to a set-point within one period.

        Raises:
            DriverError: If the controller does not take it: its program has ended, or it is stopped.
        """
        if self.stopped:
            return
        control, period_s = self._opened(self._control), self._limits.period_s
        joints = [float(joint) for joint in set_point.joints_rad]
        self._servoing = True
        taken = self._asked(
            "refuses a set-point", lambda: control.servoJ(joints, 0.0, 0.0, period_s, LOOKAHEAD_S, GAIN)
        )
        if not taken:
            raise DriverError(NAME, "refuses a set-point: the program on the controller has ended")
        if self._gripper is not None:
            self._gripper.aim(set_point.gripper_m)

    def hold(self) -> None:
        """Brake to a stand; the controller holds."""
        control = self._opened(self._control)
        if self._servoing:
            self._asked("cannot stop servoing", lambda: control.servoStop(BRAKING_M_S2))
            self._servoing = False

    def stop(self) -> None:
        """Trigger a protective stop; the program on the controller ends."""
        self.stopped, self._servoing, self._stopped_s = True, False, time.monotonic()
        self._asked("cannot stop", self._opened(self._control).triggerProtectiveStop)

    def home(self) -> None:
        """Do nothing: servoing begins with the first set-point."""

    def recover(self) -> None:
        """Release a protective stop and load the servo program again.

        Raises:
            DriverError: If it is too early, or the controller does not recover.
        """
        receive, control = self._opened(self._receive), self._opened(self._control)
        left_s = UNLOCK_S - (time.monotonic() - self._stopped_s)
        if left_s > 0:
            raise DriverError(NAME, f"cannot recover for another {left_s:.0f} s: the controller waits after a stop")
        if receive.isProtectiveStopped():
            self._asked("cannot release the protective stop", self._dashboard.unlockProtectiveStop)
        if not control.isProgramRunning() and not self._asked("cannot load its program", control.reuploadScript):
            raise DriverError(NAME, "cannot load its program: is the arm in remote control?")
        self.stopped = False

    def begin(self, task: int, init_state: int) -> str:
        """Return the hash of the start that a person was asked to place."""
        return asked_sha256(task, init_state)

    def close(self) -> None:
        """End the program on the controller, and let go."""
        if self._gripper is not None:
            self._gripper.close()
        with suppress(RuntimeError):
            if self._control is not None:
                if self._servoing:
                    self._control.servoStop(BRAKING_M_S2)
                self._control.stopScript()
                self._control.disconnect()
            for link in (self._receive, self._dashboard):
                if link is not None:
                    link.disconnect()
        self._receive = self._control = self._dashboard = self._gripper = None
        self._servoing = False

    def _opened(self, link: Any) -> Any:
        if link is None:
            raise DriverError(NAME, "is not connected")
        return link

    def _asked(self, problem: str, ask: Callable[[], Answer]) -> Answer:
        try:
            return ask()
        except RuntimeError as caught:  # what ur_rtde raises for everything
            raise DriverError(NAME, f"{problem} ({caught})") from caught
