"""The comparison as a person reads it."""

import numpy as np
import pandas as pd

from vla_bench.compare.latency import DEADLINES_HZ
from vla_bench.compare.tables import judgement
from vla_bench.compare.verdict import LEGEND, MIN_PAIRS, SPEED_TIE
from vla_bench.tables.text import bracketed, named

NOTES = (
    "success: of the pairs, with Wilson limits; difference: percentage points, with Tango limits; +, -: pairs that\n"
    "only the method, only the reference solved; drop found: least loss of success [points] that so many pairs, which\n"
    "disagree as often, find with 80 % probability (mid-p McNemar, 5 %, two-sided), '-' if not even a loss of all;\n"
    "p: mid-p McNemar, adjusted for the number of methods by Holm;\n"
    "errors: episodes that raised, in no pair; speed-up: reference over method, medians over pairs of the policy time\n"
    "a control step, without warm-up and first query, '-' below {least} timed pairs; [95 % intervals].\n"
    "Latency: policy ms a query, first query of an episode and warm-up apart; p90 from 30, p99 from 300 queries on;\n"
    "late: share of queries that take longer than one period of that rate."
)
"""What stands under the tables; takes `least`."""

FRONTIER_NOTES = (
    "hypervolume: mean success over all time budgets below the reference's (0: never faster, or nothing solved);\n"
    "success at 75 %: of the best budget within 75 % of the reference's policy time a control step, nothing\n"
    "interpolated; over the starts that all methods finished; [95 % bootstrap intervals, within tasks of 8 starts\n"
    "or more]. The best of several budgets is chosen by the same starts, which flatters it."
)
"""What stands under families."""


def to_text(comparison: pd.DataFrame) -> str:
    """Return what `compare_df` returned as tables: a block for every suite and policy, legends at the end."""
    blocks = [_block(group) for _, group in comparison.groupby(["suite", "policy"], sort=False)]
    margin = 100 * float(comparison["margin"].iloc[0])
    notes = NOTES.format(least=MIN_PAIRS)
    return "\n\n".join([*blocks, f"{LEGEND.format(margin=margin, tie=SPEED_TIE)}\n{notes}"])


def frontier_text(families: pd.DataFrame) -> str:
    """Return what `frontier_df` returned as tables: a block for every suite and policy, the legend at the end."""
    blocks = [
        f"{suite}, policy {policy}, by family of methods\n{_families(group).to_string(index=False)}"
        for (suite, policy), group in families.groupby(["suite", "policy"], sort=False)
    ]
    return "\n\n".join([*blocks, FRONTIER_NOTES])


def _families(group: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "family": group["family"].to_numpy(),
            "budgets": group["budgets"].to_numpy(),
            "starts": group["starts"].to_numpy(),
            "hypervolume": bracketed(group, "hypervolume", "{:.3f}"),
            "success at 90 % of the time": bracketed(group, "success_at_90", "{:.2f}"),
            "at 75 %": bracketed(group, "success_at_75", "{:.2f}"),
            "at 50 %": bracketed(group, "success_at_50", "{:.2f}"),
            "fastest non-inferior": [name or "-" for name in group["fastest"]],
            "speed-up": _shown(group["speedup"], "{:.2f}"),
        }
    )


def _block(group: pd.DataFrame) -> str:
    first = group.iloc[0]
    against = f"against {first['reference']}, margin {100 * first['margin']:g} points"
    title = f"{first['suite']}, policy {first['policy']}, {against}"
    tables = [shown(group).to_string(index=False), _latency(group).to_string(index=False)]
    return "\n".join([title, tables[0], *_remarks(group), "", tables[1]])


def shown(group: pd.DataFrame) -> pd.DataFrame:
    """Return verdicts and what they rest on as text; suite and policy where there are several."""
    verdicts = [judgement(row) for _, row in group.iterrows()]
    points = group.assign(**{name: 100 * group[name] for name in ("difference", "difference_low", "difference_high")})
    return pd.DataFrame(
        {
            **named(group),
            "method": group["method"].to_numpy(),
            "pairs": _shown(group["pairs"], "{:.0f}"),
            "errors": group["errors"].to_numpy(),
            "success": bracketed(group, "success", "{:.2f}"),
            "difference": bracketed(points, "difference", "{:+.1f}"),
            "+": _shown(group["gained"], "{:.0f}"),
            "-": _shown(group["lost"], "{:.0f}"),
            "drop found": _shown(100 * group["drop_found"], "{:.1f}"),
            "p": [_p(value) for value in group["p_mid"]],
            "p Holm": [_p(value) for value in group["p_holm"]],
            "speed-up": bracketed(group, "speedup", "{:.2f}"),
            "verdict": ["reference" if verdict is None else str(verdict) for verdict in verdicts],
        }
    )


def _latency(group: pd.DataFrame) -> pd.DataFrame:
    rates = " / ".join(str(hz) for hz in DEADLINES_HZ)
    late = [_shown(100 * group[f"misses_{hz}hz"], "{:.0f}") for hz in DEADLINES_HZ]
    return pd.DataFrame(
        {
            "method": group["method"].to_numpy(),
            "queries": group["timed_queries"].to_numpy(),
            **{f"p{p}": _shown(group[f"policy_ms_p{p}"], "{:.2f}") for p in (50, 90, 99)},
            f"late % at {rates} Hz": [" / ".join(row) for row in zip(*late, strict=True)],
            "ms/step": _shown(group["policy_ms_per_step"], "{:.2f}"),
            "first query": _counted(group, "first"),
            "warm-up": _counted(group, "warmup"),
        }
    )


def _remarks(group: pd.DataFrame) -> list[str]:
    """Return what the table alone would hide: the test of all methods, the best ones, and what does not pair well."""
    said = []
    first = group.iloc[0]
    if len(group) > 2 and first["blocks"]:
        best = "" if group["may_be_best"].all() else ", ".join(group.loc[group["may_be_best"], "method"])
        said.append(
            f"All {len(group)} methods, {first['blocks']} starts that all finished: "
            f"Cochran Q {first['cochran_q']:.2f}, p {_p(first['cochran_p'])}. "
            + (f"Not told from the best: {best}." if best else "So few starts tell none of them from the best.")
        )
    for _, row in group.dropna(subset=["pairs"]).iterrows():
        if apart := row["pairs"] - row["interleaved"]:
            said.append(
                f"{row['method']}: {apart} of {row['pairs']} pairs are of two runs, not in turns: the machine may have "
                f"changed between them, and the speed-up with it."
            )
        if alone := row["episodes"] - row["pairs"]:
            said.append(f"{row['method']}: {alone} of {row['episodes']} finished episodes have no partner.")
    return said


def _shown(values: pd.Series, form: str) -> list[str]:
    return ["-" if pd.isna(value) else form.format(value) for value in values]


def _counted(group: pd.DataFrame, name: str) -> list[str]:
    """Return medians with the number of queries that they are of."""
    medians = _shown(group[f"{name}_ms_p50"], "{:.2f}")
    return [f"{ms} (n={count:.0f})" for ms, count in zip(medians, group[f"{name}_queries"], strict=True)]


def _p(p: float) -> str:
    if np.isnan(p):
        return "-"
    return "<0.0001" if p < 1e-4 else f"{p:.4f}"
