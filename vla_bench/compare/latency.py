"""How long a method's queries take: percentiles that their number supports, deadlines, first queries and warm-up."""

import numpy as np
import pandas as pd

from vla_bench.stats import PERCENTILES, percentile

DEADLINES_HZ = (5, 10, 20, 30)
"""Control rates at which an answer is late if it takes longer than one period."""


def describe(queries: pd.DataFrame) -> dict[str, float]:
    """Return percentiles and deadline misses of a method's policy time a query [ms]; not-a-number without support.

    `queries` are all of the method's episodes that did not end in an error. The first query of an episode, in which
    caches are filled, and the first ones of a process, its warm-up, are reported apart and are in nothing else. A query
    misses the deadline of a rate if it takes longer than one period: a robot that waits for it stands still.
    """
    warmup = queries["is_warmup"].to_numpy(dtype=bool)
    first = queries["is_first_step"].to_numpy(dtype=bool) & ~warmup
    policy_ms = queries["policy_ms"].to_numpy(dtype=float)
    steady = policy_ms[~warmup & ~first]
    return {
        "timed_queries": len(steady),
        **{f"policy_ms_p{p}": percentile(steady, p) for p in PERCENTILES},
        **{f"misses_{hz}hz": float((steady > 1e3 / hz).mean()) if len(steady) else np.nan for hz in DEADLINES_HZ},
        "first_queries": int(first.sum()),
        "first_ms_p50": percentile(policy_ms[first], 50),
        "warmup_queries": int(warmup.sum()),
        "warmup_ms_p50": percentile(policy_ms[warmup], 50),
    }


def nothing() -> dict[str, float]:
    """Return what `describe` returns for a method of which no query was timed."""
    return describe(pd.DataFrame({"is_warmup": [], "is_first_step": [], "policy_ms": []}))
