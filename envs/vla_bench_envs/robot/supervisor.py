"""The supervisor: state machine, watchdogs, gate, limiter and driver in one object without I/O of its own.

Time comes in as a number, messages come in as maps and go out through `outbox`; so the same object runs in its own
process at 100 Hz, in lock-step on a virtual clock, and under hypothesis.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from vla_bench.types import ActionSpec
from vla_bench_envs.robot.driver import Driver, RobotState
from vla_bench_envs.robot.errors import DriverError, OutsideError
from vla_bench_envs.robot.faults import fault
from vla_bench_envs.robot.gate import Gate, Ruling
from vla_bench_envs.robot.lease import Lease
from vla_bench_envs.robot.limiter import Limiter
from vla_bench_envs.robot.limits import Limits
from vla_bench_envs.robot.phases import ENABLED, FOLLOWING, Phase, leads_to
from vla_bench_envs.robot.reasons import Cause, Reason, Verdict
from vla_bench_envs.robot.schedule import Pending, Schedule
from vla_bench_envs.robot.standing import Standstill

BLOCKED_TICKS = 100
"""Ticks without progress after which homing gives up."""

ARRIVED_RAD = 1e-3
"""Set-point and home may differ by so much, and the arm stands."""

EVERYBODY = ""
"""Session that stands for all."""


class Supervisor:
    """Own the driver; decide at every tick what it is told."""

    def __init__(
        self, limits: Limits, driver: Driver, collides: Callable[[np.ndarray], bool], spec: ActionSpec, dry_run: bool
    ) -> None:
        """Stand in OFFLINE; with `dry_run` everything is decided and nothing is sent to the driver."""
        self.limits, self.driver, self.spec, self.dry_run = limits, driver, spec, dry_run
        self.gate, self.limiter = Gate(limits, spec, collides), Limiter(limits, collides)
        self.lease, self.schedule = Lease(limits), Schedule()
        self.phase = Phase.OFFLINE
        self.cause = Cause.CONNECTED
        self.detail = ""
        """What was measured or what the driver said, if that is why; empty otherwise."""
        self.outbox: deque[tuple[str, dict[str, Any]]] = deque()
        """What is to be sent, as (session, message); the session `EVERYBODY` is an event for all."""
        self.state: RobotState | None = None
        self.deadline_ns = 0
        """Patience for the next action, as the one who armed set it [ns]."""
        self.starved_ms = 0.0
        self._goal_rad: np.ndarray | None = None
        self._gripper_m: float | None = None
        self._applied_ns = self._ticked_ns = self._moved_ns = 0
        self._n_blocked = 0
        self._standstill = Standstill()

    def connect(self, now_ns: int) -> None:
        """Open the driver and stand in IDLE.

        Raises:
            DriverError: If the arm cannot be opened.
        """
        self.driver.connect(now_ns)
        self.state = self.driver.read(now_ns)
        self._ticked_ns = now_ns
        self.enter(Phase.IDLE, Cause.CONNECTED, now_ns)

    def enter(self, phase: Phase, cause: Cause, now_ns: int, detail: str = "") -> bool:
        """Go to a phase if the state machine leads there; return whether it did."""
        if not leads_to(self.phase, phase):
            return False
        left, self.phase, self.cause, self.detail = self.phase, phase, cause, detail
        self._goal_rad, self._n_blocked = None, 0
        if phase not in FOLLOWING:
            self._drop(self.schedule.clear(), Reason.PHASE)
        if phase is Phase.ACTIVE:
            self._applied_ns = now_ns
        self.gate.counters[f"to_{phase}"] += 1
        event = {"t": "event", "kind": "phase", "from": left, "to": phase, "cause": cause, "detail": detail}
        self.outbox.append((EVERYBODY, event | {"t_ns": now_ns}))
        if phase in (Phase.FAULT, Phase.ESTOP):
            self._halt(phase)
        return True

    def act(self, session: str, message: dict[str, Any], now_ns: int) -> None:
        """Judge an action; it is applied, and acknowledged, at the next tick, or refused at once."""
        leased = self.lease.held_by(session, message["lease"])
        reason = self.gate.admit(message, leased, self.phase, now_ns)
        if reason is None:
            self._drop(self.schedule.replace(session, message, now_ns), Reason.EXPIRED)
        else:
            self._refuse(Pending(session, message["seq"], message["obs_seq"], now_ns), (reason,), now_ns)

    def tick(self, now_ns: int) -> None:
        """Read, watch, follow, command: once every servo period."""
        if self.phase is Phase.OFFLINE:
            return
        gap_ns, self._ticked_ns = now_ns - self._ticked_ns, now_ns
        try:
            self.state = self.driver.read(now_ns)
            self._standstill.measured(self.state)
            self._watch(self.state, gap_ns, now_ns)
            self._follow(now_ns)
            if self.phase in ENABLED:
                self._move(now_ns)
        except DriverError as caught:
            self.enter(Phase.FAULT, Cause.DRIVER, now_ns, str(caught))
        if self.phase is Phase.STARVED:
            self.starved_ms += gap_ns * 1e-6

    def observe(self, session: str, now_ns: int) -> None:
        """Answer with the newest state under a new observation number."""
        try:
            self.state = self.driver.read(now_ns)
        except DriverError as caught:
            self.enter(Phase.FAULT, Cause.DRIVER, now_ns, str(caught))
        state = self.state
        if state is None:
            return
        pose = self.limits.chain.pose(state.joints_rad)
        measured = {
            "joints_rad": state.joints_rad,
            "velocities_rad_s": state.velocities_rad_s,
            "position_m": pose.position_m,
            "rotation_rad": pose.rotation_vector_rad,
            "gripper_m": state.gripper_m,
            "success": state.success,
        }
        answer = {"t": "obs", "seq": self.gate.observed(state.t_ns), "t_cap_ns": state.t_ns, "state": measured}
        self.outbox.append((session, answer | self.report() | {"scene": state.scene}))

    def report(self) -> dict[str, Any]:
        """Return phase, cause, its detail, and counters."""
        counters = {**self.gate.counters, "starved_ms": self.starved_ms}
        why = {"phase": self.phase, "cause": self.cause, "detail": self.detail}
        return why | {"counters": counters, "leased": bool(self.lease.holder)}

    def _watch(self, state: RobotState, gap_ns: int, now_ns: int) -> None:
        """Leave the phase if the robot, the client or this loop is not well."""
        if self.lease.lost(now_ns) and self.phase in ENABLED:
            self.enter(Phase.HOLD, Cause.HEARTBEAT_LOST, now_ns)
        if self.lease.expired(now_ns):
            self.lease.drop()
        if self.phase in ENABLED and gap_ns > self.limits.overrun_ms * 1e6:
            self.enter(Phase.FAULT, Cause.OVERRUN, now_ns)
        followed = self.phase in ENABLED and not self.dry_run and self.driver.caps.moves
        found = fault(state, self.limiter.joints_rad, self.limits, now_ns) if followed else None
        if found:
            self.enter(Phase.FAULT, found.cause, now_ns, found.detail)
        if self.phase is Phase.ACTIVE and now_ns - self._applied_ns > self.deadline_ns:
            self.enter(Phase.STARVED, Cause.DEADLINE, now_ns)

    def _follow(self, now_ns: int) -> None:
        """Turn the row that is due into a goal."""
        if self.phase not in FOLLOWING:
            return
        row, n_dropped = self.schedule.due(now_ns)
        self.gate.counters[Reason.EXPIRED] += n_dropped
        pending = self.schedule.pending
        if row is None:
            if n_dropped and pending:
                self.schedule.pending = None
                self._refuse(pending, (Reason.EXPIRED,), now_ns)
            return
        self.schedule.pending = None
        ruling = self.gate.rule(row, self.limiter.pose, self.limiter.joints_rad)
        if ruling.goal_rad is None or ruling.verdict is Verdict.REJECTED:
            self._refuse(pending, ruling.reasons, now_ns)
            return
        self.gate.ruled(ruling)
        if self.phase is Phase.STARVED:
            self.enter(Phase.ACTIVE, Cause.FRESH_ACTION, now_ns)
        self._goal_rad, self._gripper_m, self._applied_ns = ruling.goal_rad, ruling.gripper_m, now_ns
        if pending:
            self._acknowledge(pending, ruling, now_ns)

    def _move(self, now_ns: int) -> None:
        """Send the next set-point."""
        homing = self.phase is Phase.HOMING
        goal = np.array(self.limits.home_rad) if homing else self._goal_rad
        gripper = self.limits.gripper_open_m if homing else self._gripper_m
        set_point = self.limiter.step(goal, gripper if goal is not None else None)
        self.gate.counters[Reason.BRAKED] += self.limiter.braked
        if not self.dry_run:
            self.driver.command(set_point)
            self._moved_ns = self._moved_ns if self.limiter.at_rest else now_ns
        if homing:
            self._n_blocked = self._n_blocked + 1 if self.limiter.braked else 0
            if np.abs(set_point.joints_rad - self.limits.home_rad).max() < ARRIVED_RAD and self.limiter.at_rest:
                self.enter(Phase.READY, Cause.ARRIVED, now_ns)
            elif self._n_blocked > BLOCKED_TICKS:
                self.enter(Phase.HOLD, Cause.BLOCKED, now_ns)

    def _halt(self, phase: Phase) -> None:
        """Tell the driver to stand; with the strongest means if it should, or if it cannot otherwise."""
        try:
            if phase is Phase.FAULT:
                self.driver.hold()
                return
        except DriverError:
            pass
        try:
            self.driver.stop()
        except DriverError:
            self.gate.counters["stop_failed"] += 1  # nothing left that software can do; the event is out already

    def _acknowledge(self, pending: Pending, ruling: Ruling, now_ns: int) -> None:
        captured_ns = self.gate.captured_ns(pending.observation)
        answer = {
            **_ack(pending, ruling.verdict, ruling.reasons),
            "applied": list(ruling.applied),
            "t_apply_ns": now_ns,
            "sensor_to_action_ms": None if captured_ns is None else (now_ns - captured_ns) * 1e-6,
        }
        self.outbox.append((pending.session, answer))

    def _refuse(self, pending: Pending | None, reasons: tuple[Reason, ...], now_ns: int) -> None:
        reason = reasons[-1]
        if pending:
            self.outbox.append((pending.session, _ack(pending, Verdict.REJECTED, reasons)))
        too_many = self.gate.refused(reason, now_ns)
        if reason is Reason.NON_FINITE:
            self.enter(Phase.HOLD, Cause.NON_FINITE, now_ns)
        elif too_many:
            self.enter(Phase.HOLD, Cause.REJECTS, now_ns)

    def _drop(self, pending: Pending | None, reason: Reason) -> None:
        if pending:
            self.gate.counters[reason] += 1
            self.outbox.append((pending.session, _ack(pending, Verdict.REJECTED, (reason,))))

    def restart(self) -> str | None:
        """Let the limiter take over the arm where it stands; return why it cannot, or None."""
        state = self.state
        if state is None:
            return "no state of the arm"
        if state.t_ns <= self._moved_ns or not self._standstill.holds(state):
            return "the arm still moves"  # or was told to after it was measured
        try:
            self.limiter.restart(state.joints_rad, state.gripper_m)
        except OutsideError as caught:
            return str(caught)
        return None


def _ack(pending: Pending, verdict: Verdict, reasons: tuple[Reason, ...]) -> dict[str, Any]:
    answer = {"t": "act_ack", "seq": pending.sequence, "verdict": verdict, "reasons": list(reasons), "applied": []}
    return answer | {"t_recv_ns": pending.received_ns, "t_apply_ns": None, "sensor_to_action_ms": None}
