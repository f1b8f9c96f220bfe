"""Success against the time of an answer."""

import pandas as pd
from matplotlib.axes import Axes

from vla_bench.figures.paper import legend_above, look


def success_against_delay(ax: Axes, delays: pd.DataFrame) -> None:
    """Draw success (Wilson 95 %) against delay, one line for each suite, policy, method and way of waiting.

    A dotted line marks the milliseconds that may be spent. Success without a delay is that of the starts of the delay
    with most of them. `delays` is what `realtime.budget.delay_df` returns.
    """
    ways = list(dict.fromkeys(delays["waiting"]))
    names = ["suite", "policy", "method", "waiting"]
    varying = [name for name in names if delays[name].nunique() > 1]
    for key, own in delays.groupby(names, sort=False):
        named = dict(zip(names, map(str, key), strict=True))
        style = look(named["method"])
        dash = ("-", "--", "-.", ":")[ways.index(named["waiting"]) % 4]
        x = [0.0, *own["delay_ms"]]
        y = [100 * own["success_at_once"].iloc[own["pairs"].argmax()], *(100 * own["success"])]
        label = " ".join(named[name] for name in varying) or named["method"]
        ax.plot(x, y, color=style.colour, marker=style.marker, linestyle=dash, linewidth=1, markersize=4, label=label)
        below, above = own["success"] - own["success_low"], own["success_high"] - own["success"]
        ax.errorbar(own["delay_ms"], 100 * own["success"], yerr=[100 * below, 100 * above], fmt="none",
                    ecolor=style.colour, capsize=2, linewidth=0.8)  # fmt: skip
        if own["may_spend_ms"].notna().any():
            ax.axvline(own["may_spend_ms"].iloc[0], color=style.colour, linestyle=":", linewidth=1)
    ax.set_xlabel("time of an answer on the virtual clock [ms], median")
    ax.set_ylabel("success [%]")
    ax.set_ylim(-4, 105)
    ax.set_xlim(left=0)
    ax.grid(alpha=0.25)
    legend_above(ax)
