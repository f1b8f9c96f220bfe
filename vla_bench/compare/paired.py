"""Statistics of paired binary outcomes: two methods on the same starts, each start a success or not for both.

Counts are named from the method's side: `gained` pairs only the method solved, `lost` pairs only the reference solved;
the other pairs agree. A difference is the method's rate less the reference's, as a fraction of 1.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binom, chi2, norm

from vla_bench.stats import Interval

Array: TypeAlias = np.ndarray

BISECTIONS = 60
"""Halvings of [-1, 1] in a search for a limit: to 2e-18, below the spacing of the numbers."""


def exact_mcnemar(gained: int, lost: int) -> float:
    """Return the two-sided p of the exact McNemar test of equal success rates (McNemar 1947, Psychometrika 12:153).

    Conditional on the discordant pairs, of which each falls to either side with probability 1/2.

    Raises:
        ValueError: If a count is negative.
    """
    _check(gained, lost)
    return float(min(1.0, 2 * binom.cdf(min(gained, lost), gained + lost, 0.5)))


def mid_p_mcnemar(gained: int, lost: int) -> float:
    """Return the two-sided mid-p of the McNemar test (Fagerland, Lydersen, Laake 2013, BMC Med Res Methodol 13:91).

    The exact p less the probability of what was seen; from equal counts, 1 less half of it; 1 without discordant pairs.

    Raises:
        ValueError: If a count is negative.
    """
    _check(gained, lost)
    seen = binom.pmf(min(gained, lost), gained + lost, 0.5)
    if gained == lost:
        return float(1 - seen / 2) if gained else 1.0
    return float(2 * binom.cdf(min(gained, lost), gained + lost, 0.5) - seen)


def score(gained: ArrayLike, lost: ArrayLike, n: ArrayLike, difference: ArrayLike) -> Array:
    """Return Tango's statistic for the hypothesis that rates differ by `difference` (Tango 1998, Stat Med 17:891).

    About standard normal under it, above 0 where more was gained. The variance holds the maximum-likelihood share of
    lost pairs under the hypothesis, so that it does not vanish where no pair is discordant.
    """
    gained, lost, n, difference = (np.asarray(one, dtype=float) for one in (gained, lost, n, difference))
    deviation = gained - lost - n * difference
    spread = np.sqrt(n * restricted_variance(gained / n, lost / n, difference))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(spread > 0, deviation / spread, np.where(deviation == 0, 0.0, np.sign(deviation) * np.inf))


def restricted_variance(gained: ArrayLike, lost: ArrayLike, difference: ArrayLike) -> Array:
    """Return the variance of one pair's difference if the true one is `difference` (Tango 1998; Nam 1997).

    From shares of gained and lost pairs: 2 q + d (1 - d), with q the restricted maximum-likelihood share of lost pairs,
    the larger root of 2 q² + (d (2 - gained + lost) - gained - lost) q - lost d (1 - d) = 0.
    """
    gained, lost, difference = (np.asarray(one, dtype=float) for one in (gained, lost, difference))
    linear = difference * (2 - gained + lost) - gained - lost
    constant = -lost * difference * (1 - difference)
    share = (np.sqrt(np.maximum(linear**2 - 8 * constant, 0)) - linear) / 4
    return np.maximum(2 * share + difference * (1 - difference), 0)


def score_limits(gained: ArrayLike, lost: ArrayLike, n: ArrayLike, confidence: float = 0.95) -> tuple[Array, Array]:
    """Return both limits of Tango's score interval (Tango 1998, Stat Med 17:891), for arrays of counts too.

    Found by bisection of `score`, which falls as the supposed difference grows.
    """
    gained, lost, n = np.broadcast_arrays(*(np.asarray(one, dtype=float) for one in (gained, lost, n)))
    z = norm.ppf(0.5 + confidence / 2)
    estimate = (gained - lost) / n
    limits = []
    for end, aim in ((-1.0, z), (1.0, -z)):
        inside, outside = estimate, np.full_like(estimate, end)
        for _ in range(BISECTIONS):
            middle = (inside + outside) / 2
            kept = np.abs(score(gained, lost, n, middle)) < abs(aim)
            inside, outside = np.where(kept, middle, inside), np.where(kept, outside, middle)
        limits.append(inside)
    return limits[0], limits[1]


def tango(gained: int, lost: int, n: int, confidence: float = 0.95) -> Interval:
    """Return the difference of two paired success rates with Tango's score interval (Tango 1998, Stat Med 17:891).

    Unlike the Wald interval and the bootstrap it is not empty where no pair is discordant. With a confidence of 0.9
    each of its limits is a one-sided 95 % limit.

    Raises:
        ValueError: If `n` is not positive, a count negative or their sum above `n`.
    """
    _check(gained, lost, n)
    value = (gained - lost) / n
    low, high = (float(limit) for limit in score_limits(gained, lost, n, confidence))
    return Interval(value, min(low, value), max(high, value))


def is_non_inferior(gained: int, lost: int, n: int, margin: float) -> bool:
    """Return whether the one-sided 95 % limit says that at most `margin` of success is lost (Tango 1998; Nam 1997).

    The limit is the lower one of Tango's interval; it must lie above -`margin`. Where exactly 2 points are lost, 133 to
    2000 pairs say so with a risk of 1.7 to 6.9 %, by enumeration.
    """
    return tango(gained, lost, n, confidence=0.9).low > -margin


def is_inferior(gained: int, lost: int, n: int, margin: float) -> bool:
    """Return whether the one-sided 95 % limit says that more than `margin` of success is lost (Tango 1998).

    The limit is the upper one of Tango's interval; it must lie below -`margin`. Between this and `is_non_inferior` the
    data are inconclusive (Piaggio et al. 2012, JAMA 308:2594, figure 1).
    """
    return tango(gained, lost, n, confidence=0.9).high < -margin


LEAST_STRATUM = 8
"""Pairs from which a task is resampled on its own.

