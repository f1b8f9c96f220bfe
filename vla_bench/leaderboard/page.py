"""The page: one file that needs no other, the same bytes for the same results.

Names in results are chosen by strangers. Every one of them reaches the page as text: jinja2 escapes what stands in the
markup, `tojson` what stands in the data, ElementTree what stands in a figure, and the page's policy lets no script run
but the one whose hash it holds.
"""

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import version
from importlib.resources import files

import jinja2
import pandas as pd
from markupsafe import Markup

from vla_bench.compare.text import FRONTIER_NOTES
from vla_bench.compare.verdict import MIN_PAIRS, SPEED_TIE
from vla_bench.leaderboard.blocks import Block
from vla_bench.leaderboard.headline import Headline, headline
from vla_bench.leaderboard.plots import Plot, plots
from vla_bench.leaderboard.sources import LeftOut
from vla_bench.leaderboard.table import SHOWN, WHERE, Cell, leaderboard_df, ranked, records
from vla_bench.tables import bracketed

FILTERS = ("suite", "policy", "device", "division")

COMMIT_LETTERS = 10


@dataclass(frozen=True)
class Line:
    """One row of the page's table."""

    index: int
    """Of its record in the data."""

    rank: str

    method: str

    look: str

    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Section:
    """A block as the page shows it."""

    number: int

    id: str

    block: Block

    headline: Headline

    lines: tuple[Line, ...]

    remarks: tuple[str, ...]

    plots: tuple[Plot, ...]

    families: pd.DataFrame


def render(blocks: Sequence[Block], left_out: Sequence[LeftOut] = ()) -> str:
    """Return the page as HTML."""
    frame = leaderboard_df(blocks)
    sections, first = [], 0
    for number, block in enumerate(blocks):
        sections.append(_section(number, block, first))
        first += len(block.rows)
    script = _file("page.js")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("vla_bench", "leaderboard"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["short"] = short
    return environment.get_template("page.html").render(
        sections=sections,
        alone=[section for section in sections if not section.block.is_compared],
        left_out=left_out,
        where=WHERE,
        shown=SHOWN,
        filters={name: sorted(set(frame[name])) for name in FILTERS},
        data={"columns": [*frame.columns], "rows": records(frame)},
        style=Markup(_file("page.css")),
        script=Markup(script),
        script_hash=b64encode(sha256(script.encode()).digest()).decode(),
        margin=f"{100 * float(frame['margin'].iloc[0]):g}",
        tie=f"{SPEED_TIE:g}",
        least=MIN_PAIRS,
        frontier_notes=FRONTIER_NOTES,
        version=version("vla-bench"),
    )


def _section(number: int, block: Block, first: int) -> Section:
    name, ranks = f"block-{number}", ranked(block)
    lines = tuple(
        Line(
            first + offset,
            ranks[row["method"]],
            row["method"],
            "few" if row["too_few_pairs"] else "",
            tuple(column.cell(row) for column in (*WHERE, *SHOWN)),
        )
        for offset, (_, row) in enumerate(block.rows.assign(**block.facts).iterrows())
    )
    remarks = tuple(_remarks(block))
    return Section(
        number, name, block, headline(block), lines, remarks, tuple(plots(block, name)), _families(block.families)
    )


def _remarks(block: Block) -> list[str]:
    """Return what makes a block's numbers weaker than they look."""
    said = []
    compared = block.rows.reindex(columns=["pairs", "interleaved"]).dropna()
    if apart := int((compared["pairs"] - compared["interleaved"]).sum()):
        said.append(
            f"{apart} of {int(compared['pairs'].sum())} pairs are of two runs, not in turns: the machine may have "
            f"changed between them, and the speed-up with it."
        )
    if "-dirty" in block.facts["commit"]:
        said.append("Made from a source tree with uncommitted changes.")
    if errors := int(block.rows["errors"].sum()):
        said.append(f"{errors} episodes ended in an error; they are in no rate.")
    return said


def _families(families: pd.DataFrame) -> pd.DataFrame:
    """Return families of methods as text; empty if no family has several budgets, of which it would say nothing new."""
    if not len(families) or not (families["budgets"] > 1).any():
        return pd.DataFrame()
    return pd.DataFrame(
        {
            "family": families["family"],
            "budgets": families["budgets"].astype(str),
            "hypervolume": bracketed(families, "hypervolume", "{:.3f}"),
            "success within 90 % of the time": bracketed(families, "success_at_90", "{:.2f}"),
            "within 75 %": bracketed(families, "success_at_75", "{:.2f}"),
            "within 50 %": bracketed(families, "success_at_50", "{:.2f}"),
            "fastest that keeps success": [name or "none" for name in families["fastest"]],
        }
    )


def short(commit: str) -> str:
    """Return commits with as many letters as tell them apart."""
    parts = (one.partition("-") for one in commit.split(", "))
    return ", ".join(f"{digest[:COMMIT_LETTERS]}{dash}{mark}" for digest, dash, mark in parts)


def _file(name: str) -> str:
    return files("vla_bench.leaderboard").joinpath(name).read_text(encoding="utf-8")
