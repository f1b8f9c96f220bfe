"""`vla-bench delay`: how many milliseconds a suite allows."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vla_bench.compare.command import fraction_of
from vla_bench.errors import OptionError
from vla_bench.realtime.budget import MARGIN, delay_df, to_text
from vla_bench.tables import beside, read, write

NAME = "delay.csv"


@dataclass(frozen=True)
class Delay:
    """Show success against the time of an answer, and the milliseconds that may be spent.

    Give it runs of one plan without `--realtime` and with several: `vla-bench run --realtime 50`, `100`, ... Each start
    is compared with itself without delay. What may be spent is the greatest tested delay up to which success is
    non-inferior (one-sided 95 % Tango limit of the difference above -margin).
    """

    results: Annotated[tuple[Path, ...], tyro.conf.Positional] = (Path("results"),)
    """Directories of runs, directories that hold several, folders that `vla-bench table --export` wrote, or packs."""

    margin: float = 100 * MARGIN
    """Success [percentage points] that a delay may cost."""

    out: tuple[Path, ...] = ()
    """Files to write: .csv (all columns; fractions of 1, ms), .md or .tex; by default delay.csv in the first of the
    results."""

    def run(self) -> int:
        """Print and write the table."""
        if not self.results:
            raise OptionError("RESULTS", self.results, "at least one directory of results")
        frame = delay_df(read(*self.results), fraction_of("--margin", self.margin))
        print(to_text(frame))
        for path in self.out or beside(self.results[0], NAME):
            write(frame, path, frame)
        return 0
