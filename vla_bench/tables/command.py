"""`vla-bench table`: success, latency and speed-up of every method, with intervals."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vla_bench.errors import OptionError
from vla_bench.tables.files import beside, write
from vla_bench.tables.frames import Results, export
from vla_bench.tables.sources import read
from vla_bench.tables.summary import summarise
from vla_bench.tables.text import shown, to_text

NAME = "summary.csv"


@dataclass(frozen=True)
class Table:
    """Print success, latency and speed-up with 95 % intervals, and write them beside the results.

    For verdicts on the same starts, use `vla-bench compare`.
    """

    results: Annotated[tuple[Path, ...], tyro.conf.Positional] = (Path("results"),)
    """Directories of runs, directories that hold several, folders that `vla-bench table --export` wrote, or packs."""

    out: tuple[Path, ...] = ()
    """Files to write: .csv (all columns; fractions of 1, ms), .md or .tex; by default summary.csv in the first of the
    results."""

    export: Path | None = None
    """Also write the tidy frames runs.parquet, episodes.parquet and queries.parquet to this directory."""

    figure: tuple[Path, ...] = ()
    """Also draw success against policy time to these files, as `vla-bench figure` does; .png, .pdf or .svg."""

    def run(self) -> int:
        """Print and write the summary."""
        if not self.results:
            raise OptionError("RESULTS", self.results, "at least one directory of results")
        results = read(*self.results)
        print(written(results, *(self.out or beside(self.results[0], NAME))))
        if self.figure:
            from vla_bench.figures.command import Figure  # drawing takes seconds to import

            Figure(self.results, out=self.figure).run()
        if self.export is not None:
            print("\n".join(str(path) for path in export(results, self.export)))
        return 0


def written(results: Results, *paths: Path) -> str:
    """Write the summary to files and return it as text."""
    summary = summarise(results)
    for path in paths:
        write(summary, path, shown(summary))
    return to_text(summary)
