"""What every driver promises, as checks that anybody can run on theirs: `vla-bench robot conformance`.

The checks move the arm by `AMPLITUDE_RAD` around where it stands: clear the table first. Each promise is a function
whose name is the promise and that returns what was found instead, or None if it is kept.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import numpy as np

from vla_bench.errors import VlaBenchError
from vla_bench_envs.robot.driver import Driver, RobotState
from vla_bench_envs.robot.errors import DriverError
from vla_bench_envs.robot.limiter import Limiter
from vla_bench_envs.robot.limits import Limits

AMPLITUDE_RAD = 0.05
"""How far each joint is moved."""

STANDING_RAD = 0.005
"""An arm that stands moves less than this."""

ARRIVED_RAD = 0.01
"""A set-point is reached when every joint is this near."""

STALE_NS = 100_000_000
"""A state may not be older when it is read."""

SETTLING_TICKS = 20
"""After a motion."""

PATIENCE_TICKS = 300
"""For a motion of one amplitude."""


@dataclass
class Bench:
    """A driver on a clock: `wait(n_ticks)` lets so many servo periods pass, `now_ns()` is the time."""

    driver: Driver
    limits: Limits
    now_ns: Callable[[], int]
    wait: Callable[[int], None]
    start: RobotState = field(init=False)

    def read(self) -> RobotState:
        """Return the newest state."""
        return self.driver.read(self.now_ns())

    def go(self, goal_rad: np.ndarray) -> float:
        """Command a motion as the supervisor would; return how far from its goal [rad] the arm ends."""
        limiter = Limiter(self.limits, lambda _: False)
        state = self.read()
        limiter.restart(state.joints_rad, state.gripper_m)
        for _ in range(PATIENCE_TICKS):
            self.driver.command(limiter.step(goal_rad, None))
            self.wait(1)
            if limiter.at_rest:
                break
        self.wait(SETTLING_TICKS)
        return float(np.abs(self.read().joints_rad - goal_rad).max())

    def drift_rad(self, n_ticks: int) -> float:
        """Return how far the arm moves by itself."""
        before = self.read().joints_rad
        self.wait(n_ticks)
        return float(np.abs(self.read().joints_rad - before).max())


def check_driver(bench: Bench) -> list[tuple[str, str | None]]:
    """Hold a driver to its promises, in order; return each with what was found instead, or None."""
    results: list[tuple[str, str | None]] = []
    for promise in PROMISES:
        if promise in _MOVING and not bench.driver.caps.moves:
            continue
        try:
            found = promise(bench)
        except VlaBenchError as caught:
            found = str(caught)
        results.append((promise.__name__.strip("_").replace("_", " "), found))
        if found and promise is _it_connects_and_names_the_arm_of_its_limits:
            break
    return results


def _it_connects_and_names_the_arm_of_its_limits(bench: Bench) -> str | None:
    bench.driver.connect(bench.now_ns())
    bench.start = bench.read()
    spec = bench.driver.spec
    return None if spec.arm == bench.limits.arm and spec.name else f"it names {spec.arm!r} and {spec.name!r}"


def _a_state_is_complete_finite_and_fresh(bench: Bench) -> str | None:
    bench.wait(5)
    state, n_joints = bench.read(), len(bench.limits.home_rad)
    for name in ("joints_rad", "velocities_rad_s", "torques_nm"):
        values = getattr(state, name)
        if np.shape(values) != (n_joints,) or not np.isfinite(values).all():
            return f"{name} is {values!r}"
    if not 0 <= state.gripper_m <= bench.limits.gripper_open_m * 1.05:
        return f"gripper_m is {state.gripper_m}"
    age_ns = bench.now_ns() - state.t_ns
    return None if 0 <= age_ns <= STALE_NS else f"it was {age_ns * 1e-6:.1f} ms old"


def _a_state_is_the_readers_own(bench: Bench) -> str | None:
    state = bench.read()
    kept = state.joints_rad.copy()
    state.joints_rad[:] = 99.0
    return None if np.abs(bench.read().joints_rad - kept).max() < 1 else "changing what was read changed the driver"


def _time_goes_forward(bench: Bench) -> str | None:
    times = []
    for _ in range(5):
        times.append(bench.read().t_ns)
        bench.wait(2)
    return None if times == sorted(times) and times[-1] > times[0] else f"states were taken at {times}"


def _without_commands_it_stands(bench: Bench) -> str | None:
    drift = bench.drift_rad(20)
    return None if drift < STANDING_RAD else f"it moved {drift:.4f} rad"


def _it_goes_where_it_is_told(bench: Bench) -> str | None:
    bench.driver.home()
    for sign in (1, -1, 0):
        goal = bench.start.joints_rad + sign * AMPLITUDE_RAD
        left = bench.go(np.clip(goal, *bench.limits.joint_range_rad))
        if left > ARRIVED_RAD:
            return f"it ended {left:.4f} rad from its goal"
    return None


def _when_commands_end_it_stands(bench: Bench) -> str | None:
    limiter = Limiter(bench.limits, lambda _: False)
    state = bench.read()
    limiter.restart(state.joints_rad, state.gripper_m)
    for _ in range(10):
        bench.driver.command(limiter.step(bench.start.joints_rad + AMPLITUDE_RAD, None))
        bench.wait(1)
    bench.wait(50)
    drift = bench.drift_rad(20)
    return None if drift < STANDING_RAD else f"it moved {drift:.4f} rad half a second after the last set-point"


def _hold_stands(bench: Bench) -> str | None:
    before = bench.read().joints_rad
    bench.driver.hold()
    bench.wait(40)
    moved = float(np.abs(bench.read().joints_rad - before).max())
    return None if moved < STANDING_RAD else f"it moved {moved:.4f} rad"


def _stop_ignores_set_points_until_recover(bench: Bench) -> str | None:
    bench.driver.stop()
    bench.wait(20)
    before = bench.read().joints_rad
    with suppress(DriverError):  # refusing aloud is as good
        bench.go(bench.start.joints_rad + AMPLITUDE_RAD)
    moved = float(np.abs(bench.read().joints_rad - before).max())
    bench.driver.recover()
    bench.driver.home()
    bench.wait(5)
    left = bench.go(bench.start.joints_rad)
    if moved > STANDING_RAD:
        return f"it moved {moved:.4f} rad after stop()"
    return None if left <= ARRIVED_RAD else f"it ended {left:.4f} rad from its goal after recover()"


def _a_trial_begins_the_same_way_twice(bench: Bench) -> str | None:
    if not bench.driver.caps.places_objects:
        return None
    one, other, again = (bench.driver.begin(0, start) for start in (0, 1, 0))
    if len(one) != 64 or one != again or one == other:
        return f"the hashes of starts 0, 1 and 0 are {one[:8]}, {other[:8]} and {again[:8]}"
    return None


def _it_can_be_closed_twice(bench: Bench) -> str | None:
    bench.driver.close()
    bench.driver.close()
    return None


_MOVING = (
    _without_commands_it_stands,  # a replay relives motion
    _it_goes_where_it_is_told,
    _when_commands_end_it_stands,
    _hold_stands,
    _stop_ignores_set_points_until_recover,
)
"""Asked only of a driver that moves an arm."""

PROMISES = (
    _it_connects_and_names_the_arm_of_its_limits,
    _a_state_is_complete_finite_and_fresh,
    _a_state_is_the_readers_own,
    _time_goes_forward,
    _without_commands_it_stands,
    _it_goes_where_it_is_told,
    _when_commands_end_it_stands,
    _hold_stands,
    _stop_ignores_set_points_until_recover,
    _a_trial_begins_the_same_way_twice,
    _it_can_be_closed_twice,
)
"""In the order in which they are checked."""
