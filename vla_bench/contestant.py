"""A policy under one method, and the only clock: how long it takes to answer."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite
from time import perf_counter_ns

from vla_bench import registry
from vla_bench.errors import ActionSpecMismatchError
from vla_bench.policy import ActionChunk, Policy
from vla_bench.types import Observation, Query, Task

WARMUP_QUERIES = 20
"""First queries of a method in a process that stay out of latency figures. Source: the measurement protocol of this
project: caches, allocators and frequency scaling settle within them."""


@dataclass(frozen=True)
class Answer:
    """What a policy answered, and how long it took [ms]."""

    chunk: ActionChunk
    observe_ms: float
    policy_ms: float
    step_ms: float
    is_warmup: bool

    def query(
        self, step: int, n_executed: int, apply_ms: float = 0.0, charged_ms: float = 0.0, n_waited: int = 0
    ) -> Query:
        """Return the raw facts; what cannot be written down later raises here.

        Args:
            step: Control steps done before.
            n_executed: Actions of the chunk that were applied.
            apply_ms: Time that the environment took for them.
            charged_ms: Time of the answer on the virtual clock.
            n_waited: Control steps that it took there.

        Raises:
            ValueError: If a stage has no finite time, or the cache reports what JSON cannot hold.
        """
        chunk = self.chunk
        return Query(
            step=step,
            n_actions=len(chunk.actions),
            n_executed=n_executed,
            observe_ms=self.observe_ms,
            policy_ms=self.policy_ms,
            step_ms=self.step_ms,
            apply_ms=apply_ms,
            is_first_step=step == 0,
            is_warmup=self.is_warmup,
            rows_computed=None if chunk.rows_computed is None else int(chunk.rows_computed),
            rows_reused=None if chunk.rows_reused is None else int(chunk.rows_reused),
            flops=None if chunk.flops is None else int(chunk.flops),
            stages_ms={str(stage): _finite(ms, stage) for stage, ms in chunk.stages_ms.items()},
            cache=json.loads(json.dumps(chunk.cache, allow_nan=False)) if chunk.cache else {},
            charged_ms=charged_ms,
            n_waited=n_waited,
        )


@dataclass
class Contestant:
    """A policy under one method, and how warm it is in this process."""

    method: str
    policy: Policy
    n_queries: int = 0
    division: str = ""
    """What the method gives up or needs, a `Division`; empty if nobody has said."""

    timed: bool = True
    """Whether its times mean anything: not where other work runs beside it."""

    @classmethod
    def of(cls, method: str, policy: Policy, timed: bool = True) -> "Contestant":
        """Return a policy under the method of a specification."""
        made = registry.method(method)
        return cls(method, made.apply(policy), division=str(registry.division(made)), timed=timed)

    def check(self, task: Task) -> None:
        """Refuse a policy whose actions mean something else than the task's.

        Raises:
            ActionSpecMismatchError: Naming every field that differs.
        """
        differences = self.policy.action_spec.differences(task.action_spec)
        if differences:
            raise ActionSpecMismatchError(self.policy.name, task.suite, differences)

    def ask(self, obs: Observation, keys: Iterable[str]) -> Answer:
        """Return the policy's answer to the entries `keys` of an observation, timed, device work included.

        Raises:
            ValueError: If the answer holds no actions.
        """
        asked = perf_counter_ns()
        seen = {key: obs[key] for key in keys}
        observed = perf_counter_ns()
        self.policy.synchronize()
        start = perf_counter_ns()
        chunk = self.policy.act(seen)
        self.policy.synchronize()
        end = perf_counter_ns()
        if chunk.actions.ndim != 2 or not len(chunk.actions):
            found = f"{self.policy.name!r} answered with actions of shape {chunk.actions.shape}"
            raise ValueError(f"{found}; expected (n >= 1, size)")
        times_ns = (observed - asked, end - start, perf_counter_ns() - asked)
        self.n_queries += 1
        left_out = not self.timed or self.n_queries <= WARMUP_QUERIES
        return Answer(chunk, *(ns * 1e-6 for ns in times_ns), is_warmup=left_out)


def _finite(ms: float, stage: str) -> float:
    if not isfinite(ms):
        raise ValueError(f"the policy reports {ms} ms for its stage {stage!r}; expected a finite number")
    return float(ms)
