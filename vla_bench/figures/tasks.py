"""Success by task and method: where a method loses."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from vla_bench.tables import REFERENCE_METHOD
from vla_bench.types import Outcome


def success_by_task(ax: Axes, episodes: pd.DataFrame) -> None:
    """Draw the success [%] of every method on every task, and over all, as a map with numbers, `full` on top.

    Errors are left out. `episodes` is the frame of that name, of one suite and policy.
    """
    valid = episodes[episodes["outcome"] != str(Outcome.ERROR)]
    rates = 100 * valid.pivot_table(index="method", columns="task", values="success", aggfunc="mean")
    rates["all"] = 100 * valid.groupby("method")["success"].mean()
    cells = valid.groupby(["method", "task"]).size()
    order = sorted(rates.index, key=lambda name: (name != REFERENCE_METHOD, -rates.loc[name, "all"]))
    values = rates.loc[order].to_numpy(dtype=float)
    ax.imshow(values, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            colour = "black" if value > 55 else "white"
            ax.text(column, row, f"{value:.0f}", ha="center", va="center", color=colour, fontsize=7)
    ax.axvline(values.shape[1] - 1.5, color="white", linewidth=3)
    ax.set_xticks(range(values.shape[1]), [str(name) for name in rates.columns])
    ax.set_yticks(range(len(order)), order)
    ax.set_xlabel("task")
    ax.set_title(f"success [%], {_number(int(cells.min()), int(cells.max()))} a task", fontsize=9)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _number(least: int, most: int) -> str:
    """Return how many episodes a cell is of."""
    return f"{least} to {most} episodes" if least != most else f"{most} episode{'s' * (most != 1)}"
