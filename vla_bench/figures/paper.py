"""How every figure looks: its size, its letters, and the one look that a method has everywhere."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from vla_bench.errors import ResultsWriteError
from vla_bench.registry import family

WIDTH_IN, HEIGHT_IN = 4.8, 3.4
"""Size of a figure [inch]: one column of a conference paper, with room for a legend."""

COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#882255", "#999933")
"""Told apart by colour-blind readers: Okabe and Ito 2008, Color Universal Design, without its yellow; then wine and
olive of Tol 2021, SRON technical note 09-002."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "h", "p", "d", "8", "H")

FAMILIES = (
    "full", "lac", "random", "pixel-difference", "fastv", "keyframe", "action-reuse", "vla-cache", "sparsevlm",
    "fixed-grid", "attention-topk", "vla-adp", "vla-pruner", "vla-acl", "specprune", "full-eager",
)  # fmt: skip
"""Methods whose look is fixed; any other's follows from its name. From the tenth on they have the colours of
the first again, with other markers."""

STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "0",
    "text.parse_math": False,  # a dollar sign in a method's name is one
}


@dataclass(frozen=True)
class Look:
    """Colour and marker: the marker tells methods apart in grey too."""

    colour: str
    marker: str


def look(method: str) -> Look:
    """Return how a method is drawn, in every figure; its budgets look the same."""
    name = family(method)
    first = name.partition("+")[0]
    index = FAMILIES.index(first) if first in FAMILIES else crc32(first.encode())
    modified = len(name.split("+")) - 1
    return Look(COLOURS[index % len(COLOURS)], MARKERS[(index + 5 * modified) % len(MARKERS)])


DASHES = ("-", "--", ":", "-.")
"""Of lines of one family: its settings share a colour."""


def dashes(methods: Iterable[str]) -> dict[str, str]:
    """Return the line style of each method; settings of one family differ, as long as there are four."""
    found: dict[str, str] = {}
    seen: dict[str, int] = {}
    for method in methods:
        first = family(method).partition("+")[0]
        found[method] = DASHES[seen.get(first, 0) % len(DASHES)]
        seen[first] = seen.get(first, 0) + 1
    return found


LEGEND_PT = 7.0
"""Size of a legend's letters."""

LEGEND_ROWS = 3
"""Rows of a legend for which a figure of the usual height has room."""


def legend_above(ax: Axes, handles: Sequence[Line2D] | None = None, title: str = "") -> None:
    """Put the legend above the axes, in as many columns as its longest entry lets fit into the figure.

    Of what has a label, or of `handles`.

    A figure that holds nothing else grows by the rows beyond the third, so that twenty methods leave the axes their
    size.
    """
    labels = ax.get_legend_handles_labels()[1] if handles is None else [str(one.get_label()) for one in handles]
    figure = ax.get_figure(root=True)
    assert figure is not None
    letter_in = 0.55 * LEGEND_PT / 72  # of DejaVu Sans, mean
    entry_in = 4 * LEGEND_PT / 72 + letter_in * max(map(len, labels), default=0)
    columns = min(3, max(1, int(0.9 * figure.get_figwidth() / entry_in)))  # it is centred on the axes, not the figure
    rows = -(-len(labels) // columns) + bool(title)
    if rows > LEGEND_ROWS and len(figure.axes) == 1:
        figure.set_figheight(figure.get_figheight() + (rows - LEGEND_ROWS) * 1.7 * LEGEND_PT / 72)
    place: Any = {"loc": "lower center", "bbox_to_anchor": (0.5, 1.0)}
    given: Any = {"title": title or None, "title_fontsize": LEGEND_PT} | ({"handles": handles} if handles else {})
    ax.legend(frameon=False, fontsize=LEGEND_PT, ncols=columns, **place, **given)


@contextmanager
def paper_figure(*paths: Path, width_in: float = WIDTH_IN, height_in: float = HEIGHT_IN) -> Iterator[Axes]:
    """Give an Axes to draw on, then write the figure to every path, in the format its suffix names.

    Raises:
        ResultsWriteError: If a path cannot be written.
    """
    with matplotlib.rc_context(STYLE):
        figure, ax = plt.subplots(figsize=(width_in, height_in), layout="constrained")
        try:
            yield ax
            for path in paths:
                path.parent.mkdir(parents=True, exist_ok=True)
                figure.savefig(path, dpi=200)
        except OSError as caught:
            raise ResultsWriteError(paths, caught) from caught
        finally:
            plt.close(figure)
