"""Success against policy time: one point a method, its budgets joined."""

import pandas as pd
from matplotlib.axes import Axes

from vla_bench.compare.frontier import on_front
from vla_bench.figures.paper import legend_above, look
from vla_bench.registry import family


def success_against_latency(ax: Axes, summary: pd.DataFrame) -> None:
    """Draw success (Wilson 95 %) against policy time a control step (bootstrap 95 %), one point a method.

    A line joins the budgets of one method; the stair is the Pareto front: what no other point beats in both.
    `summary` is what `tables.summarise` returns. Methods without a timed query are left out.
    """
    drawn = summary.dropna(subset=["policy_ms_per_step", "success"])
    several = drawn[["suite", "policy"]].drop_duplicates().shape[0] > 1
    for _, row in drawn.iterrows():
        name = row["method"] if not several else f"{row['suite']} {row['policy']} {row['method']}"
        x, y = row["policy_ms_per_step"], 100 * row["success"]
        style = look(row["method"])
        ax.errorbar(
            x,
            y,
            xerr=[[x - row["policy_ms_per_step_low"]], [row["policy_ms_per_step_high"] - x]],
            yerr=[[y - 100 * row["success_low"]], [100 * row["success_high"] - y]],
            color=style.colour,
            marker=style.marker,
            markersize=6,
            capsize=2.5,
            linewidth=1,
            label=f"{name} (n={row['episodes'] - row['errors']})",
        )
    for _, block in drawn.sort_values("policy_ms_per_step").groupby(["suite", "policy"]):
        for method, budgets in block.groupby(block["method"].map(family)):
            at = budgets["policy_ms_per_step"], 100 * budgets["success"]
            ax.plot(*at, linestyle="--", color=look(str(method)).colour, linewidth=0.8)
        front = block[on_front(block["policy_ms_per_step"], block["success"])]
        ax.step(front["policy_ms_per_step"], 100 * front["success"], where="post", color="0.6", linewidth=3, zorder=0)
    ax.set_xlabel("policy time per control step [ms], median")
    ax.set_ylabel("success [%]")
    ax.set_ylim(-4, 105)  # room for a marker at zero
    ax.set_xlim(left=0)
    ax.grid(alpha=0.25)
    legend_above(ax)
