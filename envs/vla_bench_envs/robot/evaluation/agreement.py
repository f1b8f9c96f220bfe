"""How far two raters agree beyond chance."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from vla_bench.stats import Interval, wilson

BISECTIONS = 60
"""Halvings of an interval of length 2 at most: below the spacing of the numbers."""


@dataclass(frozen=True)
class Agreement:
    """Two raters on the same trials."""

    n: int
    n_both: int
    """Trials that both call a success."""

    n_neither: int
    """Trials that both call a failure."""

    agreed: Interval
    """Share of trials on which they agree, with Wilson limits."""

    kappa: Interval | None
    """None where both call all trials the same: then nothing is beyond chance."""


def agreement(one: Sequence[bool], other: Sequence[bool]) -> Agreement:
    """Return how far two raters agree on the same trials.

    Raises:
        ValueError: If there are none, or not as many of both.
    """
    if not len(one) or len(one) != len(other):
        raise ValueError(f"{len(one)} and {len(other)} labels are no pairs")
    both, neither = (sum(a == b == found for a, b in zip(one, other, strict=True)) for found in (True, False))
    n = len(one)
    first, second = sum(one) / n, sum(other) / n
    return Agreement(n, both, neither, wilson(both + neither, n), _kappa(both, neither, n, first, second))


def _kappa(both: int, neither: int, n: int, first: float, second: float) -> Interval | None:
    """Return Cohen's kappa (Cohen 1960, Educational and Psychological Measurement 20:37) with 95 % limits.

    Limits by the goodness-of-fit method (Donner and Eliasziw 1992, Statistics in Medicine 11:1511), which takes both
    raters to call equally many trials a success; widened to the estimate where they do not. Unlike the limits from a
    standard error (Fleiss, Cohen and Everitt 1969) they are not empty where the raters agree on every trial.
    """
    chance = first * second + (1 - first) * (1 - second)
    if chance == 1:
        return None
    value = ((both + neither) / n - chance) / (1 - chance)
    counts = np.array([both, n - both - neither, neither], dtype=float)
    rate = (first + second) / 2
    low, high = (_limit(counts, rate, end) for end in (-1.0, 1.0))
    return Interval(value, min(low, value), max(high, value))


def _limit(counts: np.ndarray, rate: float, end: float) -> float:
    """Return the furthest kappa towards `end` whose expected counts fit the counts seen."""
    spread, n = 2 * rate * (1 - rate), counts.sum()
    inside = 1 - counts[1] / (n * spread)  # where the fit is perfect
    outside = max(end, -min(rate / (1 - rate), (1 - rate) / rate)) if end < 0 else end
    for _ in range(BISECTIONS):
        middle = (inside + outside) / 2
        fits = _misfit(counts, rate, middle) <= chi2.ppf(0.95, 1)
        inside, outside = (middle, outside) if fits else (inside, middle)
    return float(inside)


def _misfit(counts: np.ndarray, rate: float, kappa: float) -> float:
    """Return the chi-squared distance of counts (both, split, neither) from those expected at a kappa."""
    shared = rate * (1 - rate) * kappa
    expected = counts.sum() * np.array(
        [rate**2 + shared, 2 * rate * (1 - rate) * (1 - kappa), (1 - rate) ** 2 + shared]
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(counts == expected, 0.0, (counts - expected) ** 2 / expected)
    return float(terms.sum())
