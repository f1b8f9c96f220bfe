"""The frames of runs: from their journals, or from the parquet files that a release holds."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd

from vla_bench import journal, provenance
from vla_bench.errors import NoResultsError, ResultsWriteError
from vla_bench.types import EpisodeRecord, Outcome, Query

AT = " @ "
"""Between a policy's name and the clock on which it was played."""


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
        clock = clock_of(runs[-1])
        for record in records:
            row = _episode_row(directory.name, record, clock)
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
    results = Results(*(pd.read_parquet(path) for path in paths))
    for column, unsaid in (("division", ""), ("timed", True)):
        if column not in results.episodes:  # exported before it was written down
            results.episodes[column] = unsaid
    return results


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
        "threads": last.get("machine", {}).get("OMP_NUM_THREADS", ""),
        "began": found["sessions"][0].get("started", ""),
        "resumed": last.get("started", ""),
        "sessions": len(found["sessions"]),
    }


def clock_of(run: Mapping[str, object]) -> str:
    """Return latency in the loop as it stands behind a policy's name, `80 ms, hold`; empty without any."""
    return f"{run['realtime']}, {run['waiting']}" if run.get("realtime") else ""


def _episode_row(run: str, record: EpisodeRecord, clock: str = "") -> dict[str, object]:
    """Return the row of an episode; a policy on another clock is another policy, so that no table mixes them."""
    is_error = record.outcome is Outcome.ERROR
    timed = [query for query in record.queries if not (query.is_warmup or query.is_first_step or is_error)]
    steps = sum(query.n_executed + query.n_waited for query in timed)
    return {
        "run": run,
        "suite": record.suite,
        "policy": f"{record.policy}{AT}{clock}" if clock else record.policy,
        "method": record.method,
        "division": record.division,
        "task": record.cell.task,
        "init_state": record.cell.init_state,
        "seed": record.cell.seed,
        "outcome": str(record.outcome),
        "success": record.outcome is Outcome.SUCCESS,
        "n_steps": record.n_steps,
        "n_queries": len(record.queries),
        "policy_ms_per_step": sum(query.policy_ms for query in timed) / steps if steps else np.nan,
        "policy_ms_total": sum(query.policy_ms for query in record.queries) if record.timed else np.nan,
        "path_m": record.path_m,
        "jerk": record.jerk,
        "wall_s": record.wall_s,
        "attempt": record.attempt,
        "timed": record.timed,
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
