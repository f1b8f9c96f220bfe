"""What a policy is, what it answers, and how a method makes it cheaper."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, Protocol, runtime_checkable

import numpy as np

from vla_bench.types import ActionSpec, Observation, Task


class Fate(IntEnum):
    """What happened to a patch of an image on its way through an accelerated policy."""

    COMPUTED = 0
    """Computed."""

    REFRESHED = 1
    """Computed, after it was reused the time before."""

    REUSED = 2
    """Served from what was remembered, at least in the last layer."""

    DELETED = 3
    """Gone: nothing looks at it, at least in the last layer."""


class Division(StrEnum):
    """What a method gives up or needs, so that like is compared with like; in the order of how much."""

    EXACT = "exact"
    """Answers as the policy does, to rounding."""

    LOSSY = "lossy"
    """Leaves something out: rows deleted, layers skipped, actions repeated. What it looks at is fresh."""

    TEMPORAL_CACHE = "temporal-cache"
    """Serves what it computed from earlier observations."""

    ASYNC = "async"
    """Answers late: inference overlaps with the robot's motion."""

    TRAINED = "trained"
    """Has parameters of its own that were trained for the policy."""

    @classmethod
    def most(cls, divisions: "Iterable[Division]") -> "Division":
        """Return the one that gives up or needs the most."""
        return max(divisions, key=list(cls).index)


@dataclass(frozen=True)
class ActionChunk:
    """The next n actions and what they cost."""

    actions: np.ndarray
    """Float array (n, size of an action), n at least 1, in the units of the policy's `ActionSpec`."""

    rows_computed: int | None = None
    """Token rows that went through the decoder; None if the policy has no such thing."""

    rows_reused: int | None = None
    """Token rows that were not computed because the cache served; None if the policy has no such thing."""

    flops: int | None = None
    """Floating-point operations of this query, gate included, a multiply-add counted as two; None if not counted."""

    stages_ms: dict[str, float] = field(default_factory=dict)
    """Time by stage [ms]; the stages of measurement.md add up to `policy_ms` within 5 %."""

    cache: dict[str, Any] = field(default_factory=dict)
    """What a cache did, as plain JSON values: ratios, rows a layer, ages; empty without one."""

    fates: dict[str, np.ndarray] = field(default_factory=dict)
    """`uint8` (rows, columns) by camera: the `Fate` of each patch; not recorded, for pictures of what a method does."""


@runtime_checkable
class Policy(Protocol):
    """Something that looks and answers with actions. It never times itself as a whole: the harness holds the clock."""

    @property
    def name(self) -> str:
        """Return what tables call it."""
        ...

    @property
    def action_spec(self) -> ActionSpec:
        """Return what its actions mean; must equal the environment's."""
        ...

    @property
    def cameras(self) -> tuple[str, ...] | None:
        """Return the cameras it reads, None for all. An image that nobody reads is not rendered."""
        ...

    @property
    def fingerprint(self) -> str:
        """Return what decides its answers besides observation and seed: a hash of weights and configuration."""
        ...

    def reset(self, task: Task, seed: int) -> None:
        """Forget everything and prepare for an episode of `task`."""
        ...

    def act(self, obs: Observation) -> ActionChunk:
        """Return the next actions; `obs` is left untouched."""
        ...

    def synchronize(self) -> None:
        """Wait until the device has done all that was asked; nothing to do on a CPU."""
        ...


@runtime_checkable
class PrivilegedPolicy(Policy, Protocol):
    """A policy that reads the simulator's state (a scripted expert): a tool, never a competitor."""

    def attach(self, env: Any) -> None:
        """Take the environment whose state will be read; called once, before the first `reset`."""
        ...


@runtime_checkable
class SharedPolicy(Policy, Protocol):
    """A policy whose weights can serve several environments at once, each with what it remembers of its own."""

    def seat(self) -> "SharedPolicy":
        """Return a policy with the same weights that remembers nothing yet, and remembers for itself."""
        ...

    def act_together(self, seats: Sequence[Any], observations: Sequence[Observation]) -> list[ActionChunk]:
        """Return the answers of several seats of these weights, each to its own observation, as one batch."""
        ...


@runtime_checkable
class Method(Protocol):
    """One way to make a policy cheaper: one row of a table. It wraps; it never branches inside a shared function.

    At its exact setting it changes no action. A class may say its `division`; one that does not is `Division.LOSSY`.
    """

    @property
    def name(self) -> str:
        """Return the specification that makes this method again, for example `action-reuse:2`."""
        ...

    def apply(self, policy: Policy) -> Policy:
        """Return a policy that answers like `policy`, but cheaper."""
        ...


@dataclass
class PolicyWrapper:
    """A policy that passes everything on to another one: what most methods start from."""

    inner: Policy
    """The policy that is asked."""

    @property
    def name(self) -> str:
        """Return the inner policy's name: a method is another column, not another policy."""
        return self.inner.name

    @property
    def action_spec(self) -> ActionSpec:
        """Return the inner policy's action specification."""
        return self.inner.action_spec

    @property
    def cameras(self) -> tuple[str, ...] | None:
        """Return the cameras that the inner policy reads."""
        return self.inner.cameras

    @property
    def fingerprint(self) -> str:
        """Return the inner policy's fingerprint; the method has its own column."""
        return self.inner.fingerprint

    def attach(self, env: Any) -> None:
        """Hand the environment to a privileged inner policy."""
        if isinstance(self.inner, PrivilegedPolicy):
            self.inner.attach(env)

    def reset(self, task: Task, seed: int) -> None:
        """Reset the inner policy."""
        self.inner.reset(task, seed)

    def act(self, obs: Observation) -> ActionChunk:
        """Ask the inner policy."""
        return self.inner.act(obs)

    def synchronize(self) -> None:
        """Wait for the inner policy's device."""
        self.inner.synchronize()
