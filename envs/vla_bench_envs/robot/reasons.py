"""Why the gate changed or refused an action, and why the robot left a phase: one code each, counted and logged."""

from enum import StrEnum


class Verdict(StrEnum):
    """What became of an action."""

    OK = "ok"
    """Applied as it was."""

    CLAMPED = "clamped"
    """Applied after it was brought within limits; the acknowledgement says what was applied."""

    REJECTED = "rejected"
    """Not applied."""


class Reason(StrEnum):
    """A code of the gate, in the order in which the gate checks."""

    NO_LEASE = "no_lease"
    PHASE = "phase"
    MODE = "mode"
    SEQUENCE = "sequence"
    SHAPE = "shape"
    NON_FINITE = "non_finite"
    UNKNOWN_OBS = "unknown_obs"
    STALE_OBS = "stale_obs"
    EXPIRED = "expired"
    """The row's time had passed before it could be applied."""

    RANGE = "range"
    STEP = "step"
    BOX = "box"
    CONE = "cone"
    UNREACHABLE = "unreachable"
    JOINT_MARGIN = "joint_margin"
    SINGULAR = "singular"
    COLLISION = "collision"
    BRAKED = "braked"
    """The limiter found no next set-point from which it could have stopped within all limits, and braked."""


CLAMPING = frozenset({Reason.RANGE, Reason.STEP, Reason.BOX, Reason.CONE})
"""Reasons that change an action; every other reason of the gate refuses it."""


class Cause(StrEnum):
    """Why the robot left a phase."""

    CONNECTED = "connected"
    REQUESTED = "requested"
    ARRIVED = "arrived"
    ARMED = "armed"
    DEADLINE = "action_deadline"
    FRESH_ACTION = "fresh_action"
    HEARTBEAT_LOST = "heartbeat_lost"
    LEASE_LOST = "lease_lost"
    NON_FINITE = "non_finite"
    REJECTS = "rejects"
    BLOCKED = "home_blocked"
    JOINT_LIMIT = "joint_limit"
    VELOCITY_LIMIT = "velocity_limit"
    TORQUE_LIMIT = "torque_limit"
    TRACKING = "tracking_error"
    COLLISION = "collision"
    DRIVER = "driver_error"
    OVERRUN = "loop_overrun"
    OPERATOR = "operator"


OF_THE_POLICY = frozenset(
    {
        Cause.NON_FINITE, Cause.REJECTS, Cause.JOINT_LIMIT, Cause.VELOCITY_LIMIT, Cause.TORQUE_LIMIT, Cause.TRACKING,
        Cause.COLLISION,
    }
)  # fmt: skip
"""Causes that whoever sends the actions brings about: they end an episode as a failure, all others as an error."""
