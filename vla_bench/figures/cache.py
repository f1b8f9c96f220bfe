"""What a cache does: how much is reused over an episode and how old it is, and what age does to the actions."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from vla_bench.errors import VlaBenchError
from vla_bench.figures.paper import dashes, legend_above, look

AGE = "cache age_max"
AGE_COUNTS = "cache age_counts"
AGES = ("1", "2 to 3", "4 to 7", "8 to 15", "16 to 31", "32+")
"""Classes of `AGE_COUNTS`: reused rows by how many inferences ago they were computed."""

EFFECTIVE = "cache effective"


class NothingToDrawError(VlaBenchError):
    """Refuse to draw an empty figure."""

    def __init__(self, lacking: str, needed: str) -> None:
        super().__init__(f"there is no {lacking} to draw: the figure needs {needed}")


def reuse_over_episode(ax: Axes, queries: pd.DataFrame) -> None:
    """Draw the share of the visual row-layers that was left out [%] against the control step, one line a method.

    `queries` is the frame of that name, of one episode or recording of each method; methods that leave nothing out are
    not drawn.

    Raises:
        ValueError: If a method has several episodes: their mean is no episode.
    """
    _over_episode(ax, queries, lambda own: 100 * own[EFFECTIVE])
    ax.set_ylabel("left out of visual row-layers [%]")
    ax.set_ylim(-4, 104)


def age_over_episode(ax: Axes, queries: pd.DataFrame) -> None:
    """Draw the greatest age of what is reused [inferences] against the control step; see `reuse_over_episode`."""
    _over_episode(ax, queries, lambda own: own[AGE])
    ax.set_ylabel("greatest age reused [inferences]")


def _over_episode(ax: Axes, queries: pd.DataFrame, of: Callable[[pd.DataFrame], pd.Series]) -> None:
    known = _cached(queries)
    lines = dashes(sorted(map(str, known["method"].unique())))
    for method, own in known.groupby("method"):
        if own.duplicated("step").any():
            raise ValueError(f"{method} has several queries at a step: choose one episode")
        if (own[EFFECTIVE] > 0).any():
            style = look(str(method))
            ax.plot(
                own["step"],
                of(own),
                color=style.colour,
                marker=style.marker,
                markevery=max(1, len(own) // 12) | 1,  # odd: a method of period 2 is not marked at its refreshes only
                linestyle=lines[str(method)],
                markersize=3,
                linewidth=1,
                label=str(method),
            )
    ax.set_xlabel("control step")
    ax.grid(alpha=0.25)
    legend_above(ax)


def distance_against_age(ax: Axes, steps: pd.DataFrame, queries: pd.DataFrame) -> None:
    """Draw the action distance to the full computation [mm] against the age of what was reused [inferences].

    The age of a query is the class, of those that a record counts (`AGES`), that holds the median of its reused rows;
    what one row is, the oldest, says little where a few are never asked for again. Points are medians of the queries of
    one class, bars their quartiles; classes with fewer than 5 queries are left out. A distance is the mean over the
    steps that a query's actions serve. Frames are those that `vla-bench replay` writes.

    Raises:
        NothingToDrawError: If nothing was reused.
    """
    asked = _cached(queries)
    asked = asked.assign(asked=asked["step"], age=[_median_age(counts) for counts in asked[AGE_COUNTS]])
    served = pd.merge_asof(
        steps.sort_values("step"),
        asked[["method", "recording", "step", "asked", "age"]].sort_values("step"),
        on="step",
        by=["method", "recording"],
    ).dropna(subset=["age"])
    by_query = served.groupby(["method", "recording", "asked", "age"], as_index=False)["distance_mm"].mean()
    quartiles = by_query.groupby(["method", "age"])["distance_mm"].quantile([0.25, 0.5, 0.75]).unstack()
    quartiles = quartiles[by_query.groupby(["method", "age"]).size() >= 5]
    methods = sorted(map(str, quartiles.index.unique("method")))
    if not methods:
        raise NothingToDrawError("reused row", "five queries of a method that reused rows of one age")
    lines = dashes(methods)
    for method, aside in zip(methods, np.linspace(-0.25, 0.25, len(methods) + 2)[1:-1], strict=True):
        known, style = quartiles.loc[method], look(method)
        low, middle, high = (known[q].to_numpy() for q in (0.25, 0.5, 0.75))
        ax.errorbar(
            known.index.to_numpy() + aside, middle, yerr=np.stack((middle - low, high - middle)), color=style.colour,
            marker=style.marker, linestyle=lines[method], markersize=4, linewidth=1, elinewidth=0.6, capsize=2,
            label=method,
        )  # fmt: skip
    ax.set_xticks(range(len(AGES)), AGES)
    ax.set_xlabel("median age of what is reused [inferences]")
    ax.set_ylabel("distance to full computation [mm]")
    ax.set_ylim(bottom=0)
    ax.grid(alpha=0.25)
    legend_above(ax)


def _median_age(counts: np.ndarray) -> float:
    """Return the class that holds the median of the reused rows; NaN if none was."""
    if not (total := np.sum(counts)):
        return np.nan
    return float(np.searchsorted(np.cumsum(counts), total / 2))


def _cached(queries: pd.DataFrame) -> pd.DataFrame:
    """Return the queries of methods that have a cache.

    Raises:
        NothingToDrawError: If there is none.
    """
    if EFFECTIVE not in queries:
        raise NothingToDrawError("query that reports a cache", "results of a method with a cache, such as vla-cache")
    return queries.dropna(subset=[EFFECTIVE, AGE])
