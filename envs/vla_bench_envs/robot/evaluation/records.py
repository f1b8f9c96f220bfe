"""What a trial leaves besides its episode, and labels; both as lines of a journal."""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from vla_bench.types import Cell
from vla_bench_envs.robot.evaluation.desk import Press
from vla_bench_envs.robot.evaluation.plan import EvaluationPlan


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

    failed: str = ""
    """Cause for which the robot stood still, if the method's actions brought it about: such an attempt counts."""

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

    milestones: tuple[str, ...] = ()
    """Of the plan's, those that were reached; a success has reached all."""

    failure: str = ""
    """One of the plan's codes, if the rater gave one to a failure."""

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
        listed: dict[str, Any] = found | {"milestones": tuple(found.get("milestones", ()))}
        return cls(**listed)

    @classmethod
    def of(cls, trial: str, verdict: Press, rater: str, plan: EvaluationPlan, corrected: bool) -> "Label":
        """Return what a press says of a trial, now."""
        success = verdict.word == "success"
        return cls(
            trial=trial,
            success=success,
            rater=rater,
            plan_sha256=plan.sha256,
            labelled=datetime.now(UTC).isoformat(timespec="milliseconds"),
            note=verdict.note,
            corrected=corrected,
            milestones=plan.milestones if success else verdict.milestones,
            failure="" if success else verdict.failure,
        )
