"""How many milliseconds a suite allows: success against the time of an answer, start by start."""

import numpy as np
import pandas as pd

from vla_bench import stats
from vla_bench.compare import paired, pairs
from vla_bench.errors import VlaBenchError
from vla_bench.tables import Results
from vla_bench.tables.frames import AT
from vla_bench.tables.summary import interval_columns

MARGIN = 0.05
"""Success that may be lost: the 5 points within which this project calls an operating point non-inferior. Choice; the
2 points of a verdict are for claims that a method wins."""


class NoDelayError(VlaBenchError):
    """Refuse results without latency in the loop, or without its absence."""

    def __init__(self, lacking: str, command: str) -> None:
        super().__init__(f"the results hold no run {lacking}: add one with '{command}'")


def delay_df(results: Results, margin: float = MARGIN) -> pd.DataFrame:
    """Return success at every delay, paired with the same starts without one.

    One row for each suite, policy, method, way of waiting and delay: `delay_ms` (median time of an answer on the
    virtual clock), `pairs`, `success` with Wilson limits, `difference` to no delay with Tango limits, `non_inferior` at
    the margin, and `may_spend_ms`: the greatest delay up to which every tested one is non-inferior, not-a-number if
    none is. The limit lies between that delay and the next tested one; nothing is interpolated.

    Raises:
        NoDelayError: If there is no run with a delay, or none without.
    """
    episodes = pairs.finished(results)
    names = episodes["policy"].str.partition(AT)
    episodes = episodes.assign(policy=names[0], clock=names[2])
    charged = _charged(results)
    rows = []
    for key, group in episodes.groupby(["suite", "policy", "method"], sort=False):
        at_once = pairs.latest(group[group["clock"] == ""])
        for clock, delayed in group[group["clock"] != ""].groupby("clock", sort=False):
            rows += _row(key, str(clock), at_once, pairs.latest(delayed), charged, margin)
    if not rows:
        with_one = (episodes["clock"] != "").any()
        wanted = "without a delay on the same starts" if with_one else "with latency in the loop"
        raise NoDelayError(wanted, "vla-bench run ..." if with_one else "vla-bench run --realtime 100 ...")
    frame = pd.DataFrame(rows).sort_values(["suite", "policy", "method", "waiting", "delay_ms"], ignore_index=True)
    return frame.merge(_may_spend(frame))


def to_text(frame: pd.DataFrame) -> str:
    """Return what `delay_df` returned as a person reads it."""
    shown = pd.DataFrame(
        {
            **{name: frame[name] for name in ("suite", "policy", "method", "waiting")},
            "delay [ms]": frame["delay_ms"].map("{:.0f}".format),
            "pairs": frame["pairs"],
            "success": _limits(frame, "success"),
            "against no delay": _limits(frame, "difference"),
            "non-inferior": frame["non_inferior"].map({True: "yes", False: "no"}),
            "may spend [ms]": frame["may_spend_ms"].map(lambda ms: "-" if np.isnan(ms) else f"{ms:.0f}"),
        }
    )
    return shown.to_string(index=False)


def _row(
    key: tuple, clock: str, at_once: pd.DataFrame, delayed: pd.DataFrame, charged: dict, margin: float
) -> list[dict[str, object]]:
    both = at_once.merge(delayed, on=pairs.START, suffixes=("_at_once", "_delayed"))
    if not len(both):
        return []
    before, after = both["success_at_once"].to_numpy(bool), both["success_delayed"].to_numpy(bool)
    gained, lost, n = int((after & ~before).sum()), int((before & ~after).sum()), len(both)
    times = np.concatenate([charged[run, key[2]] for run in delayed["run"].unique()])
    return [
        {
            **dict(zip(("suite", "policy", "method"), key, strict=True)),
            "waiting": clock.rpartition(", ")[2],
            "clock": clock,
            "delay_ms": float(np.median(times)),
            "pairs": n,
            "success_at_once": before.mean(),
            **interval_columns("success", stats.wilson(int(after.sum()), n)),
            **interval_columns("difference", paired.tango(gained, lost, n)),
            "non_inferior": paired.is_non_inferior(gained, lost, n, margin),
        }
    ]


def _charged(results: Results) -> dict[tuple[str, str], np.ndarray]:
    """Return the times of answers on the virtual clock [ms], by run and method."""
    if "charged_ms" not in results.queries:
        return {}
    grouped = results.queries.groupby(["run", "method"])["charged_ms"]
    return {(str(run), str(method)): own.to_numpy() for (run, method), own in grouped}


def _may_spend(frame: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for key, group in frame.groupby(["suite", "policy", "method", "waiting"]):
        fine = group.sort_values("delay_ms")
        until = fine[fine["non_inferior"].cummin()]
        rows.append((*key, until["delay_ms"].max() if len(until) else np.nan))
    return pd.DataFrame(rows, columns=["suite", "policy", "method", "waiting", "may_spend_ms"])


def _limits(frame: pd.DataFrame, name: str) -> list[str]:
    columns = (frame[name], frame[f"{name}_low"], frame[f"{name}_high"])
    return [f"{value:.2f} [{low:.2f}, {high:.2f}]" for value, low, high in zip(*columns, strict=True)]
