"""The comparison as a frame: one row a method, success and latency against the reference on the same starts."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from vla_bench import stats
from vla_bench.compare import latency, paired, pairs
from vla_bench.compare.pairs import EPISODE, MissingReferenceError, NothingToCompareError
from vla_bench.compare.power import likely_discordant, minimum_detectable_effect
from vla_bench.compare.verdict import MARGIN, MIN_PAIRS, POWER, Judgement, Speed, Success, judge
from vla_bench.errors import UnknownNameError
from vla_bench.tables import REFERENCE_METHOD, Results, interval_columns, read

WHOLE = ("episodes", "errors", "pairs", "interleaved", "gained", "lost", "blocks", "timed_pairs")
"""Columns of counts, of which a reference has not all."""


def compare_df(
    *sources: Path | Results, reference: str = REFERENCE_METHOD, margin: float = MARGIN, seed: int = 0
) -> pd.DataFrame:
    """Return one row for every suite, policy and method: what changed against the reference on the same starts.

    Columns: `division`, what the method gives up or needs; `verdict`, with `success_shows` and `speed_shows`, what it
    rests on, and `needed`, the starts that are missing; `success` of the method and `reference_success` over the same
    pairs; `difference` (Tango 95 %) and `bootstrap` (the same by resampling within tasks); `gained` and `lost` pairs;
    `drop_found`, the least loss of success that so many pairs find with 80 % probability (mid-p McNemar at 5 %);
    `p_exact`, `p_mid`, and `p_holm` over the methods of a policy; `cochran_q`, `cochran_p` and `may_be_best` over the
    `blocks` that all methods finished; `speedup` at the policy time a control step; what `latency.describe` returns.
    Fractions of 1, times in ms. Episodes that ended in an error are in no pair; `errors` counts them. The reference's
    own row holds no comparison.

    Args:
        sources: Directories of runs, folders of exported frames, or frames.
        reference: Method that the others are compared with.
        margin: Success that may be lost, as a fraction.
        seed: Seeds the bootstrap.

    Raises:
        NoResultsError: If a source holds nothing.
        MixedRunsError: If runs differ in what moves pixels, physics, actions or the clock.
        UnknownNameError: If no run holds the reference.
        MissingReferenceError: If it is missing for one policy.
        NothingToCompareError: If there is no other method.
    """
    results = read(*sources)
    known = set(results.episodes["method"])
    if reference not in known:
        raise UnknownNameError("method in these results", reference, known)
    if known == {reference}:
        raise NothingToCompareError(reference)
    rows = _rows(results, reference, margin, seed)
    return pd.DataFrame(rows).astype(dict.fromkeys(WHOLE, "Int64"))


def judgement(row: pd.Series) -> Judgement | None:
    """Return the verdict that stands in a row of `compare_df`; None for the reference."""
    if not isinstance(row["success_shows"], str):
        return None
    return Judgement(Success(row["success_shows"]), Speed(row["speed_shows"]), row["needed"])


def _rows(results: Results, reference: str, margin: float, seed: int) -> list[dict[str, Any]]:
    episodes = pairs.finished(results)
    times = _times(results, episodes)
    rows = []
    for key, own in results.episodes.groupby(["suite", "policy"]):
        suite, policy = (str(name) for name in cast(tuple, key))
        methods = sorted(own["method"].unique(), key=lambda name: (name != reference, name))
        if reference not in methods:
            raise MissingReferenceError(reference, suite, policy, methods)
        group = episodes[(episodes["suite"] == suite) & (episodes["policy"] == policy)]
        compared = [_compare(group, reference, method, margin, seed) for method in methods[1:]]
        several = _several(group, methods, [row["p_mid"] for row in compared])
        for method, row in zip(methods, [_alone(group, reference), *compared], strict=True):
            named = {"suite": suite, "policy": policy, "method": method, "reference": reference, "margin": margin}
            named["division"] = str(own.loc[own["method"] == method, "division"].iloc[-1])
            n_errors = pairs.n_errors(own[own["method"] == method])
            own_times = times.get((suite, policy, method), latency.nothing())
            rows.append(named | {"errors": n_errors} | row | several[method] | own_times)
    return rows


def _times(results: Results, episodes: pd.DataFrame) -> dict[Any, dict[str, float]]:
    """Return the latency of every (suite, policy, method)."""
    if not len(results.queries):  # a frame without rows has no columns either
        return {}
    chosen = pairs.latest(episodes)[[*EPISODE, "suite", "policy"]]
    asked = results.queries[[*EPISODE, "is_warmup", "is_first_step", "policy_ms"]].merge(chosen, on=EPISODE)
    return {key: latency.describe(group) for key, group in asked.groupby(["suite", "policy", "method"])}


def _compare(group: pd.DataFrame, reference: str, method: str, margin: float, seed: int) -> dict[str, Any]:
    both = pairs.paired(group, reference, method)
    one, other = both["success_own"].to_numpy(dtype=bool), both["success_reference"].to_numpy(dtype=bool)
    n, gained, lost = len(both), int((one & ~other).sum()), int((other & ~one).sum())
    timed = both.dropna(subset=[f"{pairs.TIME}_reference", f"{pairs.TIME}_own"])
    speedup = _speedup(timed, seed)
    verdict = judge(gained, lost, n, speedup, len(timed), margin)
    return {
        "episodes": len(pairs.latest(group[group["method"] == method])),
        "pairs": n,
        "interleaved": int(both["interleaved"].sum()),
        "verdict": str(verdict.verdict),
        "success_shows": str(verdict.success),
        "speed_shows": str(verdict.speed),
        "needed": verdict.needed,
        **interval_columns("success", stats.wilson(int(one.sum()), n) if n else None),
        "reference_success": other.mean() if n else np.nan,
        "gained": gained,
        "lost": lost,
        **interval_columns("difference", paired.tango(gained, lost, n) if n else None),
        **interval_columns("bootstrap", _by_task(both, seed)),
        "drop_found": _drop_found(gained + lost, n, other.mean()) if n else np.nan,
        "p_exact": paired.exact_mcnemar(gained, lost),
        "p_mid": paired.mid_p_mcnemar(gained, lost),
        "timed_pairs": len(timed),
        **interval_columns("speedup", speedup if len(timed) >= MIN_PAIRS else None),
        "policy_ms_per_step": timed[f"{pairs.TIME}_own"].median(),
    }


def _alone(group: pd.DataFrame, reference: str) -> dict[str, Any]:
    """Return the reference's own row: its success and time over all that it finished."""
    own = pairs.latest(group[group["method"] == reference])
    return {
        "episodes": len(own),
        "verdict": "reference",
        **interval_columns("success", stats.wilson(int(own["success"].sum()), len(own)) if len(own) else None),
        "policy_ms_per_step": own[pairs.TIME].median(),
    }


