"""Which episodes pair with which: the same suite version, task, initial state by its hash, and seed."""

from dataclasses import fields
from pathlib import Path

import pandas as pd

from vla_bench import tables
from vla_bench.errors import MixedRunsError, VlaBenchError
from vla_bench.tables import Results
from vla_bench.types import Outcome

START = ["suite", "task", "init_state_sha256", "seed"]
"""What two episodes must share to be a pair; an initial state is known by its bytes, not by its index."""

EPISODE = ["run", "method", "task", "init_state", "seed"]
"""What a query shares with its episode."""

TIME = "policy_ms_per_step"
"""Column of an episode that a speed-up is made of: policy time [ms] a control step, without warm-up and first query."""


class MissingReferenceError(VlaBenchError):
    """Refuse a comparison with a method that was not played."""

    def __init__(self, reference: str, suite: str, policy: str, methods: list[str]) -> None:
        super().__init__(
            f"no episode of {reference!r} in {suite}, policy {policy}; found {', '.join(methods)}: add results that "
            f"hold it, or name another method with --reference"
        )


class NothingToCompareError(VlaBenchError):
    """Refuse results that hold no other method than the reference."""

    def __init__(self, reference: str) -> None:
        super().__init__(
            f"the results hold no other method than {reference!r}: add runs of the same suite and policy with another "
            f"method, for example 'vla-bench run --method {reference} --method action-reuse:2'"
        )


def read(*sources: Path | Results) -> Results:
    """Return the frames of several results as one: directories of runs, exported folders, or frames themselves.

    A run's name is its plan's: where two sources hold runs of one name, the later ones are called by their source too.

    Raises:
        NoResultsError: If a source holds nothing.
        MixedRunsError: If two runs of a suite differ in protocol, machine, simulator, renderer or fingerprint, or if an
            initial state of one index has two contents.
    """
    parts: list[Results] = []
    taken: set[str] = set()
    for source in sources:
        found = source if isinstance(source, Results) else _read_one(source)
        names = {run: run if run not in taken else f"{run} ({source})" for run in found.runs["run"]}
        taken |= set(names.values())
        parts.append(_renamed(found, names))
    if len(parts) == 1:
        results = parts[0]
    else:
        frames = {field.name: [getattr(part, field.name) for part in parts] for field in fields(Results)}
        results = Results(
            **{
                name: pd.concat([one for one in several if len(one)] or several[:1], ignore_index=True)
                for name, several in frames.items()
            }
        )
    tables.check_comparable(results)
    _check_initial_states(results.episodes)
    return results


def finished(results: Results) -> pd.DataFrame:
    """Return the episodes with an outcome that counts, each run's in its order of time, in column `turn`."""
    began = results.runs.get("began", pd.Series("", index=results.runs.index)).astype(str)
    order = results.runs["run"].loc[began.sort_values(kind="stable").index]
    turn = {run: position for position, run in enumerate(order)}
    episodes = results.episodes[results.episodes["outcome"] != str(Outcome.ERROR)]
    return episodes.assign(turn=episodes["run"].map(turn)).sort_values("turn", kind="stable")


def latest(episodes: pd.DataFrame) -> pd.DataFrame:
    """Return one episode for each policy, method and start: the latest, where several runs hold it."""
    return episodes.drop_duplicates(["policy", "method", *START], keep="last")


def paired(episodes: pd.DataFrame, reference: str, method: str) -> pd.DataFrame:
    """Return one row for each start that both methods finished, from what `finished` returned for one policy.

    Columns end in `_reference` and `_own`; `interleaved` says whether both episodes are of one run, in which methods
    take turns. Where several runs hold a start, such pairs come first, then the latest.
    """
    columns = [*START, "run", "turn", "success", TIME]
    sides = [episodes.loc[episodes["method"] == name, columns] for name in (reference, method)]
    both = sides[0].merge(sides[1], on=START, suffixes=("_reference", "_own"))
    both["interleaved"] = both["run_reference"] == both["run_own"]
    both = both.sort_values(["interleaved", "turn_own", "turn_reference"], kind="stable")
    return both.drop_duplicates(START, keep="last").sort_values(START, ignore_index=True)


def blocks(episodes: pd.DataFrame) -> pd.DataFrame:
    """Return success by start and method, for the starts that all methods finished."""
    table = latest(episodes).pivot_table(index=START, columns="method", values="success", aggfunc="last")
    return table.dropna().astype(bool)


def n_errors(own: pd.DataFrame) -> int:
    """Return the number of a method's starts that only ever ended in an error."""
    is_error = own["outcome"] == str(Outcome.ERROR)
    start = ["task", "init_state", "seed"]  # what raised before its first observation has no hash
    broken, whole = (set(own.loc[rows, start].itertuples(index=False, name=None)) for rows in (is_error, ~is_error))
    return len(broken - whole)


def _read_one(source: Path) -> Results:
    return tables.read_exported(source) if (source / "runs.parquet").exists() else tables.load(source)


def _renamed(found: Results, names: dict[str, str]) -> Results:
    if all(old == new for old, new in names.items()):
        return found
    frames = {field.name: getattr(found, field.name) for field in fields(Results)}
    return Results(
        **{
            name: frame.assign(run=frame["run"].map(names)) if "run" in frame else frame
            for name, frame in frames.items()
        }
    )


def _check_initial_states(episodes: pd.DataFrame) -> None:
    """Refuse starts that are called the same and are not: pairing by hash would leave them out without a word."""
    name, digest = ["suite", "task", "init_state", "seed"], "init_state_sha256"
    states = episodes.loc[episodes[digest] != "", [*name, digest]].drop_duplicates()
    differing = states[states.duplicated(name, keep=False)].sort_values([*name, digest])
    if len(differing):
        suite, task, init_state, _, _ = differing.iloc[0]
        found = " against ".join(digest[:12] for digest in differing[digest].iloc[:2])
        raise MixedRunsError([f"initial state {init_state} of task {task} in {suite}: {found}"])
