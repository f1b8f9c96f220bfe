"""Whether an arm stands, from what was measured of it.

A measured velocity alone does not say: an arm that its own controller holds may shiver within a tenth of a milliradian
at velocities that alternate from one millisecond to the next. Seen in franky-sim after a stop: +-0.08 rad/s, for good.
"""

import numpy as np

from vla_bench_envs.robot.driver import RobotState

STANDING_RAD_S = 0.05
"""Measured velocity of every joint below which the arm stands."""

STANDING_RAD = 0.002
STANDING_MS = 200.0
"""It stands, too, if no joint has left its place by so much for so long: 0.01 rad/s on average."""


class Standstill:
    """Remembers since when no joint has left its place."""

    def __init__(self) -> None:
        self._place_rad: np.ndarray | None = None
        self._since_ns = 0

    def measured(self, state: RobotState) -> None:
        """Take note of a measurement."""
        place = self._place_rad
        if place is None or place.shape != state.joints_rad.shape:
            near = False
        else:
            near = bool((np.abs(state.joints_rad - place) <= STANDING_RAD).all())  # NaN is not near
        if not near:
            self._place_rad, self._since_ns = state.joints_rad.copy(), state.t_ns

    def holds(self, state: RobotState) -> bool:
        """Return whether the arm stands; a measurement that grows old proves nothing more with time."""
        slow = np.abs(state.velocities_rad_s).max() <= STANDING_RAD_S
        return bool(slow) or state.t_ns - self._since_ns >= STANDING_MS * 1e6
