"""Ranks that the pairs can carry: methods that cannot be told apart share one.

A list sorted by an estimate claims more than its data: neighbours whose intervals overlap change places when the runs
are repeated (Goldstein and Spiegelhalter 1996, Journal of the Royal Statistical Society A 159:385). The rule here:

1. Only what is decided has a rank. First the methods that win, then `full` and the methods that tie with it, which
   share one rank, then the methods that are worse, which share the last one: there is no order between losing success
   and losing time. An undecided method may belong anywhere and has no rank.
2. Winners are ordered by speed-up. Two of them are told apart if the 95 % interval of the ratio of their median policy
   times a control step, over the starts that both finished, lies above 1 (`stats.ratio_of_paired_medians`); the same
   clock, starts and resampling as for the speed-up itself. The list is cut between two neighbours only if every
   method above the cut is told apart from every one below. What lies between two cuts is a group, and a group shares
   a rank. Success does not order winners: each lies within the margin, and there the margin has said what counts.

"Cannot be told apart" is not transitive: A and C may differ while B differs from neither. Letters or bars over a list
show such overlaps (Demsar 2006, Journal of Machine Learning Research 7:1) but give no rank. Counting the methods that
are significantly better (Chiang et al. 2024, Chatbot Arena, ICML) does, but B then outranks C although nothing tells
them apart, and with intervals of different width a method may outrank one that beats it. Groups that do not overlap
(as of Scott and Knott 1974, Biometrics 30:507) have neither fault: methods that cannot be told apart always share a
rank, directly or through others, and one that is beaten never has the better rank. The price is coarseness: a method
of few pairs may hold a group together whose ends do differ.

Ranks are those of competitions (1, 1, 3), within one block: one source, suite and policy, thus one device and protocol.
Like verdicts they are not adjusted for the number of methods.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd

from vla_bench import stats
from vla_bench.compare import pairs
from vla_bench.compare.verdict import MIN_PAIRS, Verdict

IsFaster = Callable[[str, str], bool]
"""Whether the first method is shown to be faster than the second."""


def ranks(
    verdicts: Mapping[str, Verdict], speedups: Mapping[str, float], reference: str, is_faster: IsFaster
) -> dict[str, int | None]:
    """Return the rank of every method and of the reference; None where nothing is decided.

    Args:
        verdicts: Of every method but the reference.
        speedups: At least of those that win.
        reference: Ranks with the methods that tie with it; None, too, if no method is decided.
        is_faster: Asked of winners only, the one with the greater speed-up first.
    """
    of = {verdict: sorted(name for name, one in verdicts.items() if one is verdict) for verdict in Verdict}
    winners = sorted(of[Verdict.WINS], key=lambda name: (-speedups[name], name))
    tiers = [*groups(winners, is_faster), [reference, *of[Verdict.TIE]], of[Verdict.WORSE]]
    found: dict[str, int | None] = dict.fromkeys([*verdicts, reference])
    if len(of[Verdict.UNDECIDED]) == len(verdicts):
        return found
    rank = 1
    for tier in tiers:
        found |= dict.fromkeys(tier, rank)
        rank += len(tier)
    return found


def groups(ordered: Sequence[str], is_faster: IsFaster) -> list[list[str]]:
    """Return the methods in groups, cut wherever all before are shown to be faster than all after."""
    faster = {pair: is_faster(*pair) for at, one in enumerate(ordered) for pair in product([one], ordered[at + 1 :])}
    found: list[list[str]] = []
    for at, method in enumerate(ordered):
        if not at or all(faster[pair] for pair in product(ordered[:at], ordered[at:])):
            found.append([])
        found[-1].append(method)
    return found


def faster_on_same_starts(episodes: pd.DataFrame, seed: int = 0) -> IsFaster:
    """Return what tells two methods apart by the starts that both finished; `episodes` are `pairs.finished` ones.

    Of fewer than 8 pairs nothing is told, as for verdicts.
    """

    def is_faster(one: str, other: str) -> bool:
        both = pairs.paired(episodes, other, one).dropna(subset=[f"{pairs.TIME}_reference", f"{pairs.TIME}_own"])
        if len(both) < MIN_PAIRS:
            return False
        slow, fast = (both[f"{pairs.TIME}_{side}"].to_numpy() for side in ("reference", "own"))
        return stats.ratio_of_paired_medians(slow, fast, np.random.default_rng(seed)).low > 1

    return is_faster
