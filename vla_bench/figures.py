"""Figures as functions of an Axes and numbers, the same for the command, the leaderboard and the notebooks."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from vla_bench.errors import ResultsWriteError

WIDTH_IN, HEIGHT_IN = 4.8, 3.4
"""Size of a figure [inch]: one column of a conference paper, with room for a legend."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""Told apart by colour-blind readers. Source: Okabe and Ito 2008, Color Universal Design."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "0",
}


@contextmanager
def paper_figure(*paths: Path) -> Iterator[Axes]:
    """Give an Axes to draw on, then write the figure to every path, in the format its suffix names.

    Raises:
        ResultsWriteError: If a path cannot be written.
    """
    with matplotlib.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
        try:
            yield ax
            for path in paths:
                path.parent.mkdir(parents=True, exist_ok=True)
                figure.savefig(path, dpi=200)
        except OSError as caught:
            raise ResultsWriteError(paths, caught) from caught
        finally:
            plt.close(figure)


def success_against_latency(ax: Axes, summary: pd.DataFrame) -> None:
    """Draw success (Wilson 95 %) against policy time a control step (bootstrap 95 %), one point a method.

    `summary` is what `tables.summarise` returns. Methods without a timed query are left out.
    """
    drawn = summary.dropna(subset=["policy_ms_per_step", "success"])
    several = drawn[["suite", "policy"]].drop_duplicates().shape[0] > 1
    colours = method_colours(drawn["method"])
    for _, row in drawn.iterrows():
        name = row["method"] if not several else f"{row['suite']} {row['policy']} {row['method']}"
        x, y = row["policy_ms_per_step"], 100 * row["success"]
        ax.errorbar(
            x,
            y,
            xerr=[[x - row["policy_ms_per_step_low"]], [row["policy_ms_per_step_high"] - x]],
            yerr=[[y - 100 * row["success_low"]], [100 * row["success_high"] - y]],
            color=colours[row["method"]],
            marker=MARKERS[list(colours).index(row["method"]) % len(MARKERS)],
            markersize=6,
            capsize=2.5,
            linewidth=1,
            label=f"{name} (n={row['episodes'] - row['errors']})",
        )
    ax.set_xlabel("policy time per control step [ms], median")
    ax.set_ylabel("success [%]")
    ax.set_ylim(-4, 105)  # room for a marker at zero
    ax.set_xlim(left=0)
    ax.grid(alpha=0.25)
    ax.legend(frameon=False, fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)


def method_colours(methods: pd.Series) -> dict[str, str]:
    """Return one colour for each method, `full` first, then by name."""
    names = sorted(set(methods), key=lambda name: (name != "full", name))
    return {name: COLOURS[index % len(COLOURS)] for index, name in enumerate(names)}
