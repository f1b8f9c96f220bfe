"""Results as pandas frames: the public API of notebooks, also as `vla_bench.episodes_df` and so on.

    >>> import vla_bench
    >>> episodes = vla_bench.episodes_df("results/released/demo")
    >>> episodes.groupby("method")["success"].mean()

Sources are directories of runs, directories that hold several, or folders that `vla-bench table --export` wrote.
"""

from os import PathLike
from pathlib import Path

import pandas as pd

from vla_bench import compare, tables
from vla_bench.compare.verdict import MARGIN

Source = str | PathLike[str]


def episodes_df(*sources: Source) -> pd.DataFrame:
    """Return one row an episode: its key, outcome, steps, policy time [ms] and path [m]; the latest attempt of each.

    Raises:
        NoResultsError: If a source holds nothing.
        MixedRunsError: If runs differ in what moves pixels, physics, actions or the clock.
    """
    return _read(sources).episodes


def queries_df(*sources: Source) -> pd.DataFrame:
    """Return one row a call of the policy: times by boundary and stage [ms], rows, operations and what a cache did.

    Times of stages are in columns `stage_ms ...`, facts about a cache in columns `cache ...`.

    Raises:
        NoResultsError: If a source holds nothing.
        MixedRunsError: If runs differ in what moves pixels, physics, actions or the clock.
    """
    return _read(sources).queries


def summary_df(*sources: Source, seed: int = 0) -> pd.DataFrame:
    """Return one row for every suite, policy and method, with 95 % intervals; see `tables.summarise`.

    Raises:
        NoResultsError: If a source holds nothing.
        MixedRunsError: If runs differ in what moves pixels, physics, actions or the clock.
    """
    return tables.summarise(_read(sources), seed)


def compare_df(
    *sources: Source, reference: str = tables.REFERENCE_METHOD, margin: float = MARGIN, seed: int = 0
) -> pd.DataFrame:
    """Return one row a method against the reference on the same starts; see `compare.compare_df`.

    `margin` is the success that may be lost, as a fraction.

    Raises:
        NoResultsError: If a source holds nothing.
        MixedRunsError: If runs differ in what moves pixels, physics, actions or the clock.
        UnknownNameError: If no run holds the reference.
        MissingReferenceError: If it is missing for one policy.
        NothingToCompareError: If there is no other method.
    """
    return compare.compare_df(_read(sources), reference=reference, margin=margin, seed=seed)


def _read(sources: tuple[Source, ...]) -> tables.Results:
    return tables.read(*map(Path, sources or ("results",)))
