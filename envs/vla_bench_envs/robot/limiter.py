"""From goals to set-points that keep every limit, by construction.

A set-point is sent only as the first of a *plan*: that set-point, then a straight braking to rest, all of it checked
against every limit on the very numbers that would be sent. If the wished plan fails, the one before it goes on, whose
remaining rows were checked when it was made. So whatever the goals are, and whenever they stop coming, every set-point
keeps the joints' range, velocity and acceleration, the tool's box, cone, speed and acceleration, and touches nothing.
This is a backup-trajectory filter (Bastani 2021, "Safe reinforcement learning with nonlinear dynamics via model
predictive shielding", ACC) with braking as the backup.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vla_bench_envs.robot.errors import OutsideError
from vla_bench_envs.robot.kinematics import Pose, tilt_rad
from vla_bench_envs.robot.limits import Limits

AIM = 0.9
"""Share of a velocity limit that motion aims at; the rest is for rounding and curvature."""

BRAKE = 0.98
"""Share of a joint's acceleration limit that braking uses."""

TOOL_BRAKE = 0.7
"""Share of the tool's acceleration limit that braking uses; the rest is centripetal."""

LANDING = 0.4
"""Share of an acceleration limit with which motion ends: half of it and less lands on the goal without overshoot."""

LONGEST_BRAKE_TICKS = 400
"""Beyond this a plan is refused unseen; 4 s at 100 Hz."""


@dataclass(frozen=True)
class SetPoint:
    """What goes to a driver at every tick."""

    joints_rad: np.ndarray
    """(n,)."""

    gripper_m: float
    """Distance between the fingers."""


