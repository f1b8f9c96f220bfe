"""The words of the benchmark: what a task, an action, an observation, an outcome and a record are."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any, TypeAlias

import numpy as np

Observation: TypeAlias = dict[str, Any]
"""One element of an environment's Gymnasium `spaces.Dict`.

Images are `uint8` arrays (height, width, 3), upright, under their camera's name; `proprio` is a `float32` vector whose
entries the environment documents with their units; `instruction` is the sentence the robot is told.
"""


@dataclass(frozen=True)
class ActionSpec:
    """Say what the numbers of an action mean; the policy's and the environment's must be equal."""

    size: int = 7
    """Entries of one action."""

    translation_m: float = 0.05
    """What 1 means in the first three entries: a change of the end effector's position."""

    rotation_rad: float = 0.5
    """What 1 means in the next three entries: a change of the end effector's orientation, as a rotation vector."""

    frame: str = "base"
    """Axes in which the change is given."""

    gripper: str = "close_is_positive"
    """Sign of the last entry: `close_is_positive` (+1 closes, -1 opens) or `open_is_positive`."""

    low: float = -1.0
    """Least value of an entry."""

    high: float = 1.0
    """Greatest value of an entry."""

    def differences(self, other: "ActionSpec") -> list[str]:
        """Return one phrase for every field in which `other` differs."""
        return [
            f"{name.name}={getattr(self, name.name)!r} against {getattr(other, name.name)!r}"
            for name in fields(self)
            if getattr(self, name.name) != getattr(other, name.name)
        ]


@dataclass(frozen=True)
class Task:
    """One thing a robot is asked to do, under the suite's protocol."""

    suite: str
    """Name and version of the suite, for example `libero-spatial@1`."""

    index: int
    """Position in the suite's standard order."""

    name: str
    """Unique within the suite."""

    instruction: str
    """The sentence the policy is given."""

    horizon: int
    """Control steps before the episode counts as a timeout, settling excluded."""

    n_initial_states: int
    """Official initial states; an episode's `init_state` is below it."""

    control_hz: float = 20.0
    """Control steps per simulated second."""

    action_spec: ActionSpec = field(default_factory=ActionSpec)
    """What an action means here."""

    dataset: str = ""
    """Published training data of the suite, by the name that checkpoints have it under, for example `libero_spatial`;
    empty where there is none."""


class Outcome(StrEnum):
    """How an episode ended."""

    SUCCESS = "success"
    """The task's predicate held at some step within the horizon."""

    TIMEOUT = "timeout"
    """The horizon passed without success."""

    ERROR = "error"
    """Something raised: no statement about the policy. Never part of a rate, always counted, retried on resume."""


@dataclass(frozen=True, order=True)
class Cell:
    """One start of one task: what all methods of a comparison have in common."""

    task: int
    """Index of the task in its suite."""

    init_state: int
    """Index of the official initial state."""

    seed: int
    """Of the policy, the method and the order of methods."""

    @property
    def policy_seed(self) -> int:
        """Return what the policy is reset with."""
        return policy_seed(self.seed, self.task, self.init_state)


def policy_seed(seed: int, *place: int) -> int:
    """Return the seed of a policy and its method at one start, the same for all methods and another at every start.

    Otherwise one draw would stand for all episodes, and a random control would be no sample.
    """
    return int(np.random.SeedSequence([seed, *place]).generate_state(1)[0])


