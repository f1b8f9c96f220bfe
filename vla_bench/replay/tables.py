"""What a replay has measured, as frames, and the summary that a reader sees first."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from vla_bench import stats
from vla_bench.replay.record import ReplayRecord
from vla_bench.tables import REFERENCE_METHOD, bracketed, interval_columns, query_row
from vla_bench.types import ActionSpec

GRIPPER = -1
"""Entry of an action that opens and closes; the first three move, the three after them turn."""

DECODER = ("prefill", "decode")
"""Stages in which rows go through the decoder."""

LEAST_MS = 0.005
"""Change of a stage's median below which it is no reason [ms]: it would be printed as 0.00."""


def steps(records: Sequence[ReplayRecord], spec: ActionSpec) -> pd.DataFrame:
    """Return one row for every method, recording and control step: how far its action is from the full computation's.

    Columns: `distance_mm` and `distance_mrad` (Euclidean, of the commanded translation and rotation), `gripper_flip`
    (whether the command is the opposite one), and `recorded_mm`, the distance to what was done when it was recorded.
    """
    reference = {record.episode: record for record in records if record.method == REFERENCE_METHOD}
    frames = []
    for record in records:
        full = reference.get(record.episode)
        if record.is_broken or full is None or full.is_broken:
            continue
        apart = record.done - full.done
        recorded = record.done - np.array(record.recorded)
        frames.append(
            pd.DataFrame(
                {
                    "method": record.method,
                    "recording": record.episode,
                    "step": np.arange(len(apart)),
                    "distance_mm": np.linalg.norm(apart[:, :3], axis=1) * spec.translation_m * 1e3,
                    "distance_mrad": np.linalg.norm(apart[:, 3:6], axis=1) * spec.rotation_rad * 1e3,
                    "gripper_flip": np.sign(record.done[:, GRIPPER]) != np.sign(full.done[:, GRIPPER]),
                    "recorded_mm": np.linalg.norm(recorded[:, :3], axis=1) * spec.translation_m * 1e3,
                }
            )
        )
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def queries(records: Sequence[ReplayRecord]) -> pd.DataFrame:
    """Return one row for every query of a record that is whole."""
    rows = [
        {"method": record.method, "recording": record.episode, **query_row(query)}
        for record in records
        if not record.is_broken
        for query in record.queries
    ]
    return pd.DataFrame(rows)


def summarise(records: Sequence[ReplayRecord], spec: ActionSpec, seed: int = 0) -> pd.DataFrame:
    """Return one row for every method, in the order of their policy time a control step.

    Distances are over all control steps: the mean of the recordings' means, with a bootstrap interval over recordings.
    Times, operations and shares leave out warm-up and the first query of a recording; `speedup` is the ratio of the
    medians over recordings of the policy time a control step.
    """
    found, asked = steps(records, spec), queries(records)
    rows = []
    for method in dict.fromkeys(record.method for record in records):
        rng = np.random.default_rng(seed)
        own = [record for record in records if record.method == method]
        row: dict[str, object] = {"method": method, "recordings": len(own), "errors": sum(r.is_broken for r in own)}
        if len(found) and (found["method"] == method).any():
            row |= _distance(found[found["method"] == method], rng) | _times(asked, method, rng)
        rows.append(row)
    summary = pd.DataFrame(rows)
    return summary.sort_values("policy_ms_per_step", ignore_index=True) if "policy_ms_per_step" in summary else summary


def stages(records: Sequence[ReplayRecord]) -> pd.DataFrame:
    """Return the median time of each stage [ms a query] by method, the reference first, and what each adds to it."""
    timed = _timed(queries(records))
    columns = [name for name in timed.columns if name.startswith("stage_ms ")]
    medians = timed.groupby("method", sort=False)[columns].median()
    medians.columns = [name.removeprefix("stage_ms ") for name in columns]
    medians["policy"] = timed.groupby("method", sort=False)["policy_ms"].median()
    order = sorted(medians.index, key=lambda name: (name != REFERENCE_METHOD, medians.loc[name, "policy"]))
    return medians.loc[order]


def verdicts(summary: pd.DataFrame, by_stage: pd.DataFrame) -> list[str]:
    """Return for each method whether it is faster or slower than the reference, and the stages that say why."""
    said = []
    asked = dict(zip(summary["method"], summary.get("queries", summary["recordings"]), strict=True))
    for _, row in summary.iterrows():
        if row["method"] == REFERENCE_METHOD or np.isnan(row.get("speedup", np.nan)):
            said.append("")
            continue
        if row["speedup_low"] > 1:
            rarely = row["queries"] < 0.95 * asked[REFERENCE_METHOD]
            said.append("faster" + (": asked less often" if rarely else _most(by_stage, row["method"], -1)))
        elif row["speedup_high"] < 1:
            said.append("SLOWER" + _most(by_stage, row["method"], 1))
        else:
            spent, saved = (_most(by_stage, row["method"], sign).removeprefix(": ") for sign in (1, -1))
            said.append(": ".join(filter(None, ("no difference seen", ", ".join(filter(None, (spent, saved)))))))
    return said


