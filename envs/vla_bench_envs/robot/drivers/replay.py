"""An arm that relives a log: it measures what was measured then, and only writes down what it is told."""

from bisect import bisect_right
from pathlib import Path

import numpy as np

from vla_bench_envs.robot.driver import Caps, DriverSpec, RobotState
from vla_bench_envs.robot.errors import DriverError, LogError
from vla_bench_envs.robot.limiter import SetPoint
from vla_bench_envs.robot.limits import Limits
from vla_bench_envs.robot.log import read


class Replay:
    """The states of a log, by time since `connect`; the last one stays."""

    def __init__(self, limits: Limits, source: Path | str | None = None) -> None:
        """Read the observations of a log.

        Raises:
            LogError: If no log is named, or it holds no observation of this arm.
        """
        if not source:
            raise LogError("the driver 'replay'", "has no log to play (--source)")
        self._arm, self._n_joints = limits.arm, len(limits.home_rad)
        self._states = [self._state(record) for topic, _, record in read(Path(source)) if topic == "/obs"]
        if not self._states or any(len(state.joints_rad) != self._n_joints for state in self._states):
            raise LogError(source, f"holds no observation of an arm with {self._n_joints} joints")
        self._times_ns = [state.t_ns - self._states[0].t_ns for state in self._states]
        self._connected_ns = 0
        self.sent: list[SetPoint] = []
        """Every set-point that it was told."""

    @staticmethod
    def _state(record: dict) -> RobotState:
        state = record["state"]
        joints = np.array(state["joints_rad"], dtype=float)
        velocities = np.array(state["velocities_rad_s"], dtype=float)
        return RobotState(
            record["t_cap_ns"], joints, velocities, np.zeros_like(joints), state["gripper_m"], success=state["success"]
        )

    @property
    def spec(self) -> DriverSpec:
        """Return who it is."""
        return DriverSpec("replay", self._arm)

    @property
    def caps(self) -> Caps:
        """Return what it can do: nothing moves."""
        return Caps(moves=False, knows_success=self._states[0].success is not None)

    def connect(self, now_ns: int) -> None:
        """Begin the log's time now."""
        self._connected_ns = now_ns

    def read(self, now_ns: int) -> RobotState:
        """Return the last state that was measured so long after the first, as if it were measured now."""
        place = max(0, bisect_right(self._times_ns, now_ns - self._connected_ns) - 1)
        then = self._states[place]
        return RobotState(
            now_ns, then.joints_rad.copy(), then.velocities_rad_s.copy(), then.torques_nm.copy(), then.gripper_m,
            success=then.success,
        )  # fmt: skip

    def command(self, set_point: SetPoint) -> None:
        """Write it down."""
        self.sent.append(set_point)

    def hold(self) -> None:
        """Do nothing: it never moves."""

    stop = home = recover = close = hold

    def begin(self, task: int, init_state: int) -> str:
        """Refuse: a log begins where it began.

        Raises:
            DriverError: Always.
        """
        raise DriverError("replay", f"cannot begin task {task}, start {init_state}: a log begins where it began")