@dataclass(frozen=True)
class Query:
    """One call of `Policy.act`, as raw facts."""

    step: int
    """Control steps done before this query."""

    n_actions: int
    """Actions in the chunk that came back."""

    n_executed: int
    """Actions of it that were applied (success or the horizon may cut a chunk short)."""

    observe_ms: float
    """From asking for the observation to having it in host memory; in a simulator this is the rendering."""

    policy_ms: float
    """From observation in host memory to actions in host memory, device work included."""

    step_ms: float
    """From asking for the observation to handing the first action over: observe, policy and harness."""

    apply_ms: float
    """Sum over the executed actions of the environment's `step`: physics, not part of any speed-up."""

    is_first_step: bool
    """First query of its episode, in which caches are filled."""

    is_warmup: bool
    """Among the first queries of this method in its process, or of an episode that is not timed; left out of latency
    figures."""

    rows_computed: int | None = None
    """Token rows that went through the decoder, if the policy counts them."""

    rows_reused: int | None = None
    """Token rows whose cached keys and values served again, if the policy counts them."""

    flops: int | None = None
    """Floating-point operations, gate included, a multiply-add counted as two; if the policy counts them."""

    stages_ms: dict[str, float] = field(default_factory=dict)
    """Time by stage [ms] as the policy reports it (`vision`, `prefill`, ...)."""

    cache: dict[str, Any] = field(default_factory=dict)
    """What a cache did, as the policy reports it: ratios, rows a layer, ages; empty without one."""

    charged_ms: float = 0.0
    """Time of the answer on the virtual clock; 0 without latency in the loop."""

    n_waited: int = 0
    """Control steps that passed on the virtual clock before the answer was there; `n_executed` does not count them."""


@dataclass(frozen=True)
class EpisodeRecord:
    """Raw facts of one episode; averages are made later, by `stats`."""

    suite: str
    method: str
    policy: str
    cell: Cell
    outcome: Outcome
    n_steps: int
    """Control steps done, settling excluded."""

    init_state_sha256: str
    """Hash of the initial state's bytes, so that pairing cannot mistake one state for another."""

    protocol: str
    """Name and hash of the protocol."""

    path_m: float
    """Length of the end effector's commanded path [m]: a cheap policy that wanders is not cheap."""

    jerk: float
    """Mean norm of the third difference of the commanded translation, in action units per step cubed."""

    wall_s: float
    """Wall time of the episode, reset included."""

    queries: tuple[Query, ...] = ()
    error: str | None = None
    """Type and message of what was raised, when the outcome is an error."""

    attempt: int = 1
    """1 for the first try of this cell and method; higher after an error was retried."""

    division: str = ""
    """What the method gives up or needs, a `Division`; empty in records from before it was written down."""

    actions_sha256: str = ""
    """Hash of all applied actions: equal ones from one start are one trajectory. Empty in older records."""

    timed: bool = True
    """Whether its times mean anything; those of a plan that measures success alone are in no latency figure."""

    @property
    def key(self) -> tuple[str, Cell]:
        """Return what must be unique among the finished episodes of a run."""
        return (self.method, self.cell)

    @property
    def is_broken(self) -> bool:
        """Return whether it says nothing about the policy and must be played again."""
        return self.outcome is Outcome.ERROR

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; queries by column."""
        return {**asdict(self), "queries": query_columns(self.queries)}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "EpisodeRecord":
        """Return the record that `to_dict` wrote."""
        return cls(
            **{
                **record,
                "cell": Cell(**record["cell"]),
                "outcome": Outcome(record["outcome"]),
                "queries": queries_of(record["queries"]),
            }
        )


def query_columns(queries: Sequence[Query]) -> dict[str, list[Any]]:
    """Return queries as one list a column, which is a third of the size of a list a row."""
    return {own.name: [getattr(query, own.name) for query in queries] for own in fields(Query)}


def queries_of(columns: dict[str, list[Any]]) -> tuple[Query, ...]:
    """Return the queries that `query_columns` wrote."""
    return tuple(Query(**dict(zip(columns, row, strict=True))) for row in zip(*columns.values(), strict=True))


def jerk_of(actions: np.ndarray) -> float:
    """Return the mean norm of the third difference of commanded translations (n, 3); 0 for fewer than 4 steps."""
    if len(actions) < 4:
        return 0.0
    return float(np.linalg.norm(np.diff(actions[:, :3], n=3, axis=0), axis=1).mean())
