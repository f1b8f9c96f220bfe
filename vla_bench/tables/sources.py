"""Several results as one, and what cannot stand in one table."""

from dataclasses import fields
from pathlib import Path

import pandas as pd

from vla_bench.errors import MixedRunsError
from vla_bench.tables.frames import Results, load, read_exported

NEVER_COMPARED = ("protocol", "processor", "accelerator")
"""Conditions, besides all of the environment's, that episodes in one table must share."""


def read(*sources: Path | Results) -> Results:
    """Return the frames of several results as one: directories of runs, exported folders, packs, or frames themselves.

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
    check_comparable(results)
    _check_initial_states(results.episodes)
    return results


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


def _read_one(source: Path) -> Results:
    if source.is_file():
        from vla_bench.submission import opened  # which itself reads with this package

        return opened(source)
    return read_exported(source) if (source / "runs.parquet").exists() else load(source)


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
