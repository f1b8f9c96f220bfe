"""The figures of a block as SVG in the page, and the same in words for who cannot see them."""

import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from io import StringIO
from math import ceil
from typing import Any
from xml.etree import ElementTree

import matplotlib
import pandas as pd
from markupsafe import Markup
from matplotlib.axes import Axes

from vla_bench.figures import paper_figure, stage_bars, success_against_latency
from vla_bench.figures.stages import ORDER
from vla_bench.leaderboard.blocks import Block
from vla_bench.tables import REFERENCE_METHOD, Results, summarise

WIDTH_IN = 5.4
"""Width of a figure [inch]; the page scales it."""

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"

LONGEST = 34
"""Letters of a method's name in a figure."""

TEXT: Any = {"svg.fonttype": "none"}
"""Letters stay text: a tenth of the bytes of outlines, to be searched and read aloud, in the page's own font."""


@dataclass(frozen=True)
class Plot:
    """A figure in the page."""

    caption: str

    words: str
    """What it shows, as a text alternative."""

    svg: Markup


def plots(block: Block, prefix: str) -> list[Plot]:
    """Return the frontier, and where the time goes if any method says so; ids begin with `prefix`."""
    names = drawable(block.rows["method"])
    results = _renamed(block.results, names)
    summary = summarise(Results(results.runs, results.episodes, results.queries.iloc[:0]))  # times come of episodes
    found = []
    if summary["policy_ms_per_step"].notna().any():
        height_in = 3.1 + 0.17 * ceil(len(names) / 3)
        svg = _svg(lambda ax: success_against_latency(ax, summary, block.families), height_in, f"{prefix}-frontier")
        found.append(Plot("Success against policy time per control step", _frontier_words(summary, block), svg))
    queries = results.queries
    if any(f"stage_ms {stage}" in queries for stage in ORDER) and _steady(queries).any():
        svg = _svg(lambda ax: stage_bars(ax, queries), 1.3 + 0.24 * len(names), f"{prefix}-stages")
        found.append(Plot("Where a query's policy time goes", _stage_words(block.results.queries), svg))
    return found


def drawable(methods: Iterable[str]) -> dict[str, str]:
    """Return how a figure writes each name, which somebody else may have chosen.

    Matplotlib reads `$` as mathematics and leaves out of a legend what begins with an underscore.
    """
    found: dict[str, str] = {}
    for method in methods:
        text = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in method)
        text = text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"
        text = text.replace("\\", "\N{SET MINUS}").replace("$", r"\$")
        text = f" {text}" if text.startswith("_") else text
        same = sum(name.partition(" #")[0] == text for name in found.values())
        found[method] = f"{text} #{same + 1}" if same else text
    return found


def _renamed(results: Results, names: dict[str, str]) -> Results:
    frames = (results.episodes, results.queries)
    episodes, queries = (frame.assign(method=frame["method"].map(names)) if len(frame) else frame for frame in frames)
    return Results(results.runs, episodes, queries)


def _svg(draw: Callable[[Axes], None], height_in: float, prefix: str) -> Markup:
    """Return what `draw` draws as SVG of which each byte follows from the data."""
    stream = StringIO()
    with warnings.catch_warnings(), matplotlib.rc_context(TEXT):
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # the page's font may have the letter
        with paper_figure(width_in=WIDTH_IN, height_in=height_in) as ax:
            draw(ax)
            metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
            figure = ax.get_figure(root=True)
            assert figure is not None, "an Axes that was just made has a figure"
            figure.savefig(stream, format="svg", metadata=metadata, transparent=True)
    return Markup(_embedded(stream.getvalue(), prefix))


def _embedded(svg: str, prefix: str) -> str:
    """Return the drawing as an element of the page: no size, style sheet or comment, ids that no other one has."""
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{SVG}}}")  # HTML knows the names of SVG by themselves
        for name, value in list(element.attrib.items()):
            if name == "id":
                element.set(name, f"{prefix}-{value}")
            elif name == f"{{{XLINK}}}href":
                del element.attrib[name]
                element.set("href", f"#{prefix}-{value.removeprefix('#')}")
            else:
                element.set(name, re.sub(r"url\(#([^)]*)\)", rf"url(#{prefix}-\1)", value))
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("aria-hidden", "true")  # the figure around it says it in words
    return ElementTree.tostring(root, encoding="unicode")


def _frontier_words(summary: pd.DataFrame, block: Block) -> str:
    names = {name: method for method, name in drawable(block.rows["method"]).items()}
    drawn = summary.dropna(subset=["policy_ms_per_step", "success"]).sort_values("policy_ms_per_step")
    said = [
        f"{names[row['method']]} {100 * row['success']:.0f} % at {row['policy_ms_per_step']:.3g} ms"
        for _, row in drawn.iterrows()
    ]
    return f"Points, fastest first, as success at policy time per control step: {'; '.join(said)}."


def _stage_words(queries: pd.DataFrame) -> str:
    columns = {f"stage_ms {stage}": stage for stage in ORDER if f"stage_ms {stage}" in queries}
    means = queries[_steady(queries)].groupby("method")[[*columns]].mean().rename(columns=columns).fillna(0.0)
    said = []
    for method in sorted(means.index, key=lambda name: (name != REFERENCE_METHOD, name)):
        stages = ", ".join(f"{stage} {ms:.1f}" for stage, ms in means.loc[method].items() if ms >= 0.05)
        said.append(f"{method}: {stages}")
    return f"Bars of mean milliseconds a query, by stage. {'; '.join(said)}."


def _steady(queries: pd.DataFrame) -> pd.Series:
    return ~queries["is_warmup"].astype(bool) & ~queries["is_first_step"].astype(bool)
