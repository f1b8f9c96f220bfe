"""The gate refuses and clamps in the order of the specification, with a reason and a counter each."""

import numpy as np
import pytest
from robots import LIMITS, Desk

from vla_bench_envs.robot.reasons import CLAMPING, Reason

STILL = np.zeros(7)


def moved(**entries: float) -> np.ndarray:
    return np.array([entries.get(name, 0.0) for name in ("x", "y", "z", "a", "b", "c", "grip")])


def verdict(said: dict) -> tuple[str, list[str]]:
    return said["verdict"], said["reasons"]


@pytest.fixture
def desk() -> Desk:
    return Desk().armed()


def test_an_action_within_limits_is_applied_as_it_is(desk: Desk) -> None:
    said = desk.act("a", moved(x=0.4, y=-0.2, z=0.1, grip=1))
    assert verdict(said) == ("ok", [])
    assert np.allclose(said["applied"], moved(x=0.4, y=-0.2, z=0.1, grip=1), atol=1e-9)
    assert desk.supervisor.gate.counters["ok"] == 1


def test_a_closing_hand_closes_and_an_opening_hand_opens(desk: Desk) -> None:
    for _ in range(10):
        desk.act("a", moved(grip=1))
        desk.wait(0.09)
    assert desk.driver.sent[-1].gripper_m < 1e-3
    desk.act("a", moved(grip=-1))
    desk.wait(0.1)
    assert desk.driver.sent[-1].gripper_m > 0.01


@pytest.mark.parametrize(
    ("action", "reasons"),
    [
        (moved(x=5.0), ["range"]),
        (moved(x=1, y=1, z=1), ["step"]),
        (moved(c=1), ["step"]),
        (moved(x=1e308, y=-1e308, z=5e-324), ["range", "step"]),
    ],
)
def test_a_step_that_is_too_long_is_shortened(desk: Desk, action: np.ndarray, reasons: list[str]) -> None:
    said = desk.act("a", action)
    assert verdict(said) == ("clamped", reasons)
    assert np.linalg.norm(said["applied"][:3]) * 0.05 <= LIMITS.step_m + 1e-12
    assert all(desk.supervisor.gate.counters[reason] == 1 for reason in reasons)


@pytest.mark.parametrize(("entry", "sign"), [("x", 1), ("x", -1), ("y", 1), ("y", -1), ("z", 1), ("z", -1)])
def test_commands_five_times_out_of_range_for_seconds_never_leave_the_box(desk: Desk, entry: str, sign: int) -> None:
    for _ in range(40):
        said = desk.act("a", moved(**{entry: 5.0 * sign}))
        desk.wait(0.09)
    positions, _ = LIMITS.chain.poses(np.array([point.joints_rad for point in desk.driver.sent]))
    assert (positions >= LIMITS.box_low_m).all()
    assert (positions <= LIMITS.box_high_m).all()
    assert said["verdict"] in ("clamped", "rejected")
    assert desk.supervisor.gate.counters["range"] > 0
    assert desk.supervisor.gate.counters["box"] + desk.supervisor.gate.counters["rejected"] > 0


def test_a_tool_that_would_tilt_out_of_its_cone_is_turned_back(desk: Desk) -> None:
    reasons = set()
    for _ in range(12):
        reasons |= set(desk.act("a", moved(b=-0.5))["reasons"])
        desk.wait(0.09)
    assert "cone" in reasons
    tilt = np.arccos(-desk.supervisor.limiter.pose.rotation[2, 2])
    assert LIMITS.cone_rad - 0.05 < tilt <= LIMITS.cone_rad


def test_a_goal_in_a_wall_is_refused() -> None:
    desk = Desk(collides=lambda joints: bool(joints[0] > 0.1)).armed()
    reasons = []
    for _ in range(6):
        said = desk.act("a", moved(y=0.9))
        desk.wait(0.4)
        reasons += said["reasons"]
    assert Reason.COLLISION in reasons
    assert desk.phase == "HOLD"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"lease": "guessed"}, "no_lease"),
        ({"lease": "gu\u00e9ss\u00e9d"}, "no_lease"),
        ({"mode": "joint_torque"}, "mode"),
        ({"seq": 0}, "sequence"),
        ({"chunk": np.zeros((1, 6))}, "shape"),
        ({"chunk": np.zeros((0, 7))}, "shape"),
        ({"chunk": np.zeros((65, 7))}, "shape"),
        ({"chunk": np.zeros(7)}, "shape"),
        ({"obs_seq": 10**9}, "unknown_obs"),
    ],
)
def test_a_message_that_is_not_in_order_is_refused_at_once(desk: Desk, fields: dict, reason: str) -> None:
    desk.act("a", STILL)
    said = desk.act("a", STILL, **fields)
    assert verdict(said) == ("rejected", [reason])
    assert said["applied"] == []
    assert desk.supervisor.gate.counters[reason] == 1


