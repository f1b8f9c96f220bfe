"""Success against policy time, its budgets joined; and what each family of methods attains within a time."""

from collections.abc import Hashable, Iterable
from typing import Literal, cast

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from vla_bench.compare.frontier import SHARES, on_front
from vla_bench.figures.cache import NothingToDrawError
from vla_bench.figures.paper import legend_above, look
from vla_bench.registry import family

MANY = 3
"""Budgets of a family from which on the legend names the family alone."""


def success_against_latency(ax: Axes, summary: pd.DataFrame, families: pd.DataFrame | None = None) -> None:
    """Draw success (Wilson 95 %) against policy time a control step (bootstrap 95 %), one point a method.

    A line joins the budgets of one method; the stair is the Pareto front: what no other point beats in both.
    `summary` is what `tables.summarise` returns. Methods without a timed query are left out. With `families`, what
    `compare.frontier_df` returns, the legend says each family's hypervolume (HV) behind its first budget. A family of
    three budgets or more is one entry of the legend: its points look alike, and a table says which is which.
    """
    volumes = _hypervolumes(families)
    drawn = summary.dropna(subset=["policy_ms_per_step", "success"])
    drawn = drawn.assign(family=drawn["method"].map(family), starts=drawn["episodes"] - drawn["errors"])
    said_once = ""
    if volumes and drawn["starts"].nunique() == 1:  # room for two columns
        said_once = f"n={drawn['starts'].iloc[0]} each; HV: hypervolume"
    several = drawn[["suite", "policy"]].drop_duplicates().shape[0] > 1
    for key, budgets in drawn.groupby(["suite", "policy", "family"], sort=False):
        many = len(budgets) >= MANY
        for place, (_, row) in enumerate(budgets.iterrows()):
            said = [] if said_once else [f"n={_range(budgets['starts'] if many else [row['starts']])}"]
            said += [f"HV {volumes[key]:.2f}"] if key in volumes and not place else []
            name = f"{row['family']}, {len(budgets)} budgets" if many else row["method"]
            name = f"{row['suite']} {row['policy']} {name}" if several else name
            label = f"{name} ({', '.join(said)})" if said else name
            _draw_point(ax, row, NO_ENTRY if many and place else label)
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
    legend_above(ax, title=said_once)


NO_ENTRY = "_nolegend_"
"""Label that matplotlib leaves out of a legend."""


def _draw_point(ax: Axes, row: pd.Series, label: str) -> None:
    x, y, style = row["policy_ms_per_step"], 100 * row["success"], look(row["method"])
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
        label=label,
    )


def _range(counts: Iterable[int]) -> str:
    least, most = min(counts), max(counts)
    return str(least) if least == most else f"{least} to {most}"


FILLED: dict[int, Literal["full", "left", "right", "bottom", "top", "none"]] = {90: "none", 75: "left", 50: "full"}
"""How much of a marker is filled at each share of the reference's time [%]."""


def success_at_equal_latency(ax: Axes, families: pd.DataFrame) -> None:
    """Draw the best success of each family within 90, 75 and 50 % of the reference's policy time, with 95 % intervals.

    A family that has no budget so fast attains nothing. The grey line is the reference's success, at all of its time.
    `families` is what `compare.frontier_df` returns, of one suite and policy.

    Raises:
        NothingToDrawError: If there is no family.
    """
    if not len(families):
        raise NothingToDrawError(
            "family of methods", "8 timed starts or more that 'full' and all other methods finished"
        )
    ordered = families.iloc[::-1]
    for place, (_, row) in enumerate(ordered.iterrows()):
        style = look(row["family"])
        for offset, share in zip((0.24, 0.0, -0.24), SHARES, strict=True):
            value, low, high = (100 * row[f"success_at_{share}{limit}"] for limit in ("", "_low", "_high"))
            ax.errorbar(
                value, place + offset, xerr=[[value - low], [high - value]], color=style.colour, marker=style.marker,
                fillstyle=FILLED[share], markerfacecoloralt="white", markersize=5, capsize=2, linewidth=0.8,
            )  # fmt: skip
    ax.axvline(100 * families["reference_success"].iloc[0], color="0.6", linewidth=2, zorder=0)
    names = [f"{row['family']} (HV {row['hypervolume']:.2f})" for _, row in ordered.iterrows()]
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(-0.6, len(names) - 0.4)
    ax.set_xlim(-4, 104)
    ax.set_xlabel(f"best success within a time [%], {families['starts'].iloc[0]} starts")
    ax.grid(axis="x", alpha=0.25)
    marks = [
        Line2D([], [], color="black", marker="o", linestyle="", fillstyle=fill, markerfacecoloralt="white", label=label)
        for share, fill in FILLED.items()
        for label in [f"in {share} % of full's time"]
    ]
    legend_above(ax, [*marks, Line2D([], [], color="0.6", linewidth=2, label="full")])


def _hypervolumes(families: pd.DataFrame | None) -> dict[tuple[Hashable, ...], float]:
    """Return each family's hypervolume by suite, policy and name."""
    if families is None or not len(families):
        return {}
    named = families.set_index(["suite", "policy", "family"])["hypervolume"]
    return cast(dict, named.to_dict())
