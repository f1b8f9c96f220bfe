"""Where a query's time goes, by method."""

import pandas as pd
from matplotlib.axes import Axes

from vla_bench.figures.paper import legend_above
from vla_bench.tables import REFERENCE_METHOD

ORDER = ("preprocess", "flow", "gate", "vision", "prefill", "decode", "postprocess", "policy", "link")
"""Stages of a policy, in the order of their work; of a remote one also `link`, and `policy` if it tells no stages."""

FILLS = {
    "preprocess": ("#DDDDDD", ""),
    "flow": ("#E69F00", "//"),
    "gate": ("#D55E00", "\\\\"),
    "vision": ("#56B4E9", ""),
    "prefill": ("#0072B2", ""),
    "decode": ("#009E73", ".."),
    "postprocess": ("#888888", ""),
    "policy": ("#BBBBBB", "xx"),
    "link": ("#CC79A7", "--"),
    "rest": ("#FFFFFF", ""),
}
"""Colour and hatching of each stage; `rest` is what the policy does not attribute."""


def stage_bars(ax: Axes, queries: pd.DataFrame) -> None:
    """Draw the mean time of each stage [ms a query] as bars on top of each other, `full` first.

    Means, because medians of stages do not add up. Warm-up and first queries are left out. A query that skips a stage,
    as a refresh skips the gate, counts with 0 ms of it; an action that is repeated is no query. `queries` is the frame
    of that name.
    """
    timed = queries[~queries["is_warmup"] & ~queries["is_first_step"]]
    columns = {f"stage_ms {name}": name for name in ORDER if f"stage_ms {name}" in timed}
    spent = timed.fillna(dict.fromkeys(columns, 0.0))
    means = spent.groupby("method")[[*columns, "policy_ms"]].mean().rename(columns=columns).fillna(0.0)
    means["rest"] = (means.pop("policy_ms") - means[[*columns.values()]].sum(axis=1)).clip(lower=0)
    order = sorted(means.index, key=lambda name: (name == REFERENCE_METHOD, -means.loc[name].sum()))
    left = pd.Series(0.0, index=order)
    for stage in means.columns:
        colour, hatch = FILLS[stage]
        widths = means.loc[order, stage]
        ax.barh(order, widths, left=left, color=colour, hatch=hatch, edgecolor="black", linewidth=0.5, label=stage)
        left += widths
    for at, whole in enumerate(left):
        ax.annotate(f"{whole:.1f}", (whole, at), xytext=(3, 0), textcoords="offset points", va="center", fontsize=7)
    ax.set_xlabel("time per query [ms], mean")
    ax.margins(x=0.1)
    legend_above(ax)
