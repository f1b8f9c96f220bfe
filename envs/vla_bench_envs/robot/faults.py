"""What is wrong with an arm that moves, from what it measures."""

from dataclasses import dataclass

import numpy as np

from vla_bench_envs.robot.driver import RobotState
from vla_bench_envs.robot.limits import Limits
from vla_bench_envs.robot.reasons import Cause


@dataclass(frozen=True)
class Fault:
    """The first thing that is wrong, and the numbers that say so."""

    cause: Cause
    detail: str


def fault(state: RobotState, set_point_rad: np.ndarray, limits: Limits, now_ns: int) -> Fault | None:
    """Return the first thing that is wrong with a state while set-points are followed, or None."""
    measured = (state.joints_rad, state.velocities_rad_s, state.torques_nm)
    n_joints = limits.chain.n_joints
    if not all(np.shape(values) == (n_joints,) and np.isfinite(values).all() for values in measured):
        return Fault(Cause.DRIVER, f"the state is not {n_joints} finite joints, velocities and torques")
    age_ms = (now_ns - state.t_ns) * 1e-6
    if age_ms > limits.overrun_ms:
        return Fault(Cause.DRIVER, f"the newest state is {age_ms:.0f} ms old")  # it says nothing about now
    if state.collision:
        return Fault(Cause.COLLISION, "the arm's own controller says so")
    beyond = np.maximum(limits.joint_low_rad - state.joints_rad, state.joints_rad - limits.joint_high_rad)
    if (beyond > 0).any():
        return Fault(Cause.JOINT_LIMIT, _joint(beyond, state.joints_rad, "rad"))
    fastest = np.multiply(limits.velocity_fault_factor, limits.joint_velocity_rad_s)
    excess = np.abs(state.velocities_rad_s) - fastest
    if (excess > 0).any():
        return Fault(Cause.VELOCITY_LIMIT, _joint(excess, state.velocities_rad_s, "rad/s"))
    excess = np.abs(state.torques_nm) - limits.joint_torque_nm
    if (excess > 0).any():
        return Fault(Cause.TORQUE_LIMIT, _joint(excess, state.torques_nm, "Nm"))
    lag = np.abs(state.joints_rad - set_point_rad)
    if lag.max() > limits.tracking_error_rad:
        return Fault(Cause.TRACKING, f"{_joint(lag, lag, 'rad')} from its set-point")
    return None


def _joint(excess: np.ndarray, measured: np.ndarray, unit: str) -> str:
    """Name the worst joint and what it measures."""
    worst = int(np.argmax(excess))
    return f"joint {worst + 1} at {measured[worst]:.3g} {unit}"
