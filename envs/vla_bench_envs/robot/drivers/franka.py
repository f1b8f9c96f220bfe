"""A Franka arm (FR3, or Panda with a client library of its time) by the package franky-control.

The arm follows a joint impedance law that franky runs at 1 kHz in a thread of its own, in this process; a set-point
becomes its reference, with the velocity between the last two. Between set-points the reference stands.
"""

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import numpy as np

from vla_bench.errors import MissingPackageError, OptionError
from vla_bench_envs.robot.driver import Caps, DriverSpec, RobotState, asked_sha256
from vla_bench_envs.robot.drivers.franka_hand import FrankaHand
from vla_bench_envs.robot.drivers.worker import Worker
from vla_bench_envs.robot.errors import DriverError
from vla_bench_envs.robot.limiter import SetPoint
from vla_bench_envs.robot.limits import Limits

NAME = "franky"

STIFFNESS_NM_RAD = (600.0, 600.0, 600.0, 600.0, 250.0, 250.0, 250.0)
DAMPING_NMS_RAD = (50.0, 50.0, 50.0, 50.0, 30.0, 25.0, 20.0)
"""Of each joint. Source: libfranka's example joint_impedance_control, but for the last two joints, which are stiffer:
at its 50 Nm/rad the friction of franky-sim's joints (1.1 Nm) left an arm 16 mrad from its goal."""

CONTACT_NM, CONTACT_N = 20.0, 30.0
"""External torque of a joint and force at the tool beyond which the arm's own controller stops. Source: franky's
default thresholds."""

N_JOINTS = 7
ENDING_S = 3.0
"""Patience for the arm to come to rest when it is let go."""

FOLLOWED_S = 0.1
"""A set-point's velocity is followed for so long; when set-points end, the reference stands."""

Answer = TypeVar("Answer")


