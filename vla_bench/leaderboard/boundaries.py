"""Time at the two other boundaries: the decoder inside of policy time, and the control step around it."""

from typing import Any

import numpy as np
import pandas as pd

from vla_bench import stats
from vla_bench.compare import pairs
from vla_bench.compare.pairs import EPISODE
from vla_bench.compare.verdict import MIN_PAIRS
from vla_bench.tables import Results, interval_columns

DECODER_STAGES = ("stage_ms prefill", "stage_ms decode")
"""Stages that are decoder rows and nothing else."""

BOUNDARIES = ("decoder", "step")
"""Boundaries besides policy time, which `compare_df` holds."""


def timed(results: Results, episodes: pd.DataFrame) -> pd.DataFrame:
    """Return the steady queries of these episodes with `decoder_ms` and `step_ms`, not-a-number where not recorded.

    Warm-up and the first query of an episode are left out. A method that reports decoder stages spent no time in those
    that a query lacks: it skipped them. `n_executed` counts all control steps up to the next query, those of latency in
    the loop included.
    """
    if not len(results.queries):  # a frame without rows has no columns either
        return pd.DataFrame(columns=[*EPISODE, "decoder_ms", "step_ms", "n_executed"], dtype=float)
    asked = results.queries.merge(pairs.latest(episodes)[EPISODE], on=EPISODE)
    asked = asked[~asked["is_warmup"].astype(bool) & ~asked["is_first_step"].astype(bool)]
    stages = asked.reindex(columns=[*DECODER_STAGES]).astype(float)
    reports = stages.notna().any(axis=1).groupby(asked["method"]).transform("any").astype(bool)
    asked["decoder_ms"] = stages.sum(axis=1).where(reports)
    for name in ("step_ms", "n_executed"):
        asked[name] = asked[name].astype(float) if name in asked else np.nan
    if "n_waited" in asked:  # control steps are control steps, whoever's action they apply
        asked["n_executed"] += asked["n_waited"].fillna(0)
    return asked


def describe(asked: pd.DataFrame, episodes: pd.DataFrame, reference: str, method: str, seed: int = 0) -> dict[str, Any]:
    """Return a method's median times a query [ms] and its speed-ups a control step at `BOUNDARIES`, with intervals.

    Args:
        asked: What `timed` returned.
        episodes: What `pairs.finished` returned, of one suite and policy.
        reference: Method that is divided by.
        method: Method that is described; of the reference itself there is no speed-up.
        seed: Seeds the bootstrap.
    """
    own = asked[asked["method"] == method]
    found: dict[str, Any] = {}
    for boundary in BOUNDARIES:
        values = own[f"{boundary}_ms"].dropna().to_numpy(dtype=float)
        found[f"{boundary}_ms_p50"] = stats.percentile(values, 50)
        speedup = None if method == reference else _speedup(asked, episodes, reference, method, boundary, seed)
        found |= interval_columns(f"{boundary}_speedup", speedup)
    return found


def _speedup(
    asked: pd.DataFrame, episodes: pd.DataFrame, reference: str, method: str, boundary: str, seed: int
) -> stats.Interval | None:
    """Return the ratio of paired medians of a boundary's time a control step; None below `MIN_PAIRS` pairs."""
    chosen = asked[asked["method"].isin([reference, method])].dropna(subset=[f"{boundary}_ms", "n_executed"])
    sums = chosen.groupby(EPISODE)[[f"{boundary}_ms", "n_executed"]].sum()
    per_step = (sums[f"{boundary}_ms"] / sums["n_executed"]).rename(pairs.TIME).reset_index()
    both = pairs.paired(episodes.drop(columns=pairs.TIME).merge(per_step, on=EPISODE), reference, method)
    before, after = (both[f"{pairs.TIME}_{side}"].to_numpy(dtype=float) for side in ("reference", "own"))
    if len(both) < MIN_PAIRS or not (after > 0).all():
        return None
    return stats.ratio_of_paired_medians(before, after, np.random.default_rng(seed))
