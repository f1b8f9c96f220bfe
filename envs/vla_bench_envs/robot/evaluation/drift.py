"""Whether success drifts while an evaluation is played: objects wear, light changes, an operator learns."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm

QUARTERS = 4


@dataclass(frozen=True)
class Turn:
    """One labelled trial, and when it was played."""

    number: int
    """Place in the order of playing, from 1."""

    stratum: tuple[int, str]
    """Task and method: trials are compared with others of the same, since tasks are played one after the other."""

    success: bool


@dataclass(frozen=True)
class Drift:
    """How success changed with the number of the trial."""

    quarters: tuple[tuple[int, int], ...]
    """Successes and trials in each quarter of the order, the first quarter first."""

    per_100_trials: float
    """Success that 100 trials add, as a fraction; not-a-number if nothing varies."""

    p: float
    """Two-sided, of no trend; not-a-number if nothing varies."""


def drift(turns: Sequence[Turn]) -> Drift:
    """Return the trend of success over the order of trials, within task and method.

    Mantel's extension test (Mantel 1963, JASA 58:690): within a stratum, the covariance of number and success has
    mean 0 and a known variance if order does not matter; both are summed over strata.

    Raises:
        ValueError: If there are no trials.
    """
    if not turns:
        raise ValueError("the drift of no trials")
    ordered = sorted(turns, key=lambda turn: turn.number)
    parts = np.array_split(np.array([turn.success for turn in ordered], dtype=int), QUARTERS)
    together, spread, variance = 0.0, 0.0, 0.0
    for stratum in sorted({turn.stratum for turn in ordered}):
        own = [turn for turn in ordered if turn.stratum == stratum]
        number = np.array([turn.number for turn in own], dtype=float)
        success = np.array([turn.success for turn in own], dtype=float)
        number, success = number - number.mean(), success - success.mean()
        if len(own) > 1:
            together += float(number @ success)
            spread += float(number @ number)
            variance += float((number @ number) * (success @ success) / (len(own) - 1))
    quarters = tuple((int(part.sum()), len(part)) for part in parts)
    if variance == 0:
        return Drift(quarters, np.nan, np.nan)
    return Drift(quarters, 100 * together / spread, float(2 * norm.sf(abs(together) / np.sqrt(variance))))