def to_text(summary: pd.DataFrame, by_stage: pd.DataFrame) -> str:
    """Return both tables as a person reads them."""
    if "policy_ms" not in summary:
        return summary.to_string(index=False)
    shown = pd.DataFrame(
        {
            "method": summary["method"],
            "recordings": summary["recordings"],
            "errors": summary["errors"],
            "mm": bracketed(summary, "distance_mm", "{:.2f}"),
            "mrad": bracketed(summary, "distance_mrad", "{:.1f}"),
            "flips %": (100 * summary["gripper_flips"]).map("{:.2f}".format),
            "to recorded mm": summary["recorded_mm"].map("{:.2f}".format),
            "left out %": (100 * summary["effective"]).map("{:.0f}".format),
            "rows": summary["rows_computed"].map("{:.0f}".format),
            "GFLOP": summary["gflops"].map("{:.3f}".format),
            "MB": summary["decoder_mb"].map("{:.1f}".format),
            "ms/query": bracketed(summary, "policy_ms", "{:.2f}"),
            "decoder ms": summary["decoder_ms"].map("{:.2f}".format),
            "speed-up": bracketed(summary, "speedup", "{:.2f}"),
            "": verdicts(summary, by_stage),
        }
    )
    return (
        f"{shown.to_string(index=False)}\n\nStages, median ms a query:\n"
        f"{by_stage.to_string(float_format='{:.2f}'.format, na_rep='-')}\n{LEGEND}"
    )


LEGEND = (
    "mm, mrad: distance of the applied action to the full computation's on the same recording, mean over steps;\n"
    "left out (share of the visual row-layers), rows (of the first layer), GFLOP, MB (weights, keys and values that\n"
    "the decoder reads), ms: of queries after warm-up, a recording's first left out;\n"
    "speed-up: policy time a control step; [95 % intervals]. Recorded pictures are compressed: what stands still\n"
    "differs a little from the simulator's own. Open loop: no statement about success"
)


def _distance(own: pd.DataFrame, rng: np.random.Generator) -> dict[str, object]:
    by_recording = own.groupby("recording")
    return {
        **interval_columns("distance_mm", stats.mean(by_recording["distance_mm"].mean().to_numpy(), rng)),
        "distance_mm_p90": float(np.percentile(own["distance_mm"], 90)),
        **interval_columns("distance_mrad", stats.mean(by_recording["distance_mrad"].mean().to_numpy(), rng)),
        "gripper_flips": float(own["gripper_flip"].mean()),
        "recorded_mm": float(own["recorded_mm"].mean()),
    }


def _times(asked: pd.DataFrame, method: str, rng: np.random.Generator) -> dict[str, object]:
    timed = _timed(asked)
    mine = timed[timed["method"] == method]
    if not len(mine):
        return {}
    stage = [f"stage_ms {name}" for name in DECODER if f"stage_ms {name}" in mine]
    per_step = timed.groupby(["method", "recording"])[["policy_ms", "n_executed"]].sum()
    per_step = (per_step["policy_ms"] / per_step["n_executed"]).unstack("method")
    per_step = per_step.dropna(subset=[name for name in (method, REFERENCE_METHOD) if name in per_step])
    before = per_step[REFERENCE_METHOD].to_numpy() if REFERENCE_METHOD in per_step else np.empty(0)
    after = per_step[method].to_numpy()
    clusters = [group["policy_ms"].to_numpy() for _, group in mine.groupby("recording")]
    return {
        "queries": len(mine),
        "effective": float(mine["cache effective"].mean()) if "cache effective" in mine else np.nan,
        "age_max": float(mine["cache age_max"].max()) if "cache age_max" in mine else np.nan,
        "gflops": float(mine["flops"].astype(float).mean()) / 1e9,
        "rows_computed": float(mine["rows_computed"].astype(float).mean()),
        "decoder_mb": float(mine["cache decoder_bytes"].mean()) / 1e6 if "cache decoder_bytes" in mine else np.nan,
        **interval_columns("policy_ms", stats.clustered_median(clusters, rng)),
        "policy_ms_p90": stats.percentile(mine["policy_ms"].to_numpy(), 90),
        "policy_ms_per_step": float(np.median(after)),
        "decoder_ms": float(mine[stage].sum(axis=1).median()) if stage else np.nan,
        **interval_columns("speedup", stats.ratio_of_paired_medians(before, after, rng) if len(before) else None),
    }


def _timed(asked: pd.DataFrame) -> pd.DataFrame:
    return asked[~asked["is_warmup"] & ~asked["is_first_step"]]


def _most(by_stage: pd.DataFrame, method: str, sign: int) -> str:
    """Return the stage that has changed most in a direction."""
    if method not in by_stage.index or REFERENCE_METHOD not in by_stage.index:
        return ""
    before, after = (by_stage.loc[name].drop("policy").to_dict() for name in (REFERENCE_METHOD, method))
    grown = {stage: sign * (after[stage] - before[stage]) for stage in before}
    grown = {stage: ms for stage, ms in grown.items() if ms >= LEAST_MS}
    if not grown:
        return ""
    stage = max(grown, key=grown.__getitem__)
    return f": {stage} {sign * grown[stage]:+.2f} ms"