Of a task with m pairs a resample has (m - 1) / m of the variance, none at all of one pair (Davison and Hinkley 1997,
section 3.2).
"""


def strata(task: Array) -> Array:
    """Return for each pair the stratum that it is resampled in: its task, or -1 if the task has fewer than 8 pairs.

    Such tasks are resampled together, as if all pairs were of one kind: at worst the interval is too wide.
    """
    labels, place, sizes = np.unique(task, return_inverse=True, return_counts=True)
    return np.where(sizes[place] < LEAST_STRATUM, -1, np.arange(len(labels))[place])


def stratified_difference(
    gained: Array, lost: Array, n: Array, rng: np.random.Generator, resamples: int = 2000
) -> Interval:
    """Return the difference of paired rates with a percentile bootstrap interval that resamples pairs within each task.

    Counts are arrays with an entry for each task (Davison and Hinkley 1997, Bootstrap Methods and their Application,
    sections 3.2 and 5.3.1); tasks of fewer than 8 pairs are one stratum (`strata`). Pairs have three values, so that a
    resample is a multinomial draw. Empty where all pairs agree: read Tango's interval there.

    Raises:
        ValueError: If there is no pair, or the counts of a task are impossible.
    """
    for counts in zip(gained, lost, n, strict=True):
        _check(*counts)
    if not len(n):
        raise ValueError("the difference of no pairs")
    sizes = np.asarray(n)
    small = sizes < LEAST_STRATUM
    counts = np.stack([gained, lost, sizes - gained - lost], axis=-1)
    counts = np.concatenate([counts[~small], counts[small].sum(axis=0, keepdims=True)[: int(small.any())]])
    sizes = counts.sum(axis=1)
    drawn = rng.multinomial(sizes, counts / sizes[:, None], size=(resamples, len(sizes)))
    differences = (drawn[..., 0] - drawn[..., 1]).sum(axis=1) / sizes.sum()
    value = float((np.sum(gained) - np.sum(lost)) / np.sum(n))
    low, high = np.percentile(differences, [2.5, 97.5])
    return Interval(value, float(min(low, value)), float(max(high, value)))


def cochran_q(successes: Array) -> tuple[float, float]:
    """Return Q and its p for the hypothesis that all methods succeed equally often (Cochran 1950, Biometrika 37:256).

    `successes` is (starts, methods), True or 1 for a success; starts that all methods solve or all fail do not count.
    The p is of the chi-squared distribution with one degree less than methods: good from about 24 entries in starts
    that count (Tate and Brown 1970, JASA 65:155), rough below. For two methods Q is McNemar's statistic.

    Raises:
        ValueError: If there are fewer than two methods.
    """
    table = np.asarray(successes, dtype=float)
    if table.ndim != 2 or table.shape[1] < 2:
        raise ValueError(f"successes of shape {table.shape}; expected (starts, 2 methods or more)")
    k, by_method, by_start = table.shape[1], table.sum(axis=0), table.sum(axis=1)
    spread = (by_start * (k - by_start)).sum()
    if not spread:
        return 0.0, 1.0
    q = k * (k - 1) * ((by_method - by_method.mean()) ** 2).sum() / spread
    return float(q), float(chi2.sf(q, k - 1))


def holm(p_values: ArrayLike) -> Array:
    """Return p values adjusted for how many there are (Holm 1979, Scandinavian Journal of Statistics 6:65).

    Below 0.05, all those hypotheses are rejected with at most 5 % risk that any of them is true.
    """
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def not_told_from_best(successes: Array, alpha: float = 0.05) -> Array:
    """Return for each method whether it may be the best: no other succeeds significantly more often.

    `successes` is (starts, methods). All pairs of methods are compared (mid-p McNemar, adjusted by Holm 1979), not only
    those with the one that looks best, so that the truly best is left out with a risk of at most about `alpha`.
    """
    table = np.asarray(successes, dtype=bool)
    pairs = [(one, other) for one in range(table.shape[1]) for other in range(one)]
    counts = [((table[:, a] & ~table[:, b]).sum(), (table[:, b] & ~table[:, a]).sum()) for a, b in pairs]
    adjusted = holm([mid_p_mcnemar(int(gained), int(lost)) for gained, lost in counts])
    kept = np.ones(table.shape[1], dtype=bool)
    for (a, b), (gained, lost), p in zip(pairs, counts, adjusted, strict=True):
        if p <= alpha:
            kept[b if gained > lost else a] = False
    return kept


def _check(gained: int, lost: int, n: int | None = None) -> None:
    """Refuse counts that no pairs can have."""
    if min(gained, lost) < 0 or (n is not None and (n <= 0 or gained + lost > n)):
        raise ValueError(f"{gained} gained and {lost} lost" + ("" if n is None else f" of {n} pairs"))
