"""The state machine, both watchdogs and the faults; nothing that a client sends drives the arm beyond its limits."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from robots import HOME, LIMITS, Desk, FakeDriver, away
from test_robot_limiter import ANY, broken_limits

from vla_bench_envs.robot import requests
from vla_bench_envs.robot.errors import MessageError
from vla_bench_envs.robot.limiter import SetPoint
from vla_bench_envs.robot.messages import COMMANDS, checked
from vla_bench_envs.robot.phases import ENABLED, FOLLOWING, LATCHED, Phase, leads_to

STILL = np.zeros(7)
PUSH = np.array([0.8, 0.6, 0, 0, 0, 0, 0])


@pytest.fixture
def desk() -> Desk:
    return Desk().armed()


def stands(desk: Desk, within_s: float = 0.4) -> bool:
    """Return whether the arm comes to rest in time, inside of its limits."""
    before = len(desk.driver.sent)
    desk.wait(within_s)
    sent = np.array([point.joints_rad for point in desk.driver.sent])
    stopped = len(sent) == before or bool((sent[-1] == sent[-2]).all())
    return stopped and broken_limits(sent) == []


def test_a_robot_comes_from_offline_to_active_step_by_step_and_in_no_other_order() -> None:
    desk = Desk()
    desk.supervisor.connect(desk.now_ns)
    desk.deliver()
    desk.command("a", "acquire")
    desk.beating.add("a")
    assert desk.command("a", "arm")["reason"] == "only READY and HOLD can be armed, this is IDLE"
    assert desk.command("a", "home")["ok"]
    desk.wait(0.1)
    desk.command("a", "arm")
    found = [(event["from"], event["to"], event["cause"]) for event in desk.events]
    assert found == [
        ("OFFLINE", "IDLE", "connected"),
        ("IDLE", "HOMING", "requested"),
        ("HOMING", "READY", "arrived"),
        ("READY", "ACTIVE", "armed"),
    ]


def test_nothing_leads_into_motion_by_itself_but_starved() -> None:
    for phase in Phase:
        assert leads_to(phase, Phase.ACTIVE) == (phase in {Phase.READY, Phase.HOLD, Phase.STARVED})
        assert leads_to(phase, Phase.ESTOP) == (phase not in {Phase.OFFLINE, Phase.ESTOP})
    for phase in LATCHED:
        assert [step for step in Phase if leads_to(phase, step)] == (
            [Phase.OFFLINE, Phase.IDLE] + ([Phase.ESTOP] if phase is Phase.FAULT else [])
        )
    assert FOLLOWING < ENABLED
    assert not ENABLED & LATCHED


def test_before_homing_nothing_is_sent_to_the_driver() -> None:
    desk = Desk()
    desk.supervisor.connect(desk.now_ns)
    desk.wait(0.2)
    assert desk.driver.sent == []


def test_a_dry_run_decides_everything_and_sends_nothing() -> None:
    desk = Desk(dry_run=True).armed()
    said = desk.act("a", PUSH)
    desk.wait(0.1)
    assert said["verdict"] == "ok"
    assert not (desk.supervisor.limiter.joints_rad == HOME).all()
    assert desk.driver.sent == []


def test_homing_moves_the_arm_from_where_it_stands_within_limits() -> None:
    start = away(0.3, 0.2, -0.2, 0.1, 0.2, -0.1, 0.3)
    desk = Desk(FakeDriver(joints_rad=start)).armed()
    sent = np.array([start, *(point.joints_rad for point in desk.driver.sent)])
    assert np.abs(sent[-1] - HOME).max() < 1e-3
    assert broken_limits(sent) == []


def test_an_arm_that_stands_outside_or_moves_is_not_sent_home() -> None:
    desk = Desk(FakeDriver(joints_rad=away(1.2, 0, 0, 0, 0, 0, 0)))
    desk.supervisor.connect(desk.now_ns)
    desk.command("a", "acquire")
    assert "outside of its limits (box)" in desk.command("a", "home")["reason"]
    desk.driver.joints_rad = HOME
    desk.driver.overrides = {"velocities_rad_s": np.full(7, 0.2)}
    desk.wait(0.01)
    assert desk.command("a", "home")["reason"] == "the arm still moves"
    assert desk.phase == "IDLE"


def test_an_arm_that_shivers_in_its_place_stands_and_one_that_creeps_does_not() -> None:
    desk = Desk(FakeDriver(joints_rad=HOME))
    desk.supervisor.connect(desk.now_ns)
    desk.command("a", "acquire")
    for tick in range(30):  # 0.3 s; as franky-sim's arm after a stop
        desk.driver.joints_rad = away(0, 0, 0, 0, 0, 0, 1e-4 * (-1) ** tick)
        desk.driver.overrides = {"velocities_rad_s": np.array([0, 0, 0, 0, 0, 0, 0.08 * (-1) ** tick])}
        desk.wait(0.01)
        assert desk.command("a", "home")["ok"] == (tick >= 20), tick
        if tick >= 20:
            break
    creeping = Desk(FakeDriver(joints_rad=HOME))
    creeping.supervisor.connect(creeping.now_ns)
    creeping.command("a", "acquire")
    for tick in range(60):
        creeping.driver.joints_rad = away(0, 0, 0, 0, 0, 0, 6e-4 * tick)
        creeping.driver.overrides = {"velocities_rad_s": np.array([0, 0, 0, 0, 0, 0, 0.06])}
        creeping.wait(0.01)
        assert creeping.command("a", "home")["reason"] == "the arm still moves"


def test_homing_that_a_wall_blocks_ends_in_hold() -> None:
    desk = Desk(FakeDriver(joints_rad=away(0.4, 0, 0, 0, 0, 0, 0)), collides=lambda q: bool(0.1 < q[0] < 0.3))
    desk.supervisor.connect(desk.now_ns)
    desk.command("a", "acquire")
    desk.beating.add("a")
    assert desk.command("a", "home")["ok"]
    desk.wait(3)
    assert (desk.phase, desk.cause) == ("HOLD", "home_blocked")
    assert desk.driver.joints_rad[0] >= 0.3


def test_without_a_fresh_action_the_arm_starves_within_the_deadline_and_resumes_with_the_next(desk: Desk) -> None:
    desk.act("a", PUSH)
    desk.wait(0.29)
    assert desk.phase == "ACTIVE"
    desk.wait(0.02)
    assert (desk.phase, desk.cause) == ("STARVED", "action_deadline")
    assert stands(desk)
    assert desk.act("a", STILL)["verdict"] == "ok"
    assert (desk.phase, desk.cause) == ("ACTIVE", "fresh_action")
    counters = desk.supervisor.report()["counters"]
    assert counters["to_STARVED"] == 1
    assert counters["starved_ms"] == pytest.approx(420, abs=20)


def test_a_lost_heartbeat_holds_the_arm_within_its_timeout_and_only_arming_goes_on(desk: Desk) -> None:
    desk.act("a", PUSH)
    desk.beating.clear()
    since = desk.now_ns
    for _ in range(60):
        if desk.phase in ("ACTIVE", "STARVED"):
            desk.wait(0.01)
    assert (desk.phase, desk.cause) == ("HOLD", "heartbeat_lost")
    assert (desk.now_ns - since) * 1e-6 <= LIMITS.heartbeat_lost_ms + 20
    assert stands(desk)
    desk.beating.add("a")
    desk.wait(0.2)
    assert desk.act("a", STILL)["reasons"] == ["phase"]
    assert desk.command("a", "arm")["ok"]
    assert desk.act("a", STILL)["verdict"] == "ok"


def test_a_lease_without_heartbeats_is_free_for_another_client_after_its_time(desk: Desk) -> None:
    assert desk.command("b", "acquire")["reason"] == "another client holds the lease"
    desk.beating.clear()
    desk.wait(0.9)
    assert not desk.command("b", "acquire")["ok"]
    desk.wait(0.2)
    assert desk.command("b", "acquire")["ok"]
    assert desk.act("a", STILL)["reasons"] == ["no_lease"]


def test_a_closed_connection_holds_the_arm_at_once_and_frees_the_lease(desk: Desk) -> None:
    desk.act("a", PUSH)
    requests.gone(desk.supervisor, "somebody else", desk.now_ns)
    assert desk.phase == "ACTIVE"
    requests.gone(desk.supervisor, "a", desk.now_ns)
    assert (desk.phase, desk.cause) == ("HOLD", "lease_lost")
    desk.beating.clear()
    assert stands(desk)
    assert desk.command("b", "acquire")["ok"]


def test_a_lease_that_another_session_shows_moves_nothing(desk: Desk) -> None:
    desk.leases["thief"] = desk.leases["a"]
    assert desk.act("thief", PUSH)["reasons"] == ["no_lease"]
    assert desk.command("thief", "arm")["reason"] == "the lease is not this client's"
    assert desk.command("thief", "release")["reason"] == "the lease is not this client's"
    assert desk.phase == "ACTIVE"
    for _ in range(5):
        desk.act("thief", PUSH)
    assert desk.phase == "ACTIVE"  # a stranger's refusals do not hold the robot


@pytest.mark.parametrize("role", ["observe", "operator", "control"])
def test_anybody_stops_the_robot_and_only_the_operator_frees_it(desk: Desk, role: str) -> None:
    desk.act("a", PUSH)
    desk.ask("b", {"t": "estop"}, role)
    assert desk.phase == "ESTOP"
    assert desk.driver.done[-1] == "stop"
    n_sent = len(desk.driver.sent)
    desk.wait(0.3)
    assert len(desk.driver.sent) == n_sent
    for op in ("arm", "home", "hold", "reset", "recover"):
        assert not desk.command("a", op)["ok"]
    assert desk.phase == "ESTOP"
    assert desk.command("o", "reset", "operator")["ok"]
    assert desk.phase == "IDLE"
    assert desk.driver.done[-1] == "recover"


def test_who_observes_or_operates_takes_no_lease(desk: Desk) -> None:
    for role in ("observe", "operator"):
        assert desk.command("b", "acquire", role)["reason"] == f"the role {role!r} moves nothing; connect as 'control'"


def test_the_operator_sends_home_only_when_nobody_holds_the_lease(desk: Desk) -> None:
    desk.command("a", "hold")
    assert not desk.command("o", "home", "operator")["ok"]
    desk.command("a", "release")
    desk.beating.clear()
    assert desk.command("o", "home", "operator")["ok"]


@pytest.mark.parametrize(
    ("overrides", "cause", "detail"),
    [
        ({"collision": True}, "collision", "the arm's own controller says so"),
        ({"torques_nm": np.array([0, 0, 90.0, 0, 0, 0, 0])}, "torque_limit", "joint 3 at 90 Nm"),
        ({"velocities_rad_s": np.array([0, 0, 0, 0, 0, 0, -2.5])}, "velocity_limit", "joint 7 at -2.5 rad/s"),
        ({"joints_rad": away(0, 0, 0, 0, 0, 1.9, 0)}, "joint_limit", f"joint 6 at {HOME[5] + 1.9:.3g} rad"),
        ({"joints_rad": away(0.2, 0, 0, 0, 0, 0, 0)}, "tracking_error", "joint 1 at 0.2 rad from its set-point"),
        ({"joints_rad": HOME * np.nan}, "driver_error", "the state is not 7 finite joints, velocities and torques"),
        ({"joints_rad": HOME[:6]}, "driver_error", "the state is not 7 finite joints, velocities and torques"),
        ({"age_ns": 10**9}, "driver_error", "the newest state is 1000 ms old"),
    ],
)
def test_an_arm_that_is_not_well_is_a_fault_that_only_the_operator_ends(
    desk: Desk, overrides: dict, cause: str, detail: str
) -> None:
    n_sent = len(desk.driver.sent)
    desk.driver.age_ns = overrides.get("age_ns", 0)
    desk.driver.overrides = {name: value for name, value in overrides.items() if name != "age_ns"}
    desk.wait(0.01)
    assert (desk.phase, desk.cause, desk.driver.done[-1]) == ("FAULT", cause, "hold")
    assert desk.supervisor.report()["detail"] == desk.events[-1]["detail"] == detail
    desk.driver.overrides, desk.driver.age_ns = {}, 0
    desk.wait(0.2)
    assert len(desk.driver.sent) == n_sent
    assert not desk.command("a", "arm")["ok"]
    assert not desk.command("a", "home")["ok"]
    assert desk.command("o", "reset", "operator")["ok"]
    assert desk.phase == "IDLE"


@pytest.mark.parametrize("method", ["read", "command"])
def test_a_driver_that_fails_is_a_fault(desk: Desk, method: str) -> None:
    desk.driver.raises_in = {method}
    desk.wait(0.01)
    assert (desk.phase, desk.cause) == ("FAULT", "driver_error")
    assert f"was told to fail in {method}" in desk.supervisor.report()["detail"]


def test_a_fault_in_which_the_driver_cannot_hold_stops_it(desk: Desk) -> None:
    desk.driver.raises_in = {"command", "hold"}
    desk.wait(0.01)
    assert desk.driver.done[-1] == "stop"
    desk.driver.raises_in = {"hold", "stop", "recover"}
    desk.ask("b", {"t": "estop"})
    assert desk.phase == "ESTOP"
    assert desk.supervisor.report()["counters"]["stop_failed"] == 1
    assert "was told to fail in recover" in desk.command("o", "reset", "operator")["reason"]
    assert desk.phase == "ESTOP"


def test_a_loop_that_was_late_is_a_fault(desk: Desk) -> None:
    desk.now_ns += int(2e6 * LIMITS.overrun_ms)
    desk.supervisor.tick(desk.now_ns)
    assert (desk.phase, desk.cause) == ("FAULT", "loop_overrun")


OPERATIONS = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([0.01, 0.05, 0.3])),
    st.tuples(st.just("act"), st.lists(st.lists(ANY, min_size=7, max_size=7), min_size=1, max_size=3)),
    st.tuples(st.just("push"), st.lists(st.lists(st.floats(-9, 9), min_size=7, max_size=7), min_size=1, max_size=3)),
    st.tuples(st.just("cmd"), st.sampled_from(COMMANDS)),
    st.tuples(st.just("operator"), st.sampled_from(COMMANDS)),
    st.tuples(st.just("estop"), st.none()),
    st.tuples(st.just("late"), st.integers(0, 3 * 10**8)),
    st.tuples(st.just("gone"), st.sampled_from(["a", "b"])),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(OPERATIONS, min_size=4, max_size=14))
def test_whatever_clients_send_every_command_that_reaches_the_driver_keeps_every_limit(operations) -> None:
    desk = Desk().armed()
    for name, given_value in operations:
        if name == "wait":
            desk.wait(given_value)
        elif name in ("act", "push"):
            desk.act("a", STILL, chunk=np.array(given_value, dtype=float), dt_ms=30.0)
        elif name in ("cmd", "operator"):
            desk.command("a", given_value, "control" if name == "cmd" else "operator")
        elif name == "estop":
            desk.ask("b", {"t": "estop"}, "observe")
        elif name == "late":
            desk.now_ns += given_value
            desk.supervisor.tick(desk.now_ns)
        else:
            requests.gone(desk.supervisor, given_value, desk.now_ns)
        if desk.phase in ("HOLD", "READY", "IDLE"):  # bring it back, so that the rest of the list moves it
            desk.command("a", "acquire")
            desk.command("a", "arm" if desk.phase == "HOLD" else "home")
    ends = sorted({0, *desk.driver.halted, len(desk.driver.sent)})
    sent = [SetPoint(HOME, LIMITS.gripper_open_m), *desk.driver.sent]
    for begin, end in pairwise(ends):  # who was told to stand begins again at rest, where the last set-point was
        assert broken_limits(np.array([point.joints_rad for point in sent[begin : end + 1]])) == []
    grip = np.array([point.gripper_m for point in sent])
    assert np.isfinite(grip).all()
    assert (np.abs(np.diff(grip)) <= LIMITS.gripper_speed_m_s / LIMITS.servo_hz).all()


def test_an_arm_that_was_told_to_move_since_it_was_measured_is_not_taken_over(desk: Desk) -> None:
    desk.act("a", PUSH)
    desk.wait(0.01)
    desk.ask("b", {"t": "estop"}, "observe")
    assert desk.command("o", "reset", "operator")["ok"]
    assert desk.command("a", "home")["reason"] == "the arm still moves"
    desk.wait(0.01)
    assert desk.command("a", "home")["ok"]


def test_a_command_with_a_patience_that_is_no_number_never_arrives() -> None:
    with pytest.raises(MessageError, match="period_ms=nan"):
        checked({"t": "cmd", "op": "arm", "lease": "", "period_ms": float("nan")})
