"""Any robot with LeRobot's interface: `connect`, `get_observation`, `send_action`, `disconnect`. It is not imported.

Such a robot waits for its motors, so it is asked in a thread. It has no stop that software could ask for: `stop` means
that it is sent nothing more. Give it no cameras: they are the endpoint's (docs/real-robot.md).
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vla_bench.errors import OptionError
from vla_bench_envs.robot.driver import Caps, DriverSpec, RobotState, asked_sha256
from vla_bench_envs.robot.drivers.worker import Worker
from vla_bench_envs.robot.errors import DriverError
from vla_bench_envs.robot.limiter import SetPoint
from vla_bench_envs.robot.limits import Limits
from vla_bench_envs.robot.plugin import imported

NAME = "lerobot"

RAD_OF_UNIT = {"degrees": np.pi / 180, "radians": 1.0}
"""What one of a joint's numbers is in rad."""

SMOOTHING_S = 0.05
"""Time constant of the filter on velocities, which are differences of positions."""


class LerobotArm:
    """A robot of somebody else, by the names of its joints."""

    def __init__(
        self,
        limits: Limits,
        make: str,
        joints: Sequence[str],
        units: str = "degrees",
        gripper: str = "",
        gripper_closed: float = 0.0,
        gripper_open: float = 100.0,
        robot: Mapping[str, Any] | None = None,
    ) -> None:
        """Make the robot.

        Args:
            limits: Of the arm.
            make: Where a callable is that returns the robot, as `package.module:name`.
            joints: Keys of the joints' positions in its observations and actions, in the order of the arm's chain.
            units: Of these positions, `degrees` or `radians`.
            gripper: Key of the gripper's position; empty if there is none.
            gripper_closed: Its position when the fingers touch.
            gripper_open: Its position when the fingers are `gripper_open_m` of the limits apart.
            robot: Keyword arguments of the callable.

        Raises:
            OptionError: If an option does not fit the arm, or the callable cannot be imported.
        """
        if len(joints) != limits.chain.n_joints:
            raise OptionError("joints", list(joints), f"{limits.chain.n_joints} names, the joints of {limits.arm!r}")
        if units not in RAD_OF_UNIT:
            raise OptionError("units", units, f"one of {', '.join(RAD_OF_UNIT)}")
        if gripper_closed == gripper_open:
            raise OptionError("gripper_open", gripper_open, "another number than gripper_closed")
        self._limits, self._joints, self._unit_rad = limits, tuple(joints), RAD_OF_UNIT[units]
        self._gripper, self._closed, self._open = gripper, gripper_closed, gripper_open
        self._robot: Any = imported(make)(**(robot or {}))
        self._worker: Worker | None = None
        self._state: RobotState | None = None
        self._action: dict[str, float] | None = None
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
        """Connect, look once, and go on looking in a thread.

        Raises:
            DriverError: If it does not connect, or its observations lack a joint.
        """
        try:
            self._robot.connect()
            self._look()
        except (OSError, RuntimeError, ValueError) as caught:
            raise DriverError(NAME, f"cannot connect ({caught})") from caught
        self._worker = Worker(NAME, self._turn, 0.0)

    def read(self, now_ns: int) -> RobotState:
        """Return the newest state; it has no torques, since this interface tells none."""
        if self._worker is None or self._state is None:
            raise DriverError(NAME, "is not connected")
        self._worker.check()
        state = self._state
        joints, velocities, torques = (
            values.copy() for values in (state.joints_rad, state.velocities_rad_s, state.torques_nm)
        )
        return RobotState(state.t_ns, joints, velocities, torques, state.gripper_m)

    def command(self, set_point: SetPoint) -> None:
        """Have the next turn of the thread send a set-point."""
        if self._worker is None:
            raise DriverError(NAME, "is not connected")
        self._worker.check()
        if not self.stopped:
            self._action = self._numbers(set_point.joints_rad, set_point.gripper_m)

    def hold(self) -> None:
        """Send where it is now."""
        state = self._state
        if state is not None:
            self._action = self._numbers(state.joints_rad, state.gripper_m)

    def stop(self) -> None:
        """Send where it is now, and nothing more."""
        self.hold()
        self.stopped = True

    def home(self) -> None:
        """Do nothing."""

    def recover(self) -> None:
        """Take set-points again."""
        self.stopped = False

    def begin(self, task: int, init_state: int) -> str:
        """Return the hash of the start that a person was asked to place."""
        return asked_sha256(task, init_state)

    def close(self) -> None:
        """End the thread and disconnect."""
        if self._worker is not None:
            self._worker.close()
            self._robot.disconnect()
            self._worker = None

    def _turn(self) -> None:
        began_s = time.monotonic()
        action, self._action = self._action, None
        if action is not None:
            self._robot.send_action(action)
        self._look()
        time.sleep(max(0.0, self._limits.period_s / 2 - (time.monotonic() - began_s)))

    def _look(self) -> None:
        obs = self._robot.get_observation()
        now_ns = time.monotonic_ns()
        missing = [key for key in (*self._joints, *filter(None, [self._gripper])) if key not in obs]
        if missing:
            raise DriverError(NAME, f"observes no {', '.join(missing)}; it has {', '.join(map(str, obs))}")
        joints = np.array([float(obs[key]) for key in self._joints]) * self._unit_rad
        velocities, last = np.zeros_like(joints), self._state
        if last is not None and now_ns > last.t_ns:
            passed_s = (now_ns - last.t_ns) * 1e-9
            share = passed_s / (passed_s + SMOOTHING_S)
            measured = (joints - last.joints_rad) / passed_s
            velocities = last.velocities_rad_s + share * (measured - last.velocities_rad_s)
        self._state = RobotState(now_ns, joints, velocities, np.zeros_like(joints), self._width_m(obs))

    def _width_m(self, obs: Mapping[str, Any]) -> float:
        if not self._gripper:
            return self._limits.gripper_open_m
        share = (float(obs[self._gripper]) - self._closed) / (self._open - self._closed)
        return self._limits.gripper_open_m * min(1.0, max(0.0, share))

    def _numbers(self, joints_rad: np.ndarray, gripper_m: float) -> dict[str, float]:
        action = dict(zip(self._joints, (float(joint) for joint in joints_rad / self._unit_rad), strict=True))
        if self._gripper:
            share = gripper_m / self._limits.gripper_open_m
            action[self._gripper] = self._closed + share * (self._open - self._closed)
        return action
