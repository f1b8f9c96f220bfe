"""Tidy frames of a run, and the summary that a reader sees first.

`runs` has a row a run, `episodes` a row an episode, `queries` a row a call of the policy. Averages are made here and
nowhere before.
"""

from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd

from vla_bench import journal, provenance, stats
from vla_bench.errors import MixedRunsError, NoResultsError, ResultsWriteError
from vla_bench.types import EpisodeRecord, Outcome, Query

REFERENCE_METHOD = "full"
"""What every speed-up is divided by."""

NEVER_COMPARED = ("protocol", "processor", "accelerator")
"""Conditions, besides all of the environment's, that episodes in one summary must share."""


EPISODE_KEY = ["suite", "policy", "method", "task", "init_state", "seed"]
"""What must be unique among the episodes of a summary."""


@dataclass(frozen=True)
class Results:
    """The frames of one or more runs."""

    runs: pd.DataFrame
    """Plan, conditions and code, by `run`."""

    episodes: pd.DataFrame
    """Raw facts by run, method, task, init_state and seed; the latest attempt of each."""

    queries: pd.DataFrame
    """Raw facts by episode and step."""


def load(*directories: Path) -> Results:
    """Return the frames of the runs in these directories; a directory of runs stands for all in it.

    Raises:
        NoResultsError: If a directory holds no run or a run holds no episode.
        JournalError: If a journal is broken elsewhere than at its end.
    """
    runs, episodes, queries = [], [], []
    for directory in (run for given in directories for run in _runs(given)):
        records = journal.latest(journal.read(directory))
        if not records:
            raise NoResultsError(directory, "holds no finished episode yet")
        runs.append(_run_row(directory))
        for record in records:
            row = _episode_row(directory.name, record)
            episodes.append(row)
            key = {name: row[name] for name in ("run", "method", "task", "init_state", "seed")}
            queries.extend(key | query_row(query) for query in record.queries)
    return Results(pd.DataFrame(runs), pd.DataFrame(episodes), pd.DataFrame(queries))


def export(results: Results, directory: Path) -> list[Path]:
    """Write the frames as parquet files and return their paths; `read_exported` reads them back.

    Raises:
        ResultsWriteError: If they cannot be written.
    """
    paths = [directory / f"{field.name}.parquet" for field in fields(Results)]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for path in paths:
            frame: pd.DataFrame = getattr(results, path.stem)
            frame.to_parquet(path.with_suffix(".partial"), index=False)
            path.with_suffix(".partial").replace(path)
    except OSError as caught:
        raise ResultsWriteError(directory, caught) from caught
    return paths


def read_exported(directory: Path) -> Results:
    """Return the frames that `export` wrote.

    Raises:
        NoResultsError: If one of the three files is missing.
    """
    paths = [directory / f"{field.name}.parquet" for field in fields(Results)]
    for path in paths:
        if not path.exists():
            raise NoResultsError(path, "does not exist")
    return Results(*(pd.read_parquet(path) for path in paths))


def _runs(directory: Path) -> list[Path]:
    if (directory / journal.NAME).exists():
        return [directory]
    found = [path.parent for path in directory.glob(f"*/{journal.NAME}")]
    if not found:
        raise NoResultsError(directory, "is no run and holds none" if directory.exists() else "does not exist")
    return sorted(found, key=lambda run: (_run_row(run)["began"], run.name))


def _run_row(directory: Path) -> dict[str, object]:
    found = provenance.read(directory)
    if found is None:  # without its conditions nobody can say what it may be compared with
        raise NoResultsError(directory, f"holds a journal and no {provenance.NAME}")
    last = found["sessions"][-1]
    return {
        "run": directory.name,
        **{f"plan {key}": str(value) for key, value in found["plan"].items()},
        **found["conditions"],
        "commit": last.get("commit", "unknown"),
        "began": found["sessions"][0].get("started", ""),
        "resumed": last.get("started", ""),
        "sessions": len(found["sessions"]),
    }