class Limiter:
    """Move a set-point towards goals without ever leaving the limits."""

    def __init__(self, limits: Limits, collides: Callable[[np.ndarray], bool]) -> None:
        """Start at the home posture; `collides` says whether a posture (n,) touches something fixed."""
        self.limits = limits
        self._chain, self._collides, self._dt = limits.chain, collides, limits.period_s
        self._low, self._high = limits.joint_range_rad
        self._velocity_limit = np.array(limits.joint_velocity_rad_s)
        self._acceleration_limit = np.array(limits.joint_acceleration_rad_s2)
        self._sent = np.tile(np.array(limits.home_rad), (2, 1))
        self._plan = np.empty((0, len(limits.home_rad)))
        self._gripper_m = limits.gripper_open_m
        self.braked = False
        """Whether the last tick refused the wished motion."""

    def restart(self, joints_rad: np.ndarray, gripper_m: float) -> None:
        """Take over an arm that stands at a posture (n,).

        Raises:
            OutsideError: If it stands outside of the limits; then nothing changes.
        """
        before = self._sent, self._plan
        self._sent, self._plan = np.tile(np.asarray(joints_rad, dtype=float), (2, 1)), self._plan[:0]
        problem = self._problem(self._sent[:1])
        if problem:
            self._sent, self._plan = before
            raise OutsideError(problem)
        self._gripper_m = float(np.clip(gripper_m, 0.0, self.limits.gripper_open_m))

    @property
    def joints_rad(self) -> np.ndarray:
        """Return the last set-point (n,)."""
        return self._sent[1].copy()

    @property
    def gripper_m(self) -> float:
        """Return the last distance between the fingers."""
        return self._gripper_m

    @property
    def pose(self) -> Pose:
        """Return where the last set-point puts the tool."""
        return self._chain.pose(self._sent[1])

    @property
    def at_rest(self) -> bool:
        """Return whether the set-point stands still."""
        return not len(self._plan) and bool((self._sent[0] == self._sent[1]).all())

    def step(self, goal_rad: np.ndarray | None, gripper_m: float | None) -> SetPoint:
        """Return the next set-point on the way to a goal (n,); None brakes, and keeps the gripper."""
        self.braked = False
        if goal_rad is not None and np.isfinite(goal_rad).all():
            self._replan(np.clip(goal_rad, self._low, self._high))
        following = self._plan[0] if len(self._plan) else self._sent[1]
        self._plan = self._plan[1:]
        self._sent = np.stack([self._sent[1], following])
        if gripper_m is not None and np.isfinite(gripper_m):
            reach = self.limits.gripper_speed_m_s * self._dt * AIM
            wished = np.clip(gripper_m, 0.0, self.limits.gripper_open_m)
            self._gripper_m += float(np.clip(wished - self._gripper_m, -reach, reach))
        return SetPoint(following.copy(), self._gripper_m)

    def _replan(self, goal_rad: np.ndarray) -> None:
        """Adopt the fastest acceptable plan: the wish, or between it and braking; else keep the old one."""
        velocity = (self._sent[1] - self._sent[0]) / self._dt
        jacobian = self._chain.jacobian(self._sent[1])[1][:3]
        wish = self._wish(goal_rad, velocity, jacobian)
        braking = (self._plan[0] - self._sent[1]) / self._dt if len(self._plan) else np.zeros_like(velocity)
        for share in (1.0, 0.5, 0.2):
            plan = self._with_braking(braking + share * (wish - braking), jacobian)
            if plan is not None and self._problem(plan) is None:
                self._plan = plan
                return
        self.braked = True

    def _wish(self, goal_rad: np.ndarray, velocity: np.ndarray, jacobian: np.ndarray) -> np.ndarray:
        """Return the next joint velocity (n,): straight to the goal, no faster than it can stop there."""
        error = goal_rad - self._sent[1]
        distance = np.abs(error)
        cap = np.minimum(AIM * self._velocity_limit, np.sqrt(2 * LANDING * self._acceleration_limit * distance))
        moving = distance > 0
        rate = min(float((cap[moving] / distance[moving]).min(initial=np.inf)), 1.0 / self._dt)
        tool_m = float(np.linalg.norm(jacobian @ error))
        if tool_m > 0:
            limits = self.limits
            rate = min(rate, AIM * limits.tool_speed_m_s / tool_m)
            rate = min(rate, float(np.sqrt(2 * LANDING * limits.tool_acceleration_m_s2 / tool_m)))
        change = error * rate - velocity
        share = BRAKE * self._acceleration_limit * self._dt / np.maximum(np.abs(change), 1e-12)
        tool_change = max(float(np.linalg.norm(jacobian @ change)), 1e-12)
        tool_share = TOOL_BRAKE * self.limits.tool_acceleration_m_s2 * self._dt / tool_change
        return velocity + min(1.0, float(share.min()), tool_share) * change

    def _with_braking(self, velocity: np.ndarray, jacobian: np.ndarray) -> np.ndarray | None:
        """Return set-points (k, n): one tick at a velocity, then braking along a straight line to rest."""
        needed = np.abs(velocity) / (BRAKE * self._acceleration_limit * self._dt)
        tool = np.linalg.norm(jacobian @ velocity) / (TOOL_BRAKE * self.limits.tool_acceleration_m_s2 * self._dt)
        n_ticks = max(float(needed.max()), float(tool))
        if not n_ticks <= LONGEST_BRAKE_TICKS:
            return None
        n_ticks = int(np.ceil(n_ticks))
        fade = np.linspace(1.0, 0.0, n_ticks + 1)[:-1] if n_ticks else np.ones(1)
        return self._sent[1] + np.cumsum(fade[:, None] * velocity * self._dt, axis=0)

    def _problem(self, plan: np.ndarray) -> str | None:
        """Return which limit a plan (k, n) breaks, the two set-points before it and the rest after it included."""
        rows = np.concatenate([self._sent, plan, plan[-1:]])
        if not np.isfinite(rows).all():
            return "not finite"
        if (plan < self._low).any() or (plan > self._high).any():
            return "joint range"
        steps = np.diff(rows, axis=0)
        if (np.abs(steps) / self._dt > self._velocity_limit).any():
            return "joint velocity"
        if (np.abs(np.diff(steps, axis=0)) / self._dt**2 > self._acceleration_limit).any():
            return "joint acceleration"
        positions, rotations = self._chain.poses(rows)
        return self._tool_problem(positions, rotations[2:-1]) or (
            "collision" if any(self._collides(row) for row in (plan[0], plan[-1])) else None
        )

    def _tool_problem(self, positions: np.ndarray, rotations: np.ndarray) -> str | None:
        limits = self.limits
        inside = positions[2:-1]
        if (inside < limits.box_low_m).any() or (inside > limits.box_high_m).any():
            return "box"
        if (tilt_rad(rotations) > limits.cone_rad).any():
            return "cone"
        steps = np.diff(positions, axis=0)
        if (np.linalg.norm(steps, axis=1) / self._dt > limits.tool_speed_m_s).any():
            return "tool speed"
        accelerations = np.linalg.norm(np.diff(steps, axis=0), axis=1) / self._dt**2
        return "tool acceleration" if (accelerations > limits.tool_acceleration_m_s2).any() else None
