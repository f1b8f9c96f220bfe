"""What clients ask of the supervisor, and who may ask it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from vla_bench_envs.robot.errors import DriverError
from vla_bench_envs.robot.phases import LATCHED, Phase
from vla_bench_envs.robot.reasons import Cause
from vla_bench_envs.robot.supervisor import Supervisor


@dataclass(frozen=True)
class _Request:
    supervisor: Supervisor
    session: str
    role: str
    message: dict[str, Any]
    now_ns: int
    facts: dict[str, Any] = field(default_factory=dict)
    """What the acknowledgement says besides."""

    @property
    def phase(self) -> Phase:
        return self.supervisor.phase

    @property
    def holds_lease(self) -> bool:
        return self.supervisor.lease.held_by(self.session, self.message["lease"])

    def stranger(self) -> str | None:
        """Return why one who needs the lease is refused."""
        return None if self.holds_lease else "the lease is not this client's"

    def enter(self, phase: Phase, cause: Cause, detail: str = "") -> bool:
        return self.supervisor.enter(phase, cause, self.now_ns, detail)


def receive(supervisor: Supervisor, session: str, role: str, message: dict[str, Any], now_ns: int) -> None:
    """Act on a checked message of a client; answers go to the supervisor's outbox."""
    kind = message["t"]
    if kind == "estop":  # any role, any time, no lease
        supervisor.enter(Phase.ESTOP, Cause.OPERATOR if role == "operator" else Cause.REQUESTED, now_ns)
        _answer(supervisor, session, "estop", None, {})
    elif kind == "act":
        supervisor.act(session, message, now_ns)
    elif kind == "get_obs":
        supervisor.observe(session, now_ns)
    elif kind == "hb":
        beaten = supervisor.lease.beat(session, message["lease"], now_ns)
        supervisor.outbox.append((session, {"t": "hb_ack", "leased_here": beaten, "t_ns": now_ns}))
    elif kind == "cmd":
        request = _Request(supervisor, session, role, message, now_ns)
        problem = _COMMANDS[message["op"]](request)
        _answer(supervisor, session, message["op"], problem, request.facts)


def gone(supervisor: Supervisor, session: str, now_ns: int) -> None:
    """Note that a session's connection is closed: its lease is free and the robot holds."""
    if supervisor.lease.holder == session:
        supervisor.lease.drop()
        supervisor.enter(Phase.HOLD, Cause.LEASE_LOST, now_ns)


def link_lost(supervisor: Supervisor, now_ns: int) -> None:
    """Note that the endpoint is gone, and every client with it."""
    supervisor.lease.drop()
    supervisor.enter(Phase.HOLD, Cause.LEASE_LOST, now_ns)


def _answer(supervisor: Supervisor, session: str, op: str, problem: str | None, facts: dict[str, Any]) -> None:
    said = {"t": "ack", "op": op, "ok": problem is None, "reason": problem or ""}
    supervisor.outbox.append((session, said | supervisor.report() | facts))


def _acquire(ask: _Request) -> str | None:
    if ask.role != "control":
        return f"the role {ask.role!r} moves nothing; connect as 'control'"
    lease = ask.supervisor.lease.acquire(ask.session, ask.now_ns)
    if lease is None:
        return "another client holds the lease"
    ask.facts["lease"] = lease
    ask.supervisor.gate.renew()
    if ask.phase in (Phase.ACTIVE, Phase.STARVED, Phase.HOMING):
        ask.enter(Phase.HOLD, Cause.LEASE_LOST)  # it moved for somebody else, or for the same one's past
    return None


def _release(ask: _Request) -> str | None:
    problem = ask.stranger()
    if problem is None:
        ask.supervisor.lease.drop()
        ask.enter(Phase.HOLD, Cause.LEASE_LOST)
    return problem


def _arm(ask: _Request) -> str | None:
    problem = ask.stranger()
    if problem or ask.phase not in (Phase.READY, Phase.HOLD):
        return problem or f"only READY and HOLD can be armed, this is {ask.phase}"
    patience_ms = max(3 * ask.message["period_ms"], ask.supervisor.limits.action_deadline_ms)
    ask.supervisor.deadline_ns = round(1e6 * patience_ms)
    ask.enter(Phase.ACTIVE, Cause.ARMED)
    return None


def _hold(ask: _Request) -> str | None:
    problem = None if ask.role == "operator" else ask.stranger()
    if problem is None and ask.phase is not Phase.HOLD and not ask.enter(Phase.HOLD, Cause.REQUESTED):
        return f"{ask.phase} does not lead to HOLD"
    return problem


def _home(ask: _Request) -> str | None:
    free_operator = ask.role == "operator" and not ask.supervisor.lease.holder
    problem = None if free_operator else ask.stranger()
    if problem or ask.phase not in (Phase.IDLE, Phase.READY, Phase.HOLD):
        return problem or f"only IDLE, READY and HOLD lead home, this is {ask.phase}"
    if ask.phase is Phase.IDLE:
        problem = ask.supervisor.restart()
        if problem:
            return problem
    try:
        ask.supervisor.driver.home()
    except DriverError as caught:
        ask.enter(Phase.FAULT, Cause.DRIVER, str(caught))
        return str(caught)
    ask.enter(Phase.HOMING, Cause.REQUESTED)
    return None


def _reset(ask: _Request) -> str | None:
    problem = _recover(ask)
    if problem is None:
        ask.enter(Phase.IDLE, Cause.OPERATOR)
    return problem


def _recover(ask: _Request) -> str | None:
    if ask.role != "operator":
        return "only the local operator may do this"
    if ask.phase not in LATCHED:
        return f"only FAULT and ESTOP need it, this is {ask.phase}"
    try:
        ask.supervisor.driver.recover()
    except DriverError as caught:
        return str(caught)
    return None


def _trial_begin(ask: _Request) -> str | None:
    problem = ask.stranger()
    if problem or ask.phase is not Phase.READY:
        return problem or f"a trial begins in READY, this is {ask.phase}"
    driver = ask.supervisor.driver
    try:
        ask.facts["init_state_sha256"] = driver.begin(ask.message["task"], ask.message["init_state"])
        if driver.caps.places_objects:  # it may place the arm, too: a simulator does
            ask.supervisor.state = driver.read(ask.now_ns)
            return ask.supervisor.restart()
    except DriverError as caught:
        ask.enter(Phase.FAULT, Cause.DRIVER, str(caught))
        return str(caught)
    return None


def _trial_end(ask: _Request) -> str | None:
    problem = ask.stranger()
    if problem is None:
        ask.enter(Phase.HOLD, Cause.REQUESTED)
        ask.facts["success"] = ask.supervisor.state.success if ask.supervisor.state else None
    return problem


_COMMANDS: dict[str, Callable[[_Request], str | None]] = {
    "acquire": _acquire,
    "release": _release,
    "arm": _arm,
    "hold": _hold,
    "home": _home,
    "reset": _reset,
    "recover": _recover,
    "trial_begin": _trial_begin,
    "trial_end": _trial_end,
}
