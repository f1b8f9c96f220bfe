"""What is wrong with an arm that moves, from what it measures."""

import numpy as np

from vla_bench_envs.robot.driver import RobotState
from vla_bench_envs.robot.limits import Limits
from vla_bench_envs.robot.reasons import Cause


def fault(state: RobotState, set_point_rad: np.ndarray, limits: Limits, now_ns: int) -> Cause | None:
    """Return the first thing that is wrong with a state while set-points are followed, or None."""
    measured = (state.joints_rad, state.velocities_rad_s, state.torques_nm)
    n_joints = limits.chain.n_joints
    if not all(np.shape(values) == (n_joints,) and np.isfinite(values).all() for values in measured):
        return Cause.DRIVER
    if now_ns - state.t_ns > limits.overrun_ms * 1e6:
        return Cause.DRIVER  # an old state says nothing about now
    if state.collision:
        return Cause.COLLISION
    low, high = np.array(limits.joint_low_rad), np.array(limits.joint_high_rad)
    if (state.joints_rad < low).any() or (state.joints_rad > high).any():
        return Cause.JOINT_LIMIT
    if (np.abs(state.velocities_rad_s) > np.multiply(limits.velocity_fault_factor, limits.joint_velocity_rad_s)).any():
        return Cause.VELOCITY_LIMIT
    if (np.abs(state.torques_nm) > limits.joint_torque_nm).any():
        return Cause.TORQUE_LIMIT
    if np.abs(state.joints_rad - set_point_rad).max() > limits.tracking_error_rad:
        return Cause.TRACKING
    return None
