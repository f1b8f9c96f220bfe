"""Which episodes pair with which: the same suite version, task, initial state by its hash, and seed."""

import pandas as pd

from vla_bench.errors import VlaBenchError
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
