"""The gate: every action passes all checks, in the order of the specification, before the limiter sees a goal.

`admit` judges a message (who, when, in answer to what), `rule` one row of its chunk (how far, where to). A refusal has
a reason code, every reason a counter, and what is applied instead is always returned.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from vla_bench.types import ActionSpec
from vla_bench_envs.robot.kinematics import Pose, tilt_rad
from vla_bench_envs.robot.limits import Limits
from vla_bench_envs.robot.phases import FOLLOWING, Phase
from vla_bench_envs.robot.reasons import Reason, Verdict

MODE = "delta_pose"
"""The only kind of action in version 1: a change of the tool's pose in the base frame, and a gripper command."""

MAX_ROWS = 64
"""Rows of a chunk."""

N_REMEMBERED = 512
"""Observations whose capture time is remembered."""

N_REJECTS, REJECTS_WITHIN_NS = 3, 1_000_000_000
"""So many refusals within this time hold the robot."""


@dataclass(frozen=True)
class Ruling:
    """What the gate says about one row."""

    verdict: Verdict
    reasons: tuple[Reason, ...] = ()
    applied: tuple[float, ...] = ()
    """The row as it was applied, in the units of the action specification; empty if refused."""

    goal_rad: np.ndarray | None = None
    """Joints (n,) to move to; None if refused."""

    gripper_m: float = 0.0


