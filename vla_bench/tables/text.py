"""A summary as a person reads it."""

import numpy as np
import pandas as pd

LEGEND = (
    "ms: policy time (observation to actions) a query, a control step and a success; speed-up at the control step;\n"
    "steps: median to success; [95 % intervals]"
)
"""What stands under a summary."""

UNTIMED = "\n-, nan: not timed, as in a plan with --no-timed, or of fewer than 30 queries"


def to_text(summary: pd.DataFrame) -> str:
    """Return the summary as a person reads it: a block for every suite and policy, intervals in brackets."""
    if not len(summary):
        return "no episodes"
    blocks = [
        f"{suite}, policy {policy}\n{shown(group).to_string(index=False)}"
        for (suite, policy), group in summary.groupby(["suite", "policy"], sort=False)
    ]
    return "\n\n".join([*blocks, LEGEND + (UNTIMED if summary["policy_ms_p90"].isna().any() else "")])


def shown(group: pd.DataFrame) -> pd.DataFrame:
    """Return the summary's main columns as text, intervals in brackets; suite and policy where there are several."""
    return pd.DataFrame(
        {
            **named(group),
            "method": group["method"].to_numpy(),
            "episodes": group["episodes"].to_numpy(),
            "errors": group["errors"].to_numpy(),
            "success": bracketed(group, "success", "{:.2f}"),
            "ms/query": bracketed(group, "policy_ms", "{:.2f}"),
            "p90": group["policy_ms_p90"].map("{:.2f}".format).to_numpy(),
            "ms/step": bracketed(group, "policy_ms_per_step", "{:.2f}"),
            "speed-up": bracketed(group, "speedup", "{:.2f}"),
            "queries/step": group["queries_per_step"].map("{:.2f}".format).to_numpy(),
            "steps": group["steps_to_success"].map("{:.0f}".format).to_numpy(),
            "ms/success": group["policy_ms_per_success"].map("{:.0f}".format).to_numpy(),
        }
    )


def named(group: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return the columns that tell a table's blocks apart: `suite` and `policy`, each where it has several values."""
    return {name: group[name].to_numpy() for name in ("suite", "policy") if group[name].nunique() > 1}


def bracketed(summary: pd.DataFrame, name: str, form: str) -> list[str]:
    """Return what `interval_columns` wrote as text: `1.24 [1.10, 1.31]`."""
    columns = (summary[name], summary[f"{name}_low"], summary[f"{name}_high"])
    return [
        "-" if np.isnan(value) else f"{form.format(value)} [{form.format(low)}, {form.format(high)}]"
        for value, low, high in zip(*columns, strict=True)
    ]