class FrankaArm:
    """One arm, and its hand if it has one."""

    def __init__(
        self,
        limits: Limits,
        address: str,
        hand: bool = True,
        realtime: bool = True,
        stiffness_nm_rad: Sequence[float] = STIFFNESS_NM_RAD,
        damping_nms_rad: Sequence[float] = DAMPING_NMS_RAD,
    ) -> None:
        """Remember what to connect to.

        Args:
            limits: Of the arm; `arm` must have seven joints.
            address: Of the arm's control interface (FCI).
            hand: Whether a Franka hand is mounted.
            realtime: Whether a kernel without real-time scheduling is refused; False is for simulators.
            stiffness_nm_rad: Of each joint (7,).
            damping_nms_rad: Of each joint (7,).

        Raises:
            OptionError: If numbers are missing or not positive.
            MissingPackageError: If franky-control is not installed.
        """
        for name, gains in (("stiffness_nm_rad", stiffness_nm_rad), ("damping_nms_rad", damping_nms_rad)):
            if len(gains) != N_JOINTS or not all(gain > 0 for gain in gains):
                raise OptionError(name, list(gains), f"{N_JOINTS} numbers above 0")
        try:
            import franky  # type: ignore[import-not-found]
        except ImportError as caught:
            raise MissingPackageError(NAME, "franky-control", caught, "franky") from caught
        self._franky: Any = franky
        raised = {kind for kind in vars(franky).values() if isinstance(kind, type) and issubclass(kind, Exception)}
        self._errors = (*raised, RuntimeError)
        self._limits, self._address, self._has_hand, self._realtime = limits, address, hand, realtime
        self._gains = {"stiffness": np.array(stiffness_nm_rad), "damping": np.array(damping_nms_rad)}
        self._robot: Any = None
        self._motion: Any = None
        self._hand: FrankaHand | None = None
        self._last_rad: np.ndarray | None = None
        self._seen = -1.0, 0
        self._referring = threading.Lock()
        self._coasts_until_s = np.inf
        """When the velocity of the reference, if it has one, is taken back."""
        self._watch: Worker | None = None
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
        """Open the arm; its own controller holds it.

        Raises:
            DriverError: If it does not answer, or has an error that nobody has looked at.
        """
        franky = self._franky
        config = franky.RealtimeConfig.Enforce if self._realtime else franky.RealtimeConfig.Ignore
        thresholds = {"default_torque_threshold": CONTACT_NM, "default_force_threshold": CONTACT_N}
        self._robot = self._asked(
            f"cannot open {self._address}", lambda: franky.Robot(self._address, realtime_config=config, **thresholds)
        )
        robot = self._robot
        if self._asked("does not answer", lambda: robot.has_errors):
            raise DriverError(NAME, f"finds the arm at {self._address} with an error; clear it in its Desk")
        self._watch = Worker(NAME, self._end_coasting, self._limits.period_s)
        if self._has_hand:
            gripper = self._asked("cannot open the hand", lambda: franky.Gripper(self._address))
            self._hand = FrankaHand(gripper, self._limits)

    def read(self, now_ns: int) -> RobotState:
        """Return the newest state; it is as old as the arm's own clock says that it stood still."""
        if self._watch is not None:
            self._watch.check()
        state = self._state()
        clock = float(state.time.to_msec())
        if clock != self._seen[0]:
            self._seen = clock, now_ns
        errors, modes = state.current_errors, self._franky.RobotMode
        return RobotState(
            t_ns=self._seen[1],
            joints_rad=np.array(state.q),
            velocities_rad_s=np.array(state.dq),
            torques_nm=np.array(state.tau_J),
            gripper_m=self._hand.width_m if self._hand else self._limits.gripper_open_m,
            collision=state.robot_mode == modes.Reflex or errors.joint_reflex or errors.cartesian_reflex,
        )

    def command(self, set_point: SetPoint) -> None:
        """Make a set-point the reference of the impedance law, and begin to follow if it does not yet.

        Raises:
            DriverError: If the arm has ended its control: a reflex, the user stop, a lost link.
        """
        if self.stopped:
            return
        robot = self._opened()
        if self._motion is None:
            self._follow()
        elif self._asked("has lost control", lambda: robot.join_motion(0.0)):
            self._motion = None
            raise DriverError(NAME, "has ended its control by itself")
        last = set_point.joints_rad if self._last_rad is None else self._last_rad
        self._refer(set_point.joints_rad, (set_point.joints_rad - last) * self._limits.servo_hz)
        self._last_rad = set_point.joints_rad.copy()
        if self._hand is not None:
            self._hand.aim(set_point.gripper_m)

    def hold(self) -> None:
        """Make where the arm is the reference."""
        if self._motion is not None:
            self._refer(np.array(self._state().q), np.zeros(N_JOINTS))
            self._last_rad = None

    def stop(self) -> None:
        """Abort the motion: the arm's own controller brakes and holds."""
        self.stopped = True
        robot = self._opened()
        self._asked("cannot stop", robot.stop)
        with suppress(*self._errors):  # it reports that the motion was aborted
            robot.join_motion(ENDING_S)
        self._motion = self._last_rad = None

    def home(self) -> None:
        """Do nothing: following begins with the first set-point, and the hand was referenced by its maker's tool."""

    def recover(self) -> None:
        """Clear a reflex and what `stop` left.

        Raises:
            DriverError: If the arm does not recover: its user stop is pressed, or the error is not of that kind.
        """
        robot = self._opened()
        with suppress(*self._errors):  # what ended the last motion is known already
            robot.join_motion(0.0)
        if not self._asked("cannot recover", robot.recover_from_errors):
            raise DriverError(NAME, f"cannot recover: the arm is in mode {self._state().robot_mode.name}")
        self._motion = self._last_rad = None
        self.stopped = False

    def begin(self, task: int, init_state: int) -> str:
        """Return the hash of the start that a person was asked to place."""
        return asked_sha256(task, init_state)

    def close(self) -> None:
        """Ramp torques down, if it still follows, and let go; the arm's own controller holds."""
        for worker in (self._hand, self._watch):
            if worker is not None:
                worker.close()
        self._hand = self._watch = None
        if self._robot is not None and self._motion is not None:
            with suppress(*self._errors):
                self._robot.move(self._franky.TorqueStopMotion(), asynchronous=True)
                self._robot.join_motion(ENDING_S)
        self._robot = self._motion = None

    def _follow(self) -> None:
        robot = self._opened()
        with suppress(*self._errors):
            robot.join_motion(0.0)  # what ended the last motion is known already, and would be raised again
        self._motion = self._asked(
            "refuses its gains", lambda: self._franky.JointImpedanceTrackingMotion(**self._gains)
        )
        self._refer(np.array(self._state().q), np.zeros(N_JOINTS))
        self._asked("refuses control", lambda: robot.move(self._motion, asynchronous=True))
        self._last_rad = None

    def _refer(self, joints_rad: np.ndarray, velocities_rad_s: np.ndarray) -> None:
        reference = self._franky.JointReference(q=joints_rad, dq=velocities_rad_s)
        with self._referring:
            self._coasts_until_s = time.monotonic() + FOLLOWED_S if velocities_rad_s.any() else np.inf
            self._asked("refuses a set-point", lambda: self._motion.set_reference(reference))

    def _end_coasting(self) -> None:
        """Let the reference stand if set-points have ended; in a thread, since whoever sends them may hang."""
        with self._referring:
            motion, last = self._motion, self._last_rad
            if motion is not None and last is not None and time.monotonic() > self._coasts_until_s:
                motion.set_reference(self._franky.JointReference(q=last, dq=np.zeros(N_JOINTS)))
                self._coasts_until_s = np.inf

    def _state(self) -> Any:
        robot = self._opened()
        return self._asked("does not answer", lambda: robot.state)

    def _opened(self) -> Any:
        if self._robot is None:
            raise DriverError(NAME, "is not connected")
        return self._robot

    def _asked(self, problem: str, ask: Callable[[], Answer]) -> Answer:
        try:
            return ask()
        except self._errors as caught:
            raise DriverError(NAME, f"{problem} ({caught})") from caught
