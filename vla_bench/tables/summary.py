"""One row for every suite, policy and method: success, latency and speed-up, with intervals."""

import numpy as np
import pandas as pd

from vla_bench import stats
from vla_bench.tables.frames import Results
from vla_bench.tables.sources import check_comparable
from vla_bench.types import Outcome

REFERENCE_METHOD = "full"
"""What every speed-up is divided by."""

EPISODE_KEY = ["suite", "policy", "method", "task", "init_state", "seed"]
"""What must be unique among the episodes of a summary."""


def summarise(results: Results, seed: int = 0) -> pd.DataFrame:
    """Return one row for every suite, policy and method, with intervals.

    Latency leaves out warm-up and the first query of an episode. Columns: `success` with Wilson limits, errors apart;
    `policy_ms` a query (median with bootstrap interval, p90 from 30 queries on); `policy_ms_per_step`, what a control
    step costs; `speedup` at that boundary, the ratio of medians over the starts that both methods finished.

    A start that several runs played counts once, as the run that began last played it.

    Raises:
        MixedRunsError: If the runs cannot stand in one table.
    """
    check_comparable(results)
    rows = []
    once = results.episodes.drop_duplicates(EPISODE_KEY, keep="last")
    for (suite, policy), group in once.groupby(["suite", "policy"]):
        reference = group[group["method"] == REFERENCE_METHOD]
        for method in sorted(group["method"].unique(), key=lambda name: (name != REFERENCE_METHOD, name)):
            rng = np.random.default_rng(seed)
            own = group[group["method"] == method]
            row = {"suite": suite, "policy": policy, "method": method, **_success(own)}
            rows.append(row | _latency(own, results.queries, rng) | _speedup(reference, own, rng))
    return pd.DataFrame(rows)


def _success(own: pd.DataFrame) -> dict[str, object]:
    valid = own[own["outcome"] != str(Outcome.ERROR)]
    successes = int(valid["success"].sum())
    rate = stats.wilson(successes, len(valid)) if len(valid) else None
    return {
        "episodes": len(own),
        "errors": len(own) - len(valid),
        **interval_columns("success", rate),
        "steps_to_success": valid.loc[valid["success"], "n_steps"].median(),
        "policy_ms_per_success": valid["policy_ms_total"].sum(skipna=False) / successes if successes else np.nan,
        "queries_per_step": valid["n_queries"].sum() / max(valid["n_steps"].sum(), 1),
    }


def _latency(own: pd.DataFrame, queries: pd.DataFrame, rng: np.random.Generator) -> dict[str, object]:
    key = ["run", "method", "task", "init_state", "seed"]
    clusters = []
    if len(queries):  # a frame without rows has no columns either
        timed = queries.merge(own.loc[own["outcome"] != str(Outcome.ERROR), key], on=key)
        timed = timed[~timed["is_warmup"] & ~timed["is_first_step"]]
        clusters = [group["policy_ms"].to_numpy() for _, group in timed.groupby(key)]
    values = np.concatenate(clusters) if clusters else np.empty(0)
    per_step = own["policy_ms_per_step"].dropna().to_numpy()
    return {
        "timed_queries": len(values),
        **interval_columns("policy_ms", stats.clustered_median(clusters, rng) if clusters else None),
        "policy_ms_p90": stats.percentile(values, 90),
        **interval_columns("policy_ms_per_step", stats.median(per_step, rng) if len(per_step) else None),
    }


def _speedup(reference: pd.DataFrame, own: pd.DataFrame, rng: np.random.Generator) -> dict[str, object]:
    key = ["task", "init_state", "seed"]
    pairs = reference.merge(own, on=key, suffixes=("_reference", "_own"))
    pairs = pairs.dropna(subset=["policy_ms_per_step_reference", "policy_ms_per_step_own"])
    if not len(pairs):
        return {"pairs": 0, **interval_columns("speedup", None)}
    before, after = (pairs[f"policy_ms_per_step_{side}"].to_numpy() for side in ("reference", "own"))
    return {"pairs": len(pairs), **interval_columns("speedup", stats.ratio_of_paired_medians(before, after, rng))}


def interval_columns(name: str, interval: stats.Interval | None) -> dict[str, float]:
    """Return an estimate and its limits under three names; not-a-number without one."""
    if interval is None:
        return {name: np.nan, f"{name}_low": np.nan, f"{name}_high": np.nan}
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
