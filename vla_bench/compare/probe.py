"""How long episodes take on this machine: tried for a few control steps, or known from earlier results."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd

from vla_bench import provenance, registry
from vla_bench.contestant import Contestant
from vla_bench.errors import VlaBenchError
from vla_bench.plan import ResolvedPlan
from vla_bench.policy import PrivilegedPolicy
from vla_bench.rollout import run_episode
from vla_bench.tables import Results
from vla_bench.types import Cell, EpisodeRecord, Outcome

STEPS = 40
"""Control steps that a method is tried for, at least; more if its chunk is longer, so that it is asked twice."""

BUDGET_S = 6.0
"""Time [s] after which a method is tried no longer than for one query and one control step."""


class ProbeError(VlaBenchError):
    """Report that a method could not be tried."""

    def __init__(self, method: str, error: str | None) -> None:
        super().__init__(
            f"trying {method!r} for a few control steps ended in an error ({error}): 'vla-bench check' says whether "
            f"environment, policy and method keep their contracts"
        )


@dataclass(frozen=True)
class Pace:
    """How fast a method plays."""

    source: str
    """What was measured."""

    start_s: float
    """From asking for an episode to its first observation, without what a change of task adds."""

    query_ms: float
    """Policy time of a query [ms]."""

    step_ms: float
    """Wall time of a control step: simulator, pictures, policy and harness."""

    episode_s: float | None = None
    """Mean wall time of an episode, where whole ones were seen."""

    def lasts_s(self, n_steps: float) -> float:
        """Return the wall time of an episode of `n_steps` control steps."""
        return self.start_s + n_steps * self.step_ms * 1e-3


@dataclass(frozen=True)
class Probe:
    """What a short trial found."""

    load_s: float
    """Loading the policy."""

    change_s: float
    """What a change of task adds to the start of an episode."""

    paces: dict[str, Pace]
    """By method."""


def try_methods(plan: ResolvedPlan, methods: Sequence[str]) -> Probe:
    """Start the plan's first task, and let each method play a few control steps of it.

    Raises:
        ProbeError: If one of them raises.
    """
    began = perf_counter()
    policy = registry.policy(plan.policy)
    load_s = perf_counter() - began
    contestants = [Contestant.of(method, policy) for method in methods]
    for contestant in contestants:
        contestant.check(plan.tasks[0])
    env = plan.suite.make(plan.protocol)
    try:
        if isinstance(policy, PrivilegedPolicy):
            policy.attach(env)
        began = perf_counter()
        env.reset(seed=plan.seed, options={"task": plan.tasks[0].index, "init_state": 0})
        first_s = perf_counter() - began
        paces = {contestant.method: _tried(plan, env, contestant) for contestant in contestants}
    finally:
        env.close()
    return Probe(load_s, max(0.0, first_s - min(pace.start_s for pace in paces.values())), paces)


def from_results(plan: ResolvedPlan, results: Results) -> dict[str, Pace]:
    """Return how fast the plan's methods played in earlier results, as far as those were made on this machine."""
    episodes = of_plan(plan, results)
    here = provenance.machine()
    runs = results.runs[
        (results.runs["processor"] == here["processor"]) & (results.runs["accelerator"] == here["accelerator"])
    ]
    episodes = episodes[episodes["run"].isin(runs["run"]) & episodes["timed"]]
    return {str(method): _seen(own, results.queries) for method, own in episodes.groupby("method") if len(own)}


def of_plan(plan: ResolvedPlan, results: Results) -> pd.DataFrame:
    """Return the finished episodes of earlier results that share suite, policy, protocol and method with a plan."""
    runs = results.runs[results.runs["plan policy"] == plan.policy]
    episodes = results.episodes
    return episodes[
        episodes["run"].isin(runs["run"])
        & (episodes["suite"] == plan.suite.name)
        & (episodes["protocol"] == str(plan.protocol))
        & episodes["method"].isin(plan.methods)
        & (episodes["outcome"] != str(Outcome.ERROR))
    ]


def _tried(plan: ResolvedPlan, env: Any, contestant: Contestant) -> Pace:
    """Play one control step, then as many as the budget allows: the first one only warms up, unless it was too dear."""
    record = _play(plan, env, contestant, 1)
    query = record.queries[0]
    step_s = (query.apply_ms + query.step_ms / query.n_actions) * 1e-3
    n_steps = int(min(max(STEPS, query.n_actions + 1), BUDGET_S / max(step_s, 1e-9)))
    if n_steps > 1 and query.step_ms * 1e-3 < BUDGET_S:
        record = _play(plan, env, contestant, n_steps)
    steady = record.queries[1:] or record.queries
    apply_ms = sum(query.apply_ms for query in record.queries)
    asked_ms = float(np.median([query.step_ms / query.n_actions for query in steady]))
    return Pace(
        source=f"tried now: {record.n_steps} control steps, {len(record.queries)} queries",
        start_s=record.wall_s - (apply_ms + sum(query.step_ms for query in record.queries)) * 1e-3,
        query_ms=float(np.median([query.policy_ms for query in steady])),
        step_ms=apply_ms / record.n_steps + asked_ms,
    )


def _play(plan: ResolvedPlan, env: Any, contestant: Contestant, n_steps: int) -> EpisodeRecord:
    """Play the beginning of the plan's first episode."""
    task, protocol = replace(plan.tasks[0], horizon=n_steps), replace(plan.protocol, horizons=())
    record = run_episode(env, contestant, task, Cell(task.index, 0, plan.seed), protocol)
    if record.outcome is Outcome.ERROR:
        raise ProbeError(contestant.method, record.error)
    return record


def _seen(own: pd.DataFrame, queries: pd.DataFrame) -> Pace:
    key = ["run", "method", "task", "init_state", "seed"]
    asked = queries.merge(own[key], on=key)
    return Pace(
        source=f"{len(own)} earlier episodes",
        start_s=0.0,
        query_ms=float(asked["policy_ms"].median()),
        step_ms=float(1e3 * own["wall_s"].sum() / own["n_steps"].sum()),
        episode_s=float(own["wall_s"].mean()),
    )
