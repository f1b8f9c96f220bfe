"""One verdict for a method against its reference: what the pairs show of success and speed, and what they leave."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from math import ceil, log

from scipy.stats import norm

from vla_bench.compare.paired import is_inferior, is_non_inferior
from vla_bench.compare.power import pairs_needed
from vla_bench.stats import Interval

MARGIN = 0.02
"""Success that may be lost, by default. Source: the measurement protocol of this project."""

SPEED_TIE = 1.05
"""Factor within which two policy times count as equal."""

MIN_PAIRS = 8
"""Pairs from which success and speed are judged, and a speed-up is shown: of fewer, intervals cover less than they say.

Of 3 pairs, Tango's one-sided limit errs with up to 13 % instead of 5 %, of 8 and more with up to 9 %; the interval of
the speed-up covers 75 % instead of 95 %, of 8 and more at least 94 %. Source: the tests of this package.
"""

POWER = 0.8
"""Probability with which the episodes that are said to be needed decide, if the truth is what was seen so far."""

MOST_NEEDED = 99_999
"""Episodes above which their number is no longer said."""


class Success(StrEnum):
    """What 8 pairs or more show of success, by Tango's interval (Piaggio et al. 2012, JAMA 308:2594, figure 1)."""

    NON_INFERIOR = "non-inferior"
    """The one-sided 95 % lower limit of the difference lies above -margin."""

    INFERIOR = "inferior"
    """The one-sided 95 % upper limit of the difference lies below -margin."""

    OPEN = "open"
    """Neither."""


class Speed(StrEnum):
    """What 8 timed pairs or more show of speed, by the 95 % interval of the ratio of medians."""

    FASTER = "faster"
    """The whole interval lies above 1."""

    SLOWER = "slower"
    """The whole interval lies below 1."""

    EQUAL = "equal"
    """The interval holds 1 and lies within a factor of 1.05 of it."""

    OPEN = "open"
    """None of these."""


class Verdict(StrEnum):
    """What the pairs say of a method; no two can apply."""

    WINS = "wins"
    """Success is non-inferior and speed faster."""

    TIE = "tie"
    """Success is non-inferior and speed equal."""

    WORSE = "worse"
    """Success is inferior, or speed slower: no gain in the other can make up for it."""

    UNDECIDED = "undecided"
    """None of the others: the pairs are too few."""


@dataclass(frozen=True)
class Judgement:
    """A verdict, and what it rests on."""

    success: Success
    speed: Speed

    needed: float
    """Starts that both methods still have to play for a decision; 0 once decided, infinite on the margin itself."""

    @property
    def verdict(self) -> Verdict:
        """Return what follows from success and speed."""
        if self.success is Success.INFERIOR or self.speed is Speed.SLOWER:
            return Verdict.WORSE
        if self.success is Success.NON_INFERIOR and self.speed is Speed.FASTER:
            return Verdict.WINS
        if self.success is Success.NON_INFERIOR and self.speed is Speed.EQUAL:
            return Verdict.TIE
        return Verdict.UNDECIDED

    def __str__(self) -> str:
        if self.verdict is Verdict.UNDECIDED:
            many = f"over {MOST_NEEDED}" if self.needed > MOST_NEEDED else f"{self.needed:.0f}"
            return f"undecided (needs {many} more episodes)"
        if self.verdict is Verdict.WORSE:
            why = ["success"] * (self.success is Success.INFERIOR) + ["slower"] * (self.speed is Speed.SLOWER)
            return f"worse ({', '.join(why)})"
        return str(self.verdict)


def judge(gained: int, lost: int, n: int, speedup: Interval | None, n_timed: int, margin: float = MARGIN) -> Judgement:
    """Return the verdict on a method from its pairs with the reference.

    Args:
        gained: Pairs that only the method solved.
        lost: Pairs that only the reference solved.
        n: All pairs.
        speedup: Ratio of paired medians of policy time a control step, reference over method; None if none was timed.
        n_timed: Pairs that `speedup` is of.
        margin: Success that may be lost, as a fraction.
    """
    success = Success.OPEN
    if n >= MIN_PAIRS and is_non_inferior(gained, lost, n, margin):
        success = Success.NON_INFERIOR
    elif n >= MIN_PAIRS and is_inferior(gained, lost, n, margin):
        success = Success.INFERIOR
    speed = _speed(speedup, n_timed)
    draft = Judgement(success, speed, 0.0)
    if draft.verdict is not Verdict.UNDECIDED:
        return draft
    for_success = _needed_for_success(gained, lost, n, margin) if success is Success.OPEN else 0.0
    for_speed = _needed_for_speed(speedup, n_timed) if speed is Speed.OPEN else 0.0
    ways = [max(for_success, for_speed)]
    if success is Success.OPEN and gained - lost < -margin * n:  # if it goes on so, it is worse at any speed
        ways.append(for_success)
    if speed is Speed.OPEN and speedup is not None and speedup.value < 1 / SPEED_TIE:  # or at any success
        ways.append(for_speed)
    return Judgement(success, speed, min(ways))


def exit_status(judgements: Iterable[Judgement]) -> int:
    """Return what `vla-bench compare` ends with: 0 if all are decided and one wins, 10 tie, 11 worse, 12 undecided."""
    found = {judgement.verdict for judgement in judgements}
    for verdict, status in ((Verdict.UNDECIDED, 12), (Verdict.WINS, 0), (Verdict.TIE, 10)):
        if verdict in found:
            return status
    return 11


def _speed(speedup: Interval | None, n_timed: int) -> Speed:
    if speedup is None or n_timed < MIN_PAIRS:
        return Speed.OPEN
    if speedup.low > 1:
        return Speed.FASTER
    if speedup.high < 1:
        return Speed.SLOWER
    return Speed.EQUAL if speedup.low >= 1 / SPEED_TIE and speedup.high <= SPEED_TIE else Speed.OPEN


def _needed_for_success(gained: int, lost: int, n: int, margin: float) -> float:
    """Return the pairs still needed to tell on which side of -margin the difference lies, at the shares seen so far."""
    shares = ((gained - lost) / n, (gained + lost) / n) if n else (0.0, 0.0)
    return max(1.0, MIN_PAIRS - n, pairs_needed(*shares, margin, POWER) - n)


def _needed_for_speed(speedup: Interval | None, n_timed: int) -> float:
    """Return the pairs still needed until the interval leaves 1 or fits the tie, as it shrinks with their root."""
    if speedup is None or n_timed < MIN_PAIRS:
        return float(MIN_PAIRS - n_timed)
    middle = log(speedup.value)
    half_width = max(log(speedup.high) - middle, middle - log(speedup.low))
    allowed = max(abs(middle), log(SPEED_TIE) - abs(middle)) * norm.ppf(0.975) / (norm.ppf(0.975) + norm.ppf(POWER))
    return max(1.0, ceil(n_timed * (half_width / allowed) ** 2) - n_timed)


LEGEND = (
    "wins: success non-inferior (one-sided 95 % limit of the difference above -{margin:g} points) and faster\n"
    "(speed-up above 1); tie: non-inferior, and the speed-up holds 1 within a factor of {tie:g}; worse: success\n"
    "inferior (the other limit below -{margin:g} points) or slower (speed-up below 1); undecided: none of these, and\n"
    "how many more starts both need to decide with 80 % probability if the truth is what was seen so far. Verdicts\n"
    "are not adjusted for the number of methods."
)
"""What stands under verdicts; takes `margin` [points] and `tie`."""
