"""Whatever is asked, every set-point keeps every limit: strictly, without a tolerance."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from robots import HOME, LIMITS, away, free, wall

from vla_bench_envs.robot.errors import OutsideError
from vla_bench_envs.robot.kinematics import tilt_rad
from vla_bench_envs.robot.limiter import Limiter

ANY = st.floats(width=64, allow_nan=True, allow_infinity=True, allow_subnormal=True)
NEAR = st.floats(-0.6, 0.6)


def broken_limits(sent: np.ndarray, collides=free) -> list[str]:
    """Return every limit that a stream of set-points (k, 7) breaks, its start at rest included."""
    limits, dt = LIMITS, 1 / LIMITS.servo_hz
    rows = np.concatenate([sent[:1], sent[:1], sent])
    velocity = np.diff(rows, axis=0) / dt
    acceleration = np.diff(np.diff(rows, axis=0), axis=0) / dt**2
    positions, rotations = limits.chain.poses(rows)
    tool_steps = np.diff(positions, axis=0)
    tool_acceleration = np.linalg.norm(np.diff(tool_steps, axis=0), axis=1) / dt**2
    low, high = limits.joint_range_rad
    broken = {
        "not finite": not np.isfinite(rows).all(),
        "joint range": (rows < low).any() or (rows > high).any(),
        "joint velocity": (np.abs(velocity) > limits.joint_velocity_rad_s).any(),
        "joint acceleration": (np.abs(acceleration) > limits.joint_acceleration_rad_s2).any(),
        "box": (positions < limits.box_low_m).any() or (positions > limits.box_high_m).any(),
        "cone": (tilt_rad(rotations) > limits.cone_rad).any(),
        "tool speed": (np.linalg.norm(tool_steps, axis=1) / dt > limits.tool_speed_m_s).any(),
        "tool acceleration": (tool_acceleration > limits.tool_acceleration_m_s2).any(),
        "collision": any(collides(row) for row in rows),
    }
    return [name for name, is_broken in broken.items() if is_broken]


def play(goals: list[list[float]], n_ticks: list[int], collides=free) -> tuple[np.ndarray, np.ndarray]:
    limiter = Limiter(LIMITS, collides)
    sent, gripper = [HOME], [limiter.gripper_m]
    for goal, ticks in zip(goals, n_ticks, strict=False):
        for _ in range(ticks):
            point = limiter.step(None if goal is None else np.array(goal), None if goal is None else goal[0])
            sent.append(point.joints_rad)
            gripper.append(point.gripper_m)
    return np.array(sent), np.array(gripper)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.none() | st.lists(ANY, min_size=7, max_size=7), min_size=1, max_size=6),
    st.lists(st.integers(1, 25), min_size=6, max_size=6),
)
def test_arbitrary_goals_break_no_limit(goals, n_ticks) -> None:
    sent, gripper = play(goals, n_ticks)
    assert broken_limits(sent) == []
    assert ((gripper >= 0) & (gripper <= LIMITS.gripper_open_m)).all()
    assert (np.abs(np.diff(gripper)) <= LIMITS.gripper_speed_m_s / LIMITS.servo_hz).all()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.none() | st.lists(NEAR, min_size=7, max_size=7), min_size=1, max_size=6),
    st.lists(st.integers(1, 40), min_size=6, max_size=6),
)
def test_goals_around_home_break_no_limit_and_touch_nothing(offsets, n_ticks) -> None:
    goals = [None if offset is None else list(HOME + np.array(offset)) for offset in offsets]
    sent, _ = play(goals, n_ticks, wall)
    assert broken_limits(sent, wall) == []


def test_the_measure_of_these_tests_sees_every_broken_limit() -> None:
    still = np.tile(HOME, (6, 1))
    jump, drift, far = still.copy(), still.copy(), still.copy()
    jump[3:, 0] += 0.05
    drift += np.linspace(0, 2.5, 6)[:, None] * [0, 0, 0, 0, 0, 0, 1]
    far[:, 0] += 1.2
    tipped = np.tile(away(0, 0, 0, 0, 0, 1.0, 0), (3, 1))
    assert {"joint velocity", "joint acceleration", "tool speed", "tool acceleration"} <= set(broken_limits(jump))
    assert "joint range" in broken_limits(np.tile(away(0, 0, 0, 2.3, 0, 0, 0), (3, 1)))
    assert "joint velocity" in broken_limits(drift)
    assert "box" in broken_limits(far)
    assert "cone" in broken_limits(tipped)
    assert "collision" in broken_limits(np.tile(away(0.31, 0, 0, 0, 0, 0, 0), (3, 1)), wall)
    assert "not finite" in broken_limits(still * np.nan)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-0.12, 0.12), min_size=7, max_size=7))
def test_a_goal_within_limits_is_reached_and_motion_ends_there(offset) -> None:
    goal = HOME + np.array(offset)
    limiter = Limiter(LIMITS, free)
    for _ in range(120):
        limiter.step(goal, 0.04)
    assert np.abs(limiter.joints_rad - goal).max() < 1e-9
    assert np.abs(limiter.step(goal, 0.04).joints_rad - goal).max() < 1e-9


def test_motion_that_is_not_wished_any_more_brakes_to_rest_within_its_limits() -> None:
    limiter = Limiter(LIMITS, free)
    goal = away(0.5, 0, 0, 0, 0, 0, 0)
    moving = [limiter.step(goal, None).joints_rad for _ in range(25)]
    assert not limiter.at_rest
    braking = [limiter.step(None, None).joints_rad for _ in range(40)]
    assert limiter.at_rest
    assert broken_limits(np.array([HOME, *moving, *braking])) == []
    assert braking[-1][0] < goal[0]


def test_a_goal_beyond_a_wall_is_approached_and_the_refusal_is_told() -> None:
    limiter = Limiter(LIMITS, wall)
    sent = [limiter.step(away(0.5, 0, 0, 0, 0, 0, 0), None).joints_rad for _ in range(300)]
    assert 0.25 < sent[-1][0] <= 0.3
    assert limiter.braked


@pytest.mark.parametrize(
    ("goal", "nearness"),
    [
        (away(1.2, 0, 0, 0, 0, 0, 0), lambda pose: LIMITS.box_high_m[1] - pose.position_m[1]),
        (away(0, 0, 0, 0, 0, 1.2, 0), lambda pose: LIMITS.cone_rad - tilt_rad(pose.rotation)),
        (away(0, 0, 0, 0, 0, -1.2, 0), lambda pose: LIMITS.cone_rad - tilt_rad(pose.rotation)),
    ],
)
def test_a_goal_beyond_the_box_or_the_cone_is_approached_and_never_passed(goal, nearness) -> None:
    limiter = Limiter(LIMITS, free)
    sent = [HOME, *(limiter.step(goal, None).joints_rad for _ in range(250))]
    assert broken_limits(np.array(sent)) == []
    assert 0 <= nearness(limiter.pose) < 0.06


def test_joints_within_their_accelerations_may_still_be_too_much_for_the_tool() -> None:
    limiter, dt = Limiter(LIMITS, free), 1 / LIMITS.servo_hz
    together = np.array([0, 1, 0, -1, 0, -1, 0]) * LIMITS.joint_acceleration_rad_s2 * dt**2
    assert limiter._problem((HOME + 0.9 * together)[None]) == "tool acceleration"
    assert limiter._problem((HOME + 0.3 * together)[None]) is None


def test_an_arm_that_stands_outside_of_its_limits_is_not_taken_over() -> None:
    limiter = Limiter(LIMITS, free)
    with pytest.raises(OutsideError, match=r"^the arm stands outside of its limits \(box\): guide it inside by hand "):
        limiter.restart(away(1.2, 0, 0, 0, 0, 0, 0), 0.0)
    assert (limiter.joints_rad == HOME).all()
    limiter.restart(away(0.1, 0, 0, 0, 0, 0, 0), 0.03)
    assert limiter.at_rest
    assert limiter.gripper_m == 0.03
