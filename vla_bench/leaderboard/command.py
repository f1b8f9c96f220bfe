"""`vla-bench leaderboard`: results of several sources as one page that works offline."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from vla_bench.compare.command import fraction_of
from vla_bench.errors import OptionError, ResultsWriteError
from vla_bench.leaderboard.blocks import blocks_of
from vla_bench.leaderboard.headline import headline
from vla_bench.leaderboard.page import render
from vla_bench.leaderboard.sources import read_sources


@dataclass(frozen=True)
class Leaderboard:
    """Write one static page that says which methods are faster, at which boundary and at what cost; it works offline.

    Each source is compared on its own, as `vla-bench compare` does it: runs of two machines never pair, and ranks hold
    within one suite, policy and source. The page holds the table (sorted and filtered in the browser, complete without
    JavaScript), figures, CSV, and in words what each number is. The same results make the same bytes.

    Every suite and policy of a source needs `full`, which speed-up and difference are relative to. Example:

        vla-bench leaderboard results/robot results/released/demo --out leaderboard.html
    """

    results: Annotated[tuple[Path, ...], tyro.conf.Positional] = (Path("results"),)
    """Sources: each a run, a directory of runs of one machine, a folder that `vla-bench table --export` wrote, or a
    submission pack."""

    out: Path = Path("leaderboard.html")
    """File to write; ends in .html."""

    margin: float = 2.0
    """Success [percentage points] that a method may lose and still win or tie."""

    skip_unfit: bool = False
    """Leave out sources that would be refused (no `full`, no episode, runs that cannot be compared); the page and this
    command name them with the reason."""

    def run(self) -> int:
        """Write the page and print what it says first."""
        margin = fraction_of("--margin", self.margin)
        if not self.results:
            raise OptionError("RESULTS", self.results, "at least one source of results")
        if self.out.suffix not in (".html", ".htm"):
            raise OptionError("--out", str(self.out), "a name that ends in .html")
        sources, left_out = read_sources(self.results, self.skip_unfit)
        for one in left_out:
            print(f"left out {one.name}: {one.reason}", file=sys.stderr)
        blocks = blocks_of(sources, margin)
        _write(self.out, render(blocks, left_out))
        for block in blocks:
            print(f"{block.facts['source']}, {block.title}: {headline(block).lead}")
        print(self.out)
        return 0


def _write(path: Path, page: str) -> None:
    """Replace a file as a whole.

    Raises:
        ResultsWriteError: If it cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(page, encoding="utf-8", newline="\n")
        partial.replace(path)
    except OSError as caught:
        raise ResultsWriteError(path, caught) from caught
