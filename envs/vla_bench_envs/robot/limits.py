"""What a robot may do, as a file that somebody wrote for it: every number is stated, none has a default."""

import hashlib
import json
import math
import tomllib
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_origin

import numpy as np

from vla_bench_envs.robot.errors import LimitsError
from vla_bench_envs.robot.kinematics import Chain, chain, tilt_rad

SIMULATED = Path(__file__).with_name("simulated_panda.toml")
"""Limits of the simulated arm; for a physical arm, write your own."""


@dataclass(frozen=True)
class Limits:
    """Everything that bounds a robot's motion and patience. Positions are in the base frame."""

    arm: str
    """Name of the arm, for its kinematics."""

    box_low_m: tuple[float, ...]
    box_high_m: tuple[float, ...]
    """Opposite corners of the box that the tool's point may be in (3,)."""

    box_margin_m: float
    """Distance that goals keep from the box's faces, so that paths between goals stay within."""

    cone_rad: float
    """Greatest angle between the tool's z axis and straight down."""

    cone_margin_rad: float
    """Distance that goals keep from the cone."""

    joint_low_rad: tuple[float, ...]
    joint_high_rad: tuple[float, ...]
    joint_margin_rad: float
    """Distance that set-points keep from the joints' ends."""

    joint_velocity_rad_s: tuple[float, ...]
    joint_acceleration_rad_s2: tuple[float, ...]
    joint_torque_nm: tuple[float, ...]
    """Measured torques beyond these are a fault."""

    tool_speed_m_s: float
    tool_acceleration_m_s2: float
    step_m: float
    """Greatest translation that one action may ask for."""

    step_rad: float
    """Greatest rotation that one action may ask for."""

    least_singular_value: float
    """Of the tool's Jacobian [m and rad]; postures with a lesser one are refused."""

    gripper_open_m: float
    """Distance between the fingers when open."""

    gripper_speed_m_s: float
    home_rad: tuple[float, ...]
    tracking_error_rad: float
    """Greatest distance between set-point and measured joint before it is a fault."""

    velocity_fault_factor: float
    """Measured joint velocities beyond this many times the limit are a fault; measuring is noisier than commanding."""

    servo_hz: float
    """Set-points a second."""

    overrun_ms: float
    """Greatest time between two ticks of the supervisor before it is a fault."""

    heartbeat_ms: float
    """How often the lease holder must say that it lives."""

    heartbeat_lost_ms: float
    """Without a heartbeat for so long the robot holds."""

    lease_ttl_ms: float
    """Without a heartbeat for so long the lease is free."""

    observation_age_ms: float
    """Greatest age of the observation that an action answers."""

    action_deadline_ms: float
    """Least patience before STARVED; it is three policy periods if that is more."""

    @property
    def chain(self) -> Chain:
        """Return the arm's kinematics."""
        return chain(self.arm)

    @property
    def period_s(self) -> float:
        """Return the time between set-points [s]."""
        return 1.0 / self.servo_hz

    @property
    def period_ns(self) -> int:
        """Return the time between set-points [ns]."""
        return round(1e9 / self.servo_hz)

    @property
    def joint_range_rad(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the least and greatest set-points (n,), margin kept."""
        low, high = np.array(self.joint_low_rad), np.array(self.joint_high_rad)
        return low + self.joint_margin_rad, high - self.joint_margin_rad

    @property
    def goal_box_m(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the corners (3,) of the box that goals are in, margin kept."""
        return np.array(self.box_low_m) + self.box_margin_m, np.array(self.box_high_m) - self.box_margin_m

    @property
    def sha256(self) -> str:
        """Return the hash of all numbers; a client may insist on it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    def problem(self) -> str | None:
        """Return what is wrong with these numbers, or None."""
        n_joints = self.chain.n_joints
        for name, size in {"box_low_m": 3, "box_high_m": 3, **dict.fromkeys(_JOINTWISE, n_joints)}.items():
            if len(getattr(self, name)) != size:
                return f"{name} has {len(getattr(self, name))} numbers, expected {size}"
        low, high = self.joint_range_rad
        goal_low, goal_high = self.goal_box_m
        home = np.array(self.home_rad)
        pose = self.chain.pose(home)
        checks = {
            "box_low_m is not below box_high_m by two margins": bool((goal_low < goal_high).all()),
            "joint_low_rad is not below joint_high_rad by two margins": bool((low < high).all()),
            "home_rad is beyond the joints' margins": bool(((low <= home) & (home <= high)).all()),
            f"home_rad puts the tool at {pose.position_m.round(3).tolist()}, outside of the box": bool(
                ((goal_low <= pose.position_m) & (pose.position_m <= goal_high)).all()
            ),
            "home_rad tilts the tool beyond the cone": bool(
                tilt_rad(pose.rotation) <= self.cone_rad - self.cone_margin_rad
            ),
            "heartbeat_lost_ms is not above heartbeat_ms": self.heartbeat_lost_ms > self.heartbeat_ms,
            "lease_ttl_ms is below heartbeat_lost_ms": self.lease_ttl_ms >= self.heartbeat_lost_ms,
        }
        return next((problem for problem, kept in checks.items() if not kept), None)


_JOINTWISE = ("joint_low_rad", "joint_high_rad", "joint_velocity_rad_s", "joint_acceleration_rad_s2")
_JOINTWISE += ("joint_torque_nm", "home_rad")
_SIGNED = frozenset({"box_low_m", "box_high_m", "joint_low_rad", "joint_high_rad", "home_rad"})


def load(path: Path) -> Limits:
    """Return the limits that a TOML file states.

    Raises:
        LimitsError: If the file cannot be read, a number is missing, unknown or not finite, or they contradict.
    """
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as caught:
        raise LimitsError(path, f"cannot be read ({caught})") from caught
    return parse(found, path)


def parse(found: dict[str, Any], source: object = "limits") -> Limits:
    """Return the limits in a mapping with exactly the fields of `Limits`.

    Raises:
        LimitsError: As `load`.
    """
    names = {own.name: own for own in fields(Limits)}
    missing, unknown = sorted(names.keys() - found.keys()), sorted(found.keys() - names.keys())
    if missing or unknown:
        raise LimitsError(source, f"states no {', '.join(missing)}" if missing else f"states {', '.join(unknown)}")
    values: dict[str, Any] = {}
    for name, own in names.items():
        if name == "arm":
            values[name] = str(found[name])
            continue
        many = get_origin(own.type) is tuple
        numbers = found[name] if many else [found[name]]
        if not isinstance(numbers, list | tuple) or not all(_is_number(number, name) for number in numbers):
            kind = "finite numbers" if many else "a finite number"
            above = "" if name in _SIGNED else " above 0"
            raise LimitsError(source, f"{name} is {found[name]!r}, expected {kind}{above}")
        values[name] = tuple(float(number) for number in numbers) if many else float(numbers[0])
    limits = Limits(**values)
    problem = limits.problem()
    if problem:
        raise LimitsError(source, problem)
    return limits


def _is_number(found: Any, name: str) -> bool:
    if isinstance(found, bool) or not isinstance(found, int | float) or not math.isfinite(found):
        return False
    return name in _SIGNED or found > 0
