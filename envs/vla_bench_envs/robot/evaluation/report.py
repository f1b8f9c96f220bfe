"""What an evaluation found: success and differences as every comparison, and what the robot did."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vla_bench import journal, tables
from vla_bench.compare import compare_df, paired
from vla_bench.compare.verdict import MIN_PAIRS
from vla_bench.stats import clopper_pearson
from vla_bench.types import EpisodeRecord, Outcome
from vla_bench_envs.robot.evaluation.agreement import Agreement, agreement
from vla_bench_envs.robot.evaluation.drift import Drift, Turn, drift
from vla_bench_envs.robot.evaluation.errors import PlanChangedError, UnfinishedError
from vla_bench_envs.robot.evaluation.folder import Folder
from vla_bench_envs.robot.evaluation.plan import EvaluationPlan
from vla_bench_envs.robot.evaluation.progress import progress
from vla_bench_envs.robot.evaluation.records import TrialRecord
from vla_bench_envs.robot.evaluation.seal import Seal
from vla_bench_envs.robot.evaluation.unsealing import unseal

SHOWN = {50: 1, 95: 60, 99: 300}
"""Percentiles [%] of sensor-to-action, each with the number of values from which it is shown: three lie beyond it."""

FAULTS = ("to_FAULT", "to_ESTOP", "to_HOLD")
"""Counters of phases that a trial should not enter."""


@dataclass(frozen=True)
class Findings:
    """Everything that a report says."""

    plan: EvaluationPlan
    run: Path
    """The unsealed run."""

    n_labelled: int
    methods: pd.DataFrame
    """One row a method, the reference first: what `compare_df` returned, and what the robot did."""

    agreements: dict[tuple[str, str], Agreement]
    """By first and second rater."""

    errors: list[str]
    """What ended attempts that are not counted."""

    n_corrected: int
    """Labels that were taken back for others."""

    drift: Drift
    """Of success over the order of trials."""

    progress: pd.DataFrame
    """One row a method, milestone or failure code: how many of how many trials, by the first rater."""


def find(folder: Folder, plan_sha256: str = "", partial: bool = False) -> Findings:
    """Unseal an evaluation and return what it found.

    Args:
        folder: Where it lies.
        plan_sha256: Hash, or the beginning of it, under which the plan was registered; empty takes the folder's word.
        partial: Whether trials may be missing; they are given up.

    Raises:
        PlanChangedError: If the plan is not the one that was registered, or trials are of another.
        SealBrokenError: If the map of methods is not the one that the plan commits to.
        UnfinishedError: If trials are missing and may not be.
    """
    plan = folder.plan()
    if not plan.sha256.startswith(plan_sha256):
        raise PlanChangedError(folder.path, plan.sha256, plan_sha256)
    seal = folder.seal(plan)
    attempts = journal.latest(folder.read_trials(plan))
    raters = {rater: folder.read_labels(plan, rater) for rater in folder.raters()}
    counted = [record for record in journal.latest(journal.read(folder.blind)) if not record.is_broken]
    n_trials = len(plan.trials())
    if len(counted) < n_trials and not partial:
        raise UnfinishedError(n_trials - len(counted), n_trials)
    run = unseal(folder, plan, seal)
    compared = compare_df(tables.load(run), reference=plan.reference, margin=plan.margin)
    episodes = {(record.key, record.attempt): record for record in journal.read(run)}
    robot = [_of_robot(name, seal.methods, attempts, episodes) for name in compared["method"]]
    names = list(raters)
    return Findings(
        drift=drift(_turns(plan, seal, counted)),
        progress=progress(plan, seal, counted, raters[names[0]] if names else {}),
        plan=plan,
        run=run,
        n_labelled=len(counted),
        methods=_with_margins(compared).merge(pd.DataFrame(robot), on="method"),
        agreements={
            (names[0], name): found
            for name in names[1:]
            if (found := _agreement(raters[names[0]], raters[name])) is not None
        },
        errors=[f"{one.trial}, attempt {one.attempt}: {one.error}" for one in attempts if one.error],
        n_corrected=sum(label.corrected for labels in raters.values() for label in labels.values()),
    )


def _turns(plan: EvaluationPlan, seal: Seal, counted: Sequence[EpisodeRecord]) -> list[Turn]:
    """Return when each counted trial was played, and how it ended."""
    numbers = {(trial.alias, trial.cell): trial.number for trial in plan.trials()}
    return [
        Turn(numbers[one.key], (one.cell.task, seal.methods[one.method]), one.outcome is Outcome.SUCCESS)
        for one in counted
    ]


def _with_margins(compared: pd.DataFrame) -> pd.DataFrame:
    """Add the exact limits of success, and the one-sided 95 % limit of each difference.

    Non-inferiority is decided by the latter; there is none of too few pairs.
    """
    trials = compared["pairs"].fillna(compared["episodes"]).astype(int)  # the reference's own row has no pairs
    exact = [
        clopper_pearson(round(share * n), n) if n else None
        for share, n in zip(compared["success"], trials, strict=True)
    ]
    limits = [
        np.nan
        if pd.isna(row["pairs"]) or row["pairs"] < MIN_PAIRS
        else paired.tango(int(row["gained"]), int(row["lost"]), int(row["pairs"]), confidence=0.9).low
        for _, row in compared.iterrows()
    ]
    return compared.assign(
        success_exact_low=[one.low if one else np.nan for one in exact],
        success_exact_high=[one.high if one else np.nan for one in exact],
        one_sided_low=limits,
    )


def _of_robot(
    method: str, methods: dict[str, str], attempts: Sequence[TrialRecord], episodes: dict[Any, EpisodeRecord]
) -> dict[str, Any]:
    """Return what the robot did under one method, over the attempts that count; faults over all."""
    own = [one for one in attempts if methods[one.alias] == method]
    counted = [one for one in own if not one.is_broken and ((method, one.cell), one.attempt) in episodes]
    fresh = [_fresh_ms(one, episodes[(method, one.cell), one.attempt]) for one in counted]
    times = np.array(list(chain.from_iterable(fresh)))
    n_steps = sum(sum(one.verdicts.values()) for one in counted)
    scores = [one.reset_score for one in counted if one.reset_score is not None]
    return {
        "method": method,
        "control_steps": n_steps,
        "fresh_actions": len(times),
        **{
            f"sensor_to_action_ms_p{p}": float(np.percentile(times, p)) if len(times) >= least else np.nan
            for p, least in SHOWN.items()
        },
        "starved_ms": sum(one.counters.get("starved_ms", 0.0) for one in counted),
        "starvations": sum(int(one.counters.get("to_STARVED", 0)) for one in counted),
        "clamped": sum(one.verdicts.get("clamped", 0) for one in counted),
        "rejected": sum(one.verdicts.get("rejected", 0) for one in counted),
        "ended_by_fault": sum(bool(one.failed) for one in counted),
        "uncounted_attempts": sum(one.is_broken for one in own),
        "faults": sum(int(one.counters.get(name, 0)) for one in own for name in FAULTS),
        "reset_score_median": float(np.median(scores)) if scores else np.nan,
        "reset_score_least": min(scores, default=np.nan),
    }


def _fresh_ms(attempt: TrialRecord, episode: EpisodeRecord) -> list[float]:
    """Return sensor-to-action [ms] of the actions that answer the observation they were sent for.

    The first of each chunk: later ones answer an older observation than the one that the server sees them with. Without
    an episode's first query and a process's warm-up, which are no part of any latency.
    """
    steady = [query.step for query in episode.queries if not (query.is_warmup or query.is_first_step)]
    times = [attempt.sensor_to_action_ms[step] for step in steady if step < len(attempt.sensor_to_action_ms)]
    return [ms for ms in times if ms is not None]


def _agreement(one: dict[str, Any], other: dict[str, Any]) -> Agreement | None:
    """Return how far two raters agree on the trials that both have labelled; None if there are none."""
    common = [trial for trial in one if trial in other]
    if not common:
        return None
    return agreement([one[trial].success for trial in common], [other[trial].success for trial in common])
