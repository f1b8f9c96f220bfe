"""Effects and interactions of things that are on or off, on the scale of logarithms, where speed-ups add up."""

from collections.abc import Mapping, Sequence
from itertools import combinations, product

import numpy as np


def effects(times: Mapping[tuple[bool, ...], float], factors: Sequence[str]) -> dict[tuple[str, ...], float]:
    """Return what each factor, and each combination of factors, multiplies time by.

    Of a single factor it is the geometric mean of time with it over time without it, over all settings of the others;
    of two, the ratio of one's effect with the other to its effect without it: 1 means that they do not interact,
    above 1 that they save less together than apart. Of more, the ratio of such ratios.

    Args:
        times: By setting, one for each of the factors; every setting must be there.
        factors: Their names, in the order of a setting.
    """
    settings = list(product((False, True), repeat=len(factors)))
    logs = np.log([times[setting] for setting in settings])
    signs = np.where(np.array(settings), 1.0, -1.0)
    found = {}
    for size in range(1, len(factors) + 1):
        for chosen in combinations(range(len(factors)), size):
            contrast = float((logs * signs[:, chosen].prod(axis=1)).mean())
            found[tuple(factors[index] for index in chosen)] = float(np.exp(2**size * contrast))
    return found
