"""The Franka hand: it takes one motion at a time, so it opens and closes, and follows nothing between."""

from typing import Any

from vla_bench_envs.robot.drivers.worker import Worker
from vla_bench_envs.robot.limits import Limits

TURN_M = 0.005
"""A set-point that has come back so far turns the fingers around."""

GRASP_N = 40.0
"""Force of a grasp. Source: data sheet of the Franka hand, continuous force 30 to 70 N."""

PERIOD_S = 0.02
"""Between two looks at the hand; its own states come every 20 to 100 ms."""


class FrankaHand:
    """Close until something is held when the set-point begins to fall, open fully when it begins to rise."""

    def __init__(self, gripper: Any, limits: Limits) -> None:
        """Take over an open `franky.Gripper`; its motions and states are waited for in a thread."""
        self._gripper, self._limits = gripper, limits
        self.width_m = float(gripper.state.width)
        """Distance between the fingers when it was last looked at."""
        self._wished_m: float | None = None
        self._turned_m = self.width_m
        self._closes: bool | None = None
        self._motion: Any = None
        self._worker = Worker("franky", self._turn, PERIOD_S)

    def aim(self, width_m: float) -> None:
        """Take a set-point.

        Raises:
            DriverError: If the hand does not answer any more.
        """
        self._worker.check()
        self._wished_m = width_m

    def close(self) -> None:
        """Leave the fingers as they are."""
        self._worker.close()

    def _turn(self) -> None:
        self.width_m = float(self._gripper.state.width)
        wished = self._wished_m
        if wished is None:
            return
        if self._closes is None:
            if abs(wished - self.width_m) <= TURN_M:
                return  # nothing was asked for yet
            self._turned_m, self._closes = wished, wished < self.width_m
            self._move()
        elif self._closes:
            self._turned_m = min(self._turned_m, wished)
        else:
            self._turned_m = max(self._turned_m, wished)
        if abs(wished - self._turned_m) > TURN_M:
            self._turned_m, self._closes = wished, not self._closes
            self._move()

    def _move(self) -> None:
        if self._motion is not None and not self._motion.wait(0.0):
            self._gripper.stop()
        speed, open_m = self._limits.gripper_speed_m_s, self._limits.gripper_open_m
        if self._closes:
            self._motion = self._gripper.grasp_async(0.0, speed, GRASP_N, open_m, open_m)
        else:
            self._motion = self._gripper.move_async(open_m, speed)