def _episode_row(run: str, record: EpisodeRecord) -> dict[str, object]:
    is_error = record.outcome is Outcome.ERROR
    timed = [query for query in record.queries if not (query.is_warmup or query.is_first_step or is_error)]
    steps = sum(query.n_executed for query in timed)
    return {
        "run": run,
        "suite": record.suite,
        "policy": record.policy,
        "method": record.method,
        "task": record.cell.task,
        "init_state": record.cell.init_state,
        "seed": record.cell.seed,
        "outcome": str(record.outcome),
        "success": record.outcome is Outcome.SUCCESS,
        "n_steps": record.n_steps,
        "n_queries": len(record.queries),
        "policy_ms_per_step": sum(query.policy_ms for query in timed) / steps if steps else np.nan,
        "policy_ms_total": sum(query.policy_ms for query in record.queries),
        "path_m": record.path_m,
        "jerk": record.jerk,
        "wall_s": record.wall_s,
        "attempt": record.attempt,
        "init_state_sha256": record.init_state_sha256,
        "protocol": record.protocol,
        "error": record.error,
    }


def query_row(query: Query) -> dict[str, object]:
    """Return a query's facts, with a column of its own for the time of each stage and each fact about a cache."""
    row = asdict(query)
    stages, cache = row.pop("stages_ms"), row.pop("cache")
    return (
        row
        | {f"stage_ms {name}": value for name, value in stages.items()}
        | {f"cache {name}": value for name, value in cache.items()}
    )


def check_comparable(results: Results) -> None:
    """Refuse to summarise runs together that differ in what moves pixels, physics, actions or the clock.

    Raises:
        MixedRunsError: Naming every condition that differs.
    """
    keys = [key for key in results.runs.columns if key in NEVER_COMPARED or key.startswith("environment ")]
    for _, same_suite in results.runs.groupby("plan suite", dropna=False):
        _refuse_different(same_suite, keys)
    made_by = results.episodes[["run", "suite", "policy"]].drop_duplicates()
    named = made_by.rename(columns={"policy": "name"}).merge(results.runs, on="run")
    for _, same_policy in named.groupby(["suite", "name"]):
        _refuse_different(same_policy, ["policy"])


def _refuse_different(runs: pd.DataFrame, keys: list[str]) -> None:
    """Name each condition that differs, with each value the first run that has it."""
    differing = []
    for key in (key for key in keys if key in runs):
        first = {str(value): run for value, run in zip(runs[key][::-1], runs["run"][::-1], strict=True)}
        if len(first) > 1:
            differing.append(f"{key}: {' against '.join(f'{value} ({run})' for value, run in sorted(first.items()))}")
    if differing:
        raise MixedRunsError(differing)


def summarise(results: Results, seed: int = 0) -> pd.DataFrame:
    """Return one row for every suite, policy and method, with intervals.

    Latency leaves out warm-up and the first query of an episode. Columns: `success` with Wilson limits, errors apart;
    `policy_ms` a query (median with bootstrap interval, p90); `policy_ms_per_step`, what a control step costs;
    `speedup` at that boundary, the ratio of medians over the starts that both methods finished, with an interval.

    A start that several runs played counts once, as the run that began last played it.

    Raises:
        MixedRunsError: If the runs cannot stand in one table.
    """
    check_comparable(results)
    rows = []
    once = results.episodes.drop_duplicates(EPISODE_KEY, keep="last")
    for (suite, policy), group in once.groupby(["suite", "policy"]):
        reference = group[group["method"] == REFERENCE_METHOD]
        for method in sorted(group["method"].unique(), key=lambda name: (name != REFERENCE_METHOD, name)):
            rng = np.random.default_rng(seed)
            own = group[group["method"] == method]
            row = {"suite": suite, "policy": policy, "method": method, **_success(own)}
            rows.append(row | _latency(own, results.queries, rng) | _speedup(reference, own, rng))
    return pd.DataFrame(rows)


