"""A method over its budgets: what it attains within a given time, and the time that it needs for what it attains.

A method with options is one of a family's budgets: `random:0.4` and `random:0.8` are two of `random`. Nothing is
interpolated: a budget that was not run attains nothing.
"""

from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import pandas as pd

from vla_bench.compare import pairs
from vla_bench.compare.paired import is_non_inferior, strata
from vla_bench.compare.verdict import MARGIN, MIN_PAIRS
from vla_bench.registry import family
from vla_bench.stats import Interval
from vla_bench.tables import REFERENCE_METHOD, Results, interval_columns, read

Array: TypeAlias = np.ndarray

RESAMPLES = 1_000

SHARES = (90, 75, 50)
"""Shares of the reference's time [%] at which success is read out."""


def frontier_df(*sources: Path | Results, margin: float = MARGIN, seed: int = 0) -> pd.DataFrame:
    """Return one row for every suite, policy and family of methods: what its budgets attain against the reference.

    Over the starts that all methods finished, with bootstrap intervals that resample starts within tasks:

    * `hypervolume`: the area under the family's frontier between no time and the reference's, divided by that time
      (Zitzler and Thiele 1999, IEEE Trans Evol Comput 3:257, with (reference's time, no success) as reference point):
      the mean success over all time budgets below the reference's. 0 for what is never faster.
    * `success_at_90`, `_75`, `_50`: the best success within 90, 75 and 50 % of the reference's policy time a step.
    * `fastest`: the fastest budget whose success is non-inferior within `margin`, and its `speedup`.
    * `reference_success`: that of the reference, on the same starts.

    Times are medians over starts of the policy time a control step.

    Args:
        sources: Directories of runs, folders of exported frames, or frames.
        margin: Success that may be lost, as a fraction.
        seed: Seeds the bootstrap.

    Raises:
        NoResultsError: If a source holds nothing.
        MixedRunsError: If runs differ in what moves pixels, physics, actions or the clock.
    """
    results = read(*sources)
    episodes = pairs.latest(pairs.finished(results))
    rows = []
    for key, group in episodes.groupby(["suite", "policy"]):
        suite, policy = (str(name) for name in cast(tuple, key))
        rows += [{"suite": suite, "policy": policy, **row} for row in _families(group, margin, seed)]
    return pd.DataFrame(rows)


def on_front(ms: pd.Series | Array, success: pd.Series | Array) -> Array:
    """Return which points no other beats in one of time and success without losing in the other."""
    ms, success = np.asarray(ms, dtype=float), np.asarray(success, dtype=float)
    better = (ms[None] <= ms[:, None]) & (success[None] >= success[:, None])
    strictly = (ms[None] < ms[:, None]) | (success[None] > success[:, None])
    return np.logical_not((better & strictly).any(axis=1))


def hypervolume(ms: Array, success: Array, reference_ms: Array) -> Array:
    """Return the mean over time budgets below the reference's of the best success within the budget.

    Args:
        ms: Times of a family's budgets (..., budgets).
        success: Their rates.
        reference_ms: Time of the reference (...).
    """
    order = np.argsort(ms, axis=-1)
    times = np.minimum(np.take_along_axis(ms, order, axis=-1), reference_ms[..., None])
    best = np.maximum.accumulate(np.take_along_axis(success, order, axis=-1), axis=-1)
    widths = np.diff(np.concatenate((times, reference_ms[..., None]), axis=-1), axis=-1)
    return (best * widths).sum(axis=-1) / reference_ms


def within(ms: Array, success: Array, budget_ms: Array) -> Array:
    """Return the best success of a budget that takes at most `budget_ms`; 0 without one."""
    return np.where(ms <= budget_ms[..., None], success, 0.0).max(axis=-1)


def _families(group: pd.DataFrame, margin: float, seed: int) -> list[dict[str, Any]]:
    success = group.pivot_table(index=pairs.START, columns="method", values="success", aggfunc="last")
    ms = group.pivot_table(index=pairs.START, columns="method", values=pairs.TIME, aggfunc="last", dropna=False)
    whole = success.notna().all(axis=1) & ms.reindex(success.index).notna().all(axis=1)
    success, ms = success[whole].astype(float), ms.reindex(success.index)[whole]
    if REFERENCE_METHOD not in success.columns or len(success) < MIN_PAIRS:
        return []
    drawn = _resampled(success.index.get_level_values("task").to_numpy(), np.random.default_rng(seed))
    rates = success.to_numpy()[drawn].mean(axis=1)
    times = np.median(ms.to_numpy()[drawn], axis=1)
    names = pd.Series(success.columns)
    reference = int(np.flatnonzero(names == REFERENCE_METHOD)[0])

    def at_share(share: int, own: list[int]) -> dict[str, float]:
        allowed = share / 100 * times[:, reference]
        return _read_out(f"success_at_{share}", within(times[:, own], rates[:, own], allowed))

    rows = []
    for name, members in names[names != REFERENCE_METHOD].groupby(names.map(family), sort=True):
        own = [*members.index]
        fastest = _fastest(success, ms, list(members), margin)
        rows.append(
            {
                "family": name,
                "budgets": len(own),
                "starts": len(success),
                **_read_out("hypervolume", hypervolume(times[:, own], rates[:, own], times[:, reference])),
                **{key: value for share in SHARES for key, value in at_share(share, own).items()},
                "reference_success": float(rates[0, reference]),
                "fastest": fastest,
                "speedup": times[0, reference] / times[0, names[names == fastest].index[0]] if fastest else np.nan,
            }
        )
    return sorted(rows, key=lambda row: -row["hypervolume"])


def _resampled(task: Array, rng: np.random.Generator) -> Array:
    """Return indices of starts (1 + resamples, starts): as they are, then drawn anew within each task.

    Tasks of few starts are drawn from together, see `paired.strata`.
    """
    drawn = np.tile(np.arange(len(task)), (1 + RESAMPLES, 1))
    stratum = strata(task)
    for one in np.unique(stratum):
        own = np.flatnonzero(stratum == one)
        drawn[1:, own] = own[rng.integers(0, len(own), (RESAMPLES, len(own)))]
    return drawn


def _read_out(name: str, values: Array) -> dict[str, float]:
    """Return an estimate, the first value, with limits that the others give.

    The wider of the percentile and the basic bootstrap interval (Davison and Hinkley 1997, sections 5.2 and 5.3) on
    either side: the best of several budgets is chosen by the starts that it is judged on, which flatters it, and once
    more in a resample. The basic interval turns that round.
    """
    value = float(values[0])
    low, high = (float(limit) for limit in np.quantile(values[1:], (0.025, 0.975)))
    limits = (min(low, 2 * value - high, value), max(high, 2 * value - low, value))
    return interval_columns(name, Interval(value, max(0.0, limits[0]), min(1.0, limits[1])))


def _fastest(success: pd.DataFrame, ms: pd.DataFrame, members: list[str], margin: float) -> str:
    """Return the fastest member that loses no more than the margin and is faster than the reference; empty if none."""
    change = success[members].sub(success[REFERENCE_METHOD], axis=0)
    limit = ms[REFERENCE_METHOD].median()
    found = [
        (ms[name].median(), name)
        for name in members
        if ms[name].median() < limit
        and is_non_inferior(int((change[name] > 0).sum()), int((change[name] < 0).sum()), len(change), margin)
    ]
    return min(found)[1] if found else ""
