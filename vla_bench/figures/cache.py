"""What a cache does: how much is reused over an episode and how old it is, and what age does to the actions."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from vla_bench.errors import VlaBenchError
from vla_bench.figures.paper import dashes, legend_above, look

AGE = "cache age_max"
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
    """Draw the action distance to the full computation [mm] against the greatest age of what was reused [inferences].

    Points are medians of the queries of one age, bars their quartiles; ages with fewer than 5 queries are left out. A
    distance is the mean over the steps that a query's actions serve. Frames are those that `vla-bench replay` writes.
    """
    asked = _cached(queries).sort_values("step")
    served = pd.merge_asof(
        steps.sort_values("step"),
        asked[["method", "recording", "step", AGE]].rename(columns={"step": "asked"}),
        left_on="step",
        right_on="asked",
        by=["method", "recording"],
    ).dropna(subset=[AGE])
    by_query = served.groupby(["method", "recording", "asked", AGE], as_index=False)["distance_mm"].mean()
    for method, own in by_query[by_query[AGE] > 0].groupby("method"):
        ages = own.groupby(AGE)["distance_mm"]
        known = ages.quantile([0.25, 0.5, 0.75]).unstack()[ages.size() >= 5]
        if not len(known):
            continue
        style = look(str(method))
        low, middle, high = (known[q].to_numpy() for q in (0.25, 0.5, 0.75))
        ax.errorbar(
            known.index, middle, yerr=np.stack((middle - low, high - middle)), color=style.colour,
            marker=style.marker, markersize=4, linewidth=1, capsize=2, label=str(method),
        )  # fmt: skip
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(lambda age, _: f"{age:g}")
    ax.set_xlabel("greatest age reused [inferences]")
    ax.set_ylabel("distance to full computation [mm]")
    ax.set_ylim(bottom=0)
    ax.grid(alpha=0.25)
    legend_above(ax)


def _cached(queries: pd.DataFrame) -> pd.DataFrame:
    """Return the queries of methods that have a cache.

    Raises:
        NothingToDrawError: If there is none.
    """
    if EFFECTIVE not in queries:
        raise NothingToDrawError("query that reports a cache", "results of a method with a cache, such as vla-cache")
    return queries.dropna(subset=[EFFECTIVE, AGE])
