"""The safety state machine: nothing resumes by itself but STARVED, and FAULT and ESTOP latch."""

from enum import StrEnum


class Phase(StrEnum):
    """Where the robot is between switched off and moving."""

    OFFLINE = "OFFLINE"
    """No driver is connected."""

    IDLE = "IDLE"
    """Connected, standing; must be sent home before it can be armed."""

    HOMING = "HOMING"
    """Moving to the home posture, within the same limits as everything else."""

    READY = "READY"
    """At home, standing."""

    ACTIVE = "ACTIVE"
    """Follows actions."""

    STARVED = "STARVED"
    """Braked, because no fresh action came in time; goes on with the next one. The time spent here is a result."""

    HOLD = "HOLD"
    """Braked and stiff; the lease holder must arm it again."""

    FAULT = "FAULT"
    """Something was wrong with the robot; latched until the local operator resets it."""

    ESTOP = "ESTOP"
    """Somebody stopped it; latched until the local operator resets it."""


STEPS: dict[Phase, frozenset[Phase]] = {
    Phase.OFFLINE: frozenset({Phase.IDLE}),
    Phase.IDLE: frozenset({Phase.HOMING}),
    Phase.HOMING: frozenset({Phase.READY, Phase.HOLD}),
    Phase.READY: frozenset({Phase.ACTIVE, Phase.HOMING, Phase.HOLD}),
    Phase.ACTIVE: frozenset({Phase.STARVED, Phase.HOLD}),
    Phase.STARVED: frozenset({Phase.ACTIVE, Phase.HOLD}),
    Phase.HOLD: frozenset({Phase.ACTIVE, Phase.HOMING}),
    Phase.FAULT: frozenset({Phase.IDLE}),
    Phase.ESTOP: frozenset({Phase.IDLE}),
}
"""Where each phase may lead, besides OFFLINE, FAULT and ESTOP, which every phase may lead to as `leads_to` says."""

FOLLOWING = frozenset({Phase.ACTIVE, Phase.STARVED})
"""Phases in which actions are taken."""

ENABLED = frozenset({Phase.HOMING, Phase.READY, Phase.ACTIVE, Phase.STARVED, Phase.HOLD})
"""Phases in which set-points go to the driver."""

LATCHED = frozenset({Phase.FAULT, Phase.ESTOP})
"""Phases that only the local operator ends."""


def leads_to(phase: Phase, next_phase: Phase) -> bool:
    """Return whether the robot may go from one phase to the next."""
    if next_phase is Phase.OFFLINE:
        return phase is not Phase.OFFLINE
    if next_phase is Phase.ESTOP:
        return phase not in (Phase.OFFLINE, Phase.ESTOP)
    if next_phase is Phase.FAULT:
        return phase not in (Phase.OFFLINE, Phase.FAULT, Phase.ESTOP)
    return next_phase in STEPS[phase]
