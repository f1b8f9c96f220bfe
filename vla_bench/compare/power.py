"""What a number of pairs can resolve, before they are played, and how many pairs a question needs.

Shares are of all pairs: `discordant` is the share on which the methods disagree, `difference` the method's success rate
less the reference's.
"""

from math import ceil, inf

import numpy as np
from scipy.stats import binom, norm

from vla_bench.compare.paired import restricted_variance, score

TAIL = 1e-9
"""Probability, at either end of a count, that a sum over all outcomes may leave out."""

BISECTIONS = 30
"""Halvings of [0, 1] in a search for a difference or a share: to 1e-9."""


def mid_p_power(n: int, difference: float, discordant: float, alpha: float = 0.05) -> float:
    """Return the probability that the mid-p McNemar test of `n` pairs finds a difference.

    Exact, by summing over all numbers of discordant pairs (Duffy 1984, Biometrics 40:1005).

    Raises:
        ValueError: If the difference is greater than the discordant share.
    """
    gained, _ = _shares(difference, discordant)
    if not discordant:
        return 0.0
    m = _counts(n, discordant)
    fewest = _critical(m, alpha)
    found = binom.cdf(fewest, m, gained / discordant) + binom.sf(m - fewest - 1, m, gained / discordant)
    return float((binom.pmf(m, n, discordant) * np.where(fewest < 0, 0.0, found)).sum())


def minimum_detectable_effect(
    n: int, discordant: float, power: float = 0.8, alpha: float = 0.05, most: float = 1.0
) -> float:
    """Return the least difference that the mid-p McNemar test of `n` pairs finds with probability `power`.

    By bisection of `mid_p_power`. A difference takes as many discordant pairs at least: where it is greater than
    `discordant`, all discordant pairs fall to one side. Not-a-number if even `most` is not found.
    """
    if mid_p_power(n, most, max(most, discordant), alpha) < power:
        return np.nan
    missed, found = 0.0, most
    for _ in range(BISECTIONS):
        middle = (missed + found) / 2
        enough = mid_p_power(n, middle, max(middle, discordant), alpha) >= power
        missed, found = (missed, middle) if enough else (middle, found)
    return found


def likely_discordant(differing: int, n: int) -> float:
    """Return the share of discordant pairs to expect after `differing` of `n`: the centre of Wilson's interval.

    A few pairs that happen to agree promise little (Wilson 1927, JASA 22:209).
    """
    z_squared = norm.ppf(0.975) ** 2
    return float((differing + z_squared / 2) / (n + z_squared))


def non_inferiority_power(n: int, difference: float, discordant: float, margin: float) -> float:
    """Return the probability that `n` pairs show non-inferiority at `margin` (one-sided 95 %, Tango 1998; Nam 1997).

    Exact, by summing over all counts of gained and lost pairs.

    Raises:
        ValueError: If the difference is greater than the discordant share.
    """
    p_gained, p_lost = _shares(difference, discordant)
    gained, lost = _counts(n, p_gained)[:, None], _counts(n, p_lost)[None, :]
    given = np.maximum(n - gained, 0)
    chance = binom.pmf(gained, n, p_gained) * binom.pmf(lost, given, min(1.0, p_lost / max(1 - p_gained, 1e-300)))
    shown = score(gained, np.minimum(lost, given), n, -margin) > norm.ppf(0.95)
    return float((chance * shown).sum())


def pairs_needed(difference: float, discordant: float, margin: float, power: float = 0.8) -> float:
    """Return how many pairs tell on which side of -`margin` a difference lies (Nam 1997, Biometrics 53:1422).

    One-sided 95 %, with probability `power`; the large-sample formula of the score test, a whole number. Above
    -`margin` they show non-inferiority, below it inferiority. Infinite for a difference of exactly -`margin`.

    Raises:
        ValueError: If the difference is greater than the discordant share.
    """
    gained, lost = _shares(difference, discordant)
    distance = abs(difference + margin)
    if distance < 1e-12:
        return inf
    under_margin = np.sqrt(restricted_variance(gained, lost, -margin))
    true = np.sqrt(discordant - difference**2)
    return ceil(float((norm.ppf(0.95) * under_margin + norm.ppf(power) * true) / distance) ** 2 - 1e-9)


def _critical(m: np.ndarray, alpha: float) -> np.ndarray:
    """Return up to which smaller count of `m` discordant pairs mid-p is at most `alpha`; -1 if at none."""
    k = binom.ppf(alpha / 2, m, 0.5)
    return np.where(binom.cdf(k - 1, m, 0.5) + binom.pmf(k, m, 0.5) / 2 <= alpha / 2, k, k - 1)


def _counts(n: int, share: float) -> np.ndarray:
    """Return the numbers of `n` pairs that a share may come to, but for the tails."""
    return np.arange(int(binom.ppf(TAIL, n, share)), int(binom.isf(TAIL, n, share)) + 1)


def _shares(difference: float, discordant: float) -> tuple[float, float]:
    """Return the shares of gained and lost pairs."""
    if not abs(difference) <= discordant <= 1:
        raise ValueError(f"a difference of {difference} with a share of {discordant} of discordant pairs")
    return (discordant + difference) / 2, (discordant - difference) / 2
