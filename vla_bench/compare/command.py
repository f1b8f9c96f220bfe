"""`vla-bench compare`: one verdict a method against the reference, on the same starts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pandas as pd
import tyro

from vla_bench.compare import tables, text
from vla_bench.compare.frontier import frontier_df
from vla_bench.compare.verdict import exit_status
from vla_bench.errors import OptionError
from vla_bench.tables import REFERENCE_METHOD, beside, read, write

NAME = "comparison.csv"

POINTS = (0.1, 50.0)
"""Least and greatest margin [percentage points]: 0.02 would be meant as a fraction."""


@dataclass(frozen=True)
class Compare:
    """Compare methods with the reference on the same starts: success, latency, and one verdict each, with intervals.

    Two episodes are a pair if they share suite version, task, initial state (by SHA-256) and seed. Runs that differ in
    protocol, machine, MuJoCo, renderer or fingerprint are refused, naming what differs. Limits are of 95 %.

    wins: success non-inferior (one-sided 95 % Tango limit of the difference above -margin) and faster (the interval of
    the speed-up above 1). tie: non-inferior, and the interval holds 1 and lies within a factor of 1.05 of it. worse:
    success inferior (the other one-sided limit below -margin) or slower (the interval below 1). undecided: none of
    these; then the table says how many more episodes are needed.

    Exit status: 0 when every method is decided and at least one wins, 10 when all are decided, none wins and at least
    one ties, 11 when all are worse, 12 when at least one is undecided, 2 for a mistake in the command or results that
    may not be compared, 130 when interrupted. Episodes that ended in an error are counted and shown, and change none.
    """

    results: Annotated[tuple[Path, ...], tyro.conf.Positional] = (Path("results"),)
    """Directories of runs, directories that hold several, folders that `vla-bench table --export` wrote, or packs."""

    margin: float = 2.0
    """Success [percentage points] that a method may lose and still win or tie."""

    reference: str = REFERENCE_METHOD
    """Method that every other one is compared with."""

    out: tuple[Path, ...] = ()
    """Files to write: .csv (all columns; fractions of 1, ms), .md or .tex; by default comparison.csv in the first of
    the results."""

    def run(self) -> int:
        """Print and write the comparison."""
        margin = fraction_of("--margin", self.margin)
        if not self.results:
            raise OptionError("RESULTS", self.results, "at least one directory of results")
        results = read(*self.results)
        comparison = tables.compare_df(results, reference=self.reference, margin=margin)
        print(text.to_text(comparison))
        families = frontier_df(results, margin=margin) if self.reference == REFERENCE_METHOD else pd.DataFrame()
        if len(families) and (families["budgets"] > 1).any():
            print(f"\n{text.frontier_text(families)}")
        for path in self.out or beside(self.results[0], NAME):
            write(comparison, path, text.shown(comparison))
        found = [tables.judgement(row) for _, row in comparison.iterrows()]
        return exit_status(one for one in found if one is not None)


def fraction_of(option: str, points: float) -> float:
    """Return percentage points as a fraction.

    Raises:
        OptionError: If they are out of range, as when a fraction was meant.
    """
    low, high = POINTS
    if not low <= points <= high:
        raise OptionError(option, points, f"percentage points from {low:g} to {high:g}, for example 2")
    return points / 100
