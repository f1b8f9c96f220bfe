"""What a trial leaves besides its episode, and labels; both as lines of a journal."""

from dataclasses import asdict, dataclass
from typing import Any

from vla_bench.types import Cell


@dataclass(frozen=True)
class TrialRecord:
    """What the robot did in one attempt at a trial; the episode's record says the rest."""

    trial: str
    """Opaque id of the trial."""

    alias: str
    """Sealed name of the method."""

    cell: Cell
    attempt: int

    plan_sha256: str
    """Plan that was played."""

    reset_score: float | None
    """How well the scene was reset, see `scene.reset_score`; None for the trial that made the reference image."""

    sensor_to_action_ms: tuple[float | None, ...]
    """By control step; None for an action that was refused."""

    verdicts: dict[str, int]
    """Control steps by verdict of the gate."""

    reasons: dict[str, int]
    """Control steps by reason of the gate, for a change or a refusal."""

    counters: dict[str, float]
    """What the server's counters gained, `starved_ms` and the phases that were entered among them."""

    film: str
    """Name of the file with the trial's pictures; empty if there are none."""

    error: str | None = None
    """What was raised, if the attempt does not count."""

    @property
    def key(self) -> tuple[str, int]:
        """Return what must be unique."""
        return self.trial, self.attempt

    @property
    def is_broken(self) -> bool:
        """Return whether the attempt does not count."""
        return self.error is not None

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> "TrialRecord":
        """Return the record that `to_dict` wrote."""
        times = tuple(found["sensor_to_action_ms"])
        return cls(**{**found, "cell": Cell(**found["cell"]), "sensor_to_action_ms": times})


@dataclass(frozen=True)
class Label:
    """What one rater says of one trial; of several the last one counts."""

    trial: str
    success: bool
    rater: str
    plan_sha256: str

    labelled: str
    """When, in UTC and ISO 8601."""

    note: str = ""

    corrected: bool = False
    """Whether the rater took an earlier label back for this one."""

    @property
    def key(self) -> str:
        """Return what must be unique."""
        return self.trial

    @property
    def is_broken(self) -> bool:
        """Return False: a label is a label."""
        return False

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> "Label":
        """Return the label that `to_dict` wrote."""
        return cls(**found)