def _drop_found(differing: int, n: int, success: float) -> float:
    """Return the minimum detectable effect of `n` pairs that disagree as often as these; the reference can lose all."""
    return minimum_detectable_effect(n, likely_discordant(differing, n), POWER, most=success) if success else np.nan


def _by_task(both: pd.DataFrame, seed: int) -> stats.Interval | None:
    """Return the difference with a bootstrap within tasks."""
    if not len(both):
        return None
    change = both["success_own"].astype(int) - both["success_reference"].astype(int)
    gained, lost, n = (
        (change.isin(values)).groupby(both["task"]).sum().to_numpy() for values in ([1], [-1], [-1, 0, 1])
    )
    return paired.stratified_difference(gained, lost, n, np.random.default_rng(seed))


def _speedup(timed: pd.DataFrame, seed: int) -> stats.Interval | None:
    if not len(timed):
        return None
    before, after = (timed[f"{pairs.TIME}_{side}"].to_numpy() for side in ("reference", "own"))
    return stats.ratio_of_paired_medians(before, after, np.random.default_rng(seed))


def _several(group: pd.DataFrame, methods: list[str], p_mid: list[float]) -> dict[str, dict[str, Any]]:
    """Return by method what needs all of them: Cochran's Q, adjusted p, and whether it may be the best."""
    adjusted = dict(zip(methods[1:], paired.holm(p_mid), strict=True))
    table = pairs.blocks(group)
    whole = len(methods) > 1 and len(table) and set(methods) <= set(table.columns)
    successes = table[methods].to_numpy() if whole else np.ones((0, len(methods)), dtype=bool)
    q, p = paired.cochran_q(successes) if whole else (np.nan, np.nan)
    may_be_best = paired.not_told_from_best(successes)
    return {
        method: {
            "p_holm": adjusted.get(method, np.nan),
            "blocks": len(successes),
            "cochran_q": q,
            "cochran_p": p,
            "may_be_best": bool(best),
        }
        for method, best in zip(methods, may_be_best, strict=True)
    }