def test_checks_come_in_the_order_of_the_specification(desk: Desk) -> None:
    wrong = {"lease": "x", "mode": "x", "seq": 0, "chunk": np.full((1, 6), np.nan), "obs_seq": 10**9}
    right = {"lease": desk.leases["a"], "mode": "delta_pose", "seq": 10**6, "chunk": np.zeros((1, 7))}
    desk.act("a", STILL)
    found = []
    for index in range(len(wrong)):
        fields = {key: right[key] for key in list(wrong)[:index]} | {key: wrong[key] for key in list(wrong)[index:]}
        found += desk.act("a", STILL, **(fields | {"seq": 10**6 + index} if index > 2 else fields))["reasons"]
        desk.wait(0.5)
        if desk.phase != "ACTIVE":
            desk.command("a", "arm")
    assert found == ["no_lease", "mode", "sequence", "shape", "unknown_obs"]


def test_an_observation_that_is_too_old_moves_nothing(desk: Desk) -> None:
    old = desk.ask("a", {"t": "get_obs"})["seq"]
    for _ in range(5):
        desk.act("a", STILL)
        desk.wait(0.08)
    said = desk.act("a", moved(x=1), obs_seq=old)
    assert verdict(said) == ("rejected", ["stale_obs"])


def test_a_copy_of_an_action_is_refused_whatever_became_of_the_first(desk: Desk) -> None:
    seen = desk.ask("a", {"t": "get_obs"})["seq"]
    assert desk.act("a", STILL, seq=50, obs_seq=10**9)["reasons"] == ["unknown_obs"]
    assert desk.act("a", STILL, seq=50, obs_seq=seen)["reasons"] == ["sequence"]


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 6])
def test_a_number_that_is_not_finite_holds_the_robot_in_the_same_tick(desk: Desk, poison: float, place: int) -> None:
    action = STILL.copy()
    action[place] = poison
    tick, n_sent = desk.now_ns, len(desk.driver.sent)
    assert verdict(desk.act("a", action)) == ("rejected", ["non_finite"])
    assert (desk.phase, desk.cause, desk.now_ns) == ("HOLD", "non_finite", tick)
    assert len(desk.driver.sent) == n_sent
    assert desk.act("a", STILL)["reasons"] == ["phase"]


def test_three_refusals_within_a_second_hold_the_robot_and_slower_ones_do_not(desk: Desk) -> None:
    for pause in (0.6, 0.6, 0.6, 0.1, 0.1):
        assert desk.phase in ("ACTIVE", "STARVED")
        desk.act("a", STILL, obs_seq=10**9)
        desk.wait(pause)
    assert (desk.phase, desk.cause) == ("HOLD", "rejects")


def test_rows_of_a_chunk_are_applied_at_their_time_and_the_newest_chunk_wins(desk: Desk) -> None:
    rows = np.array([moved(x=0.5), moved(x=0.5), moved(x=0.5)])
    assert verdict(desk.act("a", STILL, chunk=rows, dt_ms=50.0)) == ("ok", [])
    desk.wait(0.06)
    assert desk.supervisor.gate.counters["ok"] == 2
    desk.act("a", STILL)
    desk.wait(0.2)
    assert desk.supervisor.gate.counters["ok"] == 3


def test_a_row_whose_time_passed_before_a_tick_is_dropped_and_said_to_be_expired(desk: Desk) -> None:
    rows = np.array([moved(x=0.5), moved(x=0.5), moved(x=0.5)])
    message = {"t": "act", "lease": desk.leases["a"], "seq": 1, "obs_seq": desk.ask("a", {"t": "get_obs"})["seq"]}
    desk.ask("a", message | {"mode": "delta_pose", "chunk": rows, "dt_ms": 20.0, "ttl_ms": 30.0})
    desk.now_ns += 60_000_000  # the loop was held up: rows 0 and 1 are over, row 2 was due 20 ms ago
    desk.wait(0.01)
    assert desk.supervisor.gate.counters["expired"] == 2
    assert desk.supervisor.gate.counters["ok"] == 1
    desk.ask("a", message | {"seq": 2, "mode": "delta_pose", "chunk": rows[:1], "ttl_ms": 30.0})
    desk.now_ns += 60_000_000
    desk.wait(0.01)
    assert verdict(desk.inbox["a"][-1]) == ("rejected", ["expired"])
    assert desk.supervisor.gate.counters["ok"] == 1


def test_the_applied_action_tells_how_long_it_took_from_sensor_to_action(desk: Desk) -> None:
    seen = desk.ask("a", {"t": "get_obs"})["seq"]
    desk.wait(0.03)
    assert desk.act("a", STILL, obs_seq=seen)["sensor_to_action_ms"] == pytest.approx(40.0)


def test_every_reason_is_either_a_clamp_or_a_refusal() -> None:
    assert {Reason.RANGE, Reason.STEP, Reason.BOX, Reason.CONE} == CLAMPING