def _success(own: pd.DataFrame) -> dict[str, object]:
    valid = own[own["outcome"] != str(Outcome.ERROR)]
    successes = int(valid["success"].sum())
    rate = stats.wilson(successes, len(valid)) if len(valid) else None
    return {
        "episodes": len(own),
        "errors": len(own) - len(valid),
        **interval_columns("success", rate),
        "steps_to_success": valid.loc[valid["success"], "n_steps"].median(),
        "policy_ms_per_success": valid["policy_ms_total"].sum() / successes if successes else np.nan,
        "queries_per_step": valid["n_queries"].sum() / max(valid["n_steps"].sum(), 1),
    }


def _latency(own: pd.DataFrame, queries: pd.DataFrame, rng: np.random.Generator) -> dict[str, object]:
    key = ["run", "method", "task", "init_state", "seed"]
    clusters = []
    if len(queries):  # a frame without rows has no columns either
        timed = queries.merge(own.loc[own["outcome"] != str(Outcome.ERROR), key], on=key)
        timed = timed[~timed["is_warmup"] & ~timed["is_first_step"]]
        clusters = [group["policy_ms"].to_numpy() for _, group in timed.groupby(key)]
    values = np.concatenate(clusters) if clusters else np.empty(0)
    per_step = own["policy_ms_per_step"].dropna().to_numpy()
    return {
        "timed_queries": len(values),
        **interval_columns("policy_ms", stats.clustered_median(clusters, rng) if clusters else None),
        "policy_ms_p90": float(np.percentile(values, 90)) if len(values) else np.nan,
        **interval_columns("policy_ms_per_step", stats.median(per_step, rng) if len(per_step) else None),
    }


def _speedup(reference: pd.DataFrame, own: pd.DataFrame, rng: np.random.Generator) -> dict[str, object]:
    key = ["task", "init_state", "seed"]
    pairs = reference.merge(own, on=key, suffixes=("_reference", "_own"))
    pairs = pairs.dropna(subset=["policy_ms_per_step_reference", "policy_ms_per_step_own"])
    if not len(pairs):
        return {"pairs": 0, **interval_columns("speedup", None)}
    before, after = (pairs[f"policy_ms_per_step_{side}"].to_numpy() for side in ("reference", "own"))
    return {"pairs": len(pairs), **interval_columns("speedup", stats.ratio_of_paired_medians(before, after, rng))}


def interval_columns(name: str, interval: stats.Interval | None) -> dict[str, float]:
    """Return an estimate and its limits under three names; not-a-number without one."""
    if interval is None:
        return {name: np.nan, f"{name}_low": np.nan, f"{name}_high": np.nan}
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def write(summary: pd.DataFrame, path: Path) -> None:
    """Replace a CSV file as a whole.

    Raises:
        ResultsWriteError: If it cannot be written.
    """
    partial = path.with_suffix(".partial")
    try:
        summary.to_csv(partial, index=False)
        partial.replace(path)
    except OSError as caught:
        raise ResultsWriteError(path, caught) from caught


LEGEND = (
    "ms: policy time (observation to actions) a query, a control step and a success; speed-up at the control step;\n"
    "steps: median to success; [95 % intervals]"
)
"""What stands under a summary."""


def to_text(summary: pd.DataFrame) -> str:
    """Return the summary as a person reads it: a block for every suite and policy, intervals in brackets."""
    if not len(summary):
        return "no episodes"
    blocks = [
        f"{suite}, policy {policy}\n{_shown(group).to_string(index=False)}"
        for (suite, policy), group in summary.groupby(["suite", "policy"], sort=False)
    ]
    return "\n\n".join([*blocks, LEGEND])


def _shown(group: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame(
        {
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


def bracketed(summary: pd.DataFrame, name: str, form: str) -> list[str]:
    """Return what `interval_columns` wrote as text: `1.24 [1.10, 1.31]`."""
    columns = (summary[name], summary[f"{name}_low"], summary[f"{name}_high"])
    return [
        "-" if np.isnan(value) else f"{form.format(value)} [{form.format(low)}, {form.format(high)}]"
        for value, low, high in zip(*columns, strict=True)
    ]
