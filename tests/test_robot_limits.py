"""No robot without a complete limits file; kinematics that agree with the maker's parameters and with themselves."""

import tomllib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from robots import HOME, LIMITS

from vla_bench.errors import UnknownNameError
from vla_bench_envs.robot.errors import LimitsError
from vla_bench_envs.robot.kinematics import PANDA, Pose, tilt_rad
from vla_bench_envs.robot.limits import SIMULATED, load, parse

STATED = tomllib.loads(SIMULATED.read_text())
DO = r"; no robot starts without a complete limits file: copy one that ships with vla_bench_envs/robot and read "
DO += r"docs/real-robot\.md before you change it$"
POSTURE = st.lists(st.floats(-0.4, 0.4), min_size=7, max_size=7).map(lambda offset: HOME + np.array(offset))


@pytest.mark.parametrize("name", sorted(STATED))
def test_every_number_must_be_stated(name: str) -> None:
    rest = {key: value for key, value in STATED.items() if key != name}
    with pytest.raises(LimitsError, match=f"^limits: states no {name}{DO}"):
        parse(rest)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"tool_sped": 1}, "states tool_sped"),
        ({"tool_speed_m_s": float("nan")}, "tool_speed_m_s is nan, expected a finite number above 0"),
        ({"tool_speed_m_s": True}, "tool_speed_m_s is True"),
        ({"servo_hz": 0}, "servo_hz is 0"),
        ({"box_low_m": [0.28, -0.35]}, "box_low_m has 2 numbers, expected 3"),
        ({"box_low_m": [0.8, -0.35, 0.0]}, "box_low_m is not below box_high_m by two margins"),
        ({"home_rad": [3.0, -0.3, 0.0, -2.2, 0.0, 1.9, 0.785]}, "home_rad is beyond the joints' margins"),
        (
            {"home_rad": [1.5, -0.3, 0.0, -2.2, 0.0, 1.9, 0.785]},
            r"home_rad puts the tool at \[.*\], outside of the box",
        ),
        ({"home_rad": [0.0, -0.3, 0.0, -2.2, 0.0, 2.9, 0.785]}, "home_rad tilts the tool beyond the cone"),
        ({"heartbeat_lost_ms": 90}, "heartbeat_lost_ms is not above heartbeat_ms"),
        ({"lease_ttl_ms": 200}, "lease_ttl_ms is below heartbeat_lost_ms"),
        ({"joint_low_rad": [2.89] * 7}, "joint_low_rad is not below joint_high_rad by two margins"),
    ],
)
def test_numbers_that_cannot_be_right_are_refused(change: dict, problem: str) -> None:
    with pytest.raises(LimitsError, match=f"^limits: {problem}"):
        parse(STATED | change)


def test_an_arm_that_nobody_knows_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"^no arm named 'pandu'\. Did you mean 'panda'\?"):
        parse(STATED | {"arm": "pandu"})


def test_a_file_that_is_missing_or_no_toml_is_refused(tmp_path) -> None:
    (tmp_path / "a.toml").write_text("box = [")
    for name in ("a.toml", "missing.toml"):
        with pytest.raises(LimitsError, match=f"{name}: cannot be read"):
            load(tmp_path / name)


def test_the_hash_of_limits_changes_with_any_number() -> None:
    hashes = {parse(STATED | {"tool_speed_m_s": speed}).sha256 for speed in (0.5, 0.500001)} | {LIMITS.sha256}
    assert len(hashes) == 2


def test_a_panda_with_all_joints_at_zero_reaches_what_its_parameters_say() -> None:
    reached = PANDA.pose(np.zeros(7))
    assert np.allclose(reached.position_m, [0.088, 0, 0.333 + 0.316 + 0.384 - 0.107 - 0.1034], atol=1e-12)
    assert np.allclose(reached.rotation[:, 2], [0, 0, -1], atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(POSTURE)
def test_the_jacobian_is_the_derivative_of_the_pose(joints) -> None:
    pose, jacobian = PANDA.jacobian(joints)
    step = 1e-6
    ahead, _ = PANDA.poses(joints + step * np.eye(7))
    behind, _ = PANDA.poses(joints - step * np.eye(7))
    assert np.allclose((ahead - behind).T / (2 * step), jacobian[:3], atol=1e-8)
    assert np.allclose(pose.position_m, PANDA.pose(joints).position_m)


@settings(max_examples=30, deadline=None)
@given(POSTURE, st.lists(st.floats(-0.025, 0.025), min_size=3, max_size=3))
def test_inverse_kinematics_reach_where_they_say(joints, offset) -> None:
    start = PANDA.pose(joints)
    goal = Pose(start.position_m + offset, start.rotation)
    found = PANDA.solve(goal, joints, HOME)
    if found is not None:
        assert np.linalg.norm(PANDA.pose(found).position_m - goal.position_m) <= 2e-4


def test_inverse_kinematics_give_up_beyond_the_arms_reach() -> None:
    home = PANDA.pose(HOME)
    assert PANDA.solve(Pose(home.position_m + np.array([0, 0, 0.05]), home.rotation), HOME, HOME) is not None
    assert PANDA.solve(Pose(np.array([2.0, 0, 0.4]), home.rotation), HOME, HOME) is None


def test_a_tool_that_looks_down_is_not_tilted() -> None:
    assert tilt_rad(np.diag([1.0, -1.0, -1.0])) == 0
    assert np.isclose(tilt_rad(np.diag([1.0, 1.0, 1.0])), np.pi)