class Gate:
    """Judge actions; remembers sequence numbers, observations and refusals."""

    def __init__(self, limits: Limits, spec: ActionSpec, collides: Callable[[np.ndarray], bool]) -> None:
        """Judge actions of `spec` by `limits`; `collides` says whether a posture touches something fixed."""
        self.limits, self.spec = limits, spec
        self._chain, self._collides = limits.chain, collides
        self.counters: Counter[str] = Counter()
        """How often each verdict and reason was given."""
        self._captured_ns: OrderedDict[int, int] = OrderedDict()
        self._next_observation = 1
        self._last_sequence = -1
        self._refusals_ns: deque[int] = deque(maxlen=N_REJECTS)

    def observed(self, captured_ns: int) -> int:
        """Return a new observation number for something captured at this time on the server's clock."""
        number = self._next_observation
        self._next_observation += 1
        self._captured_ns[number] = captured_ns
        while len(self._captured_ns) > N_REMEMBERED:
            self._captured_ns.popitem(last=False)
        return number

    def captured_ns(self, observation: int) -> int | None:
        """Return when an observation was captured, or None if it is unknown."""
        return self._captured_ns.get(observation)

    def renew(self) -> None:
        """Begin a lease: sequence numbers start again, refusals are forgotten, counters go on."""
        self._last_sequence = -1
        self._refusals_ns.clear()

    def admit(self, message: dict[str, Any], leased: bool, phase: Phase, now_ns: int) -> Reason | None:
        """Return why a message is refused, or None; checks 1 to 7."""
        chunk = message["chunk"]
        captured_ns = self.captured_ns(message["obs_seq"])
        if not leased:
            return Reason.NO_LEASE
        if phase not in FOLLOWING:
            return Reason.PHASE
        if message["mode"] != MODE:
            return Reason.MODE
        if message["seq"] <= self._last_sequence:
            return Reason.SEQUENCE
        self._last_sequence = message["seq"]  # used up, whatever becomes of it: a copy is never taken
        if not isinstance(chunk, np.ndarray) or chunk.ndim != 2 or not 1 <= len(chunk) <= MAX_ROWS:
            return Reason.SHAPE
        if chunk.shape[1] != self.spec.size or chunk.dtype.kind not in "fiu":
            return Reason.SHAPE
        if not np.isfinite(chunk).all():
            return Reason.NON_FINITE
        if captured_ns is None:
            return Reason.UNKNOWN_OBS
        return Reason.STALE_OBS if now_ns - captured_ns > self.limits.observation_age_ms * 1e6 else None

    def refused(self, reason: Reason, now_ns: int) -> bool:
        """Count a refusal; return whether there were so many that the robot must hold."""
        self.counters[Verdict.REJECTED] += 1
        self.counters[reason] += 1
        if reason in (Reason.NO_LEASE, Reason.PHASE):
            return False  # says nothing about the one who moves the robot
        self._refusals_ns.append(now_ns)
        return len(self._refusals_ns) == N_REJECTS and now_ns - self._refusals_ns[0] <= REJECTS_WITHIN_NS

    def rule(self, row: np.ndarray, pose: Pose, joints_rad: np.ndarray) -> Ruling:
        """Return what becomes of a finite row (size,) when the set-point is at `pose`; checks 8 to 14."""
        reasons: list[Reason] = []
        action = np.clip(row.astype(float), self.spec.low, self.spec.high)
        if not np.array_equal(action, row):
            reasons.append(Reason.RANGE)
        translation, rotation = action[:3] * self.spec.translation_m, action[3:6] * self.spec.rotation_rad
        for change, most in ((translation, self.limits.step_m), (rotation, self.limits.step_rad)):
            length = float(np.linalg.norm(change))
            if length > most:
                change *= most / length
                reasons.append(Reason.STEP)
        goal = self._within_workspace(pose, translation, rotation, reasons)
        joints, refusal = self._joints(goal, joints_rad)
        if joints is None or refusal:
            return Ruling(Verdict.REJECTED, (*reasons, refusal or Reason.UNREACHABLE))
        closing = action[6] if self.spec.gripper == "close_is_positive" else -action[6]
        gripper_m = self.limits.gripper_open_m * float(1.0 - closing) / 2
        verdict = Verdict.CLAMPED if reasons else Verdict.OK
        turned = Rotation.from_matrix(goal.rotation @ pose.rotation.T).as_rotvec()
        moved = (goal.position_m - pose.position_m) / self.spec.translation_m
        applied = np.concatenate([moved, turned / self.spec.rotation_rad, action[6:]])
        return Ruling(verdict, tuple(dict.fromkeys(reasons)), tuple(map(float, applied)), joints, gripper_m)

    def ruled(self, ruling: Ruling) -> None:
        """Count what was applied; refusals are counted by `refused`."""
        self.counters[ruling.verdict] += 1
        self.counters.update(ruling.reasons)

    def _within_workspace(
        self, pose: Pose, translation_m: np.ndarray, rotation_rad: np.ndarray, reasons: list[Reason]
    ) -> Pose:
        """Return the goal's pose inside the box and the cone, and say what was changed."""
        wished = pose.position_m + translation_m
        position = np.clip(wished, *self.limits.goal_box_m)
        if not np.array_equal(position, wished):
            reasons.append(Reason.BOX)
        turned = Rotation.from_rotvec(rotation_rad).as_matrix() @ pose.rotation
        excess = float(tilt_rad(turned)) - (self.limits.cone_rad - self.limits.cone_margin_rad)
        if excess > 0:
            upright = np.cross(turned[:, 2], [0.0, 0.0, -1.0])  # the axis about which the tool tilts back
            length = float(np.linalg.norm(upright))
            axis = upright / length if length > 0 else np.array([1.0, 0.0, 0.0])
            turned = Rotation.from_rotvec(axis * excess).as_matrix() @ turned
            reasons.append(Reason.CONE)
        return Pose(position, turned)

    def _joints(self, goal: Pose, joints_rad: np.ndarray) -> tuple[np.ndarray | None, Reason | None]:
        """Return the joints that reach a pose, and why they are refused."""
        joints = self._chain.solve(goal, joints_rad, np.array(self.limits.home_rad))
        if joints is None:
            return None, Reason.UNREACHABLE
        low, high = self.limits.joint_range_rad
        if (joints < low).any() or (joints > high).any():
            return joints, Reason.JOINT_MARGIN
        singular = np.linalg.svd(self._chain.jacobian(joints)[1], compute_uv=False)
        if singular[-1] < self.limits.least_singular_value:
            return joints, Reason.SINGULAR
        return joints, Reason.COLLISION if self._collides(joints) else None
