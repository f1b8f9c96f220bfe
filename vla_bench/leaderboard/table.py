"""The rows of all blocks: as one frame for programs, and as cells that a person reads."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vla_bench.compare.tables import judgement
from vla_bench.compare.verdict import MIN_PAIRS, Judgement
from vla_bench.leaderboard.blocks import FACTS, Block
from vla_bench.leaderboard.headline import limits, needs, points, ratio

COLUMNS = (
    "rank", "method", "verdict", "speedup", "speedup_low", "speedup_high", "success", "success_low", "success_high",
    "difference", "difference_low", "difference_high", "policy_ms_p50", "policy_ms_p90", "policy_ms_per_step",
    "decoder_ms_p50", "decoder_speedup", "decoder_speedup_low", "decoder_speedup_high", "step_ms_p50", "step_speedup",
    "step_speedup_low", "step_speedup_high", "pairs", "too_few_pairs", "errors", "gained", "lost", "needed",
    "success_shows", "speed_shows", "margin", "division",
)  # fmt: skip
"""What the frame and the CSV hold of a row, before `FACTS`: fractions of 1, times in ms, limits of 95 %."""

DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class Cell:
    """What a cell says, and below it, smaller, what it rests on."""

    text: str

    detail: str = ""

    look: str = ""
    """Class of the cell."""


@dataclass(frozen=True)
class Column:
    """One column of the page's table."""

    key: str
    """Column of the frame that it is sorted by."""

    label: str

    unit: str
    """Boundary or unit, below the label."""

    cell: Callable[[pd.Series], Cell]

    first: str = "descending"
    """Order of the first press."""

    is_number: bool = True

    look: str = ""
    """Class of header and cells."""


def leaderboard_df(blocks: Iterable[Block]) -> pd.DataFrame:
    """Return the rows of all blocks as one frame, in the order of the page: `COLUMNS`, then `FACTS`."""
    frames = [block.rows.reindex(columns=[*COLUMNS]).assign(**block.facts) for block in blocks]
    return pd.concat([frame.astype(object) for frame in frames], ignore_index=True).infer_objects()[[*COLUMNS, *FACTS]]


def records(frame: pd.DataFrame) -> list[list[Any]]:
    """Return the frame's rows as plain JSON values, None where there is none."""
    return [[_plain(value) for value in row] for row in frame.itertuples(index=False, name=None)]


def ranked(block: Block) -> dict[str, str]:
    """Return each method's rank as text, with `=` where it is shared."""
    counts = block.rows["rank"].value_counts()
    return {
        row["method"]: DASH if pd.isna(row["rank"]) else f"{row['rank']}{'=' * int(counts[row['rank']] > 1)}"
        for _, row in block.rows.iterrows()
    }


def _plain(value: Any) -> Any:
    if pd.isna(value) or value in (float("inf"), float("-inf")):
        return None
    return value.item() if hasattr(value, "item") else value


def _verdict(row: pd.Series) -> Cell:
    found = judgement(row)
    if found is None:
        return Cell("reference", "", "reference")
    return Cell(row["verdict"], _reason(row, found), row["verdict"])


def _reason(row: pd.Series, found: Judgement) -> str:
    match row["verdict"]:
        case "undecided":
            return needs(row)
        case "worse":
            return str(found).partition("(")[2].rstrip(")").replace("success", "success lost")
    return ""


def _pairs(row: pd.Series) -> Cell:
    if pd.isna(row["pairs"]):
        return Cell(DASH)
    return Cell(
        f"{row['pairs']}", f"too few (<{MIN_PAIRS})" if row["too_few_pairs"] else "", "few" * row["too_few_pairs"]
    )


def _speedup(row: pd.Series) -> Cell:
    if pd.isna(row["speedup"]):
        return Cell(DASH)
    value, _, interval = ratio(row, "speedup").partition(" ")
    return Cell(value, interval)


def _success(row: pd.Series) -> Cell:
    if pd.isna(row["success"]):
        return Cell(DASH)
    value, low, high = (f"{100 * row[key]:.1f}" for key in limits("success"))
    return Cell(value, f"[{low}, {high}]")


def _difference(row: pd.Series) -> Cell:
    if pd.isna(row["difference"]):
        return Cell(DASH)
    value, _, interval = points(row, "difference").partition(" ")
    return Cell(value, interval)


def _time(boundary: str, detail: Callable[[pd.Series], str]) -> Callable[[pd.Series], Cell]:
    return lambda row: Cell(milliseconds(row[f"{boundary}_ms_p50"]), detail(row))


def _per_step(row: pd.Series) -> str:
    return "" if pd.isna(row["policy_ms_per_step"]) else f"{milliseconds(row['policy_ms_per_step'])} per step"


def _at(boundary: str) -> Callable[[pd.Series], str]:
    name = f"{boundary}_speedup"
    return lambda row: "" if pd.isna(row[name]) else ratio(row, name)


def milliseconds(value: float) -> str:
    """Return a time with three digits that count."""
    if pd.isna(value):
        return DASH
    return f"{value:.{max(0, 2 - (value >= 10) - (value >= 100))}f}"


def _text(name: str) -> Callable[[pd.Series], Cell]:
    return lambda row: Cell(str(row[name]))


WHERE = tuple(
    Column(name, name.capitalize(), "", _text(name), "ascending", is_number=False, look="where")
    for name in ("suite", "policy", "device", "source")
)
"""Columns that a block's own heading holds; shown where blocks are mixed."""

SHOWN = (
    Column("verdict", "Verdict", "against full", _verdict, "ascending", is_number=False),
    Column("speedup", "Speed-up", "policy: observation to action", _speedup),
    Column("success", "Success", "% of pairs", _success),
    Column("difference", "Difference", "to full, points", _difference),
    Column("policy_ms_p50", "Policy ms", "observation to action, p50 a query", _time("policy", _per_step), "ascending"),
    Column("decoder_ms_p50", "Decoder ms", "decoder only, p50 a query", _time("decoder", _at("decoder")), "ascending"),
    Column("step_ms_p50", "Step ms", "camera to action, p50 a query", _time("step", _at("step")), "ascending"),
    Column("pairs", "Pairs", "n", _pairs),
    Column("errors", "Errors", "episodes", _text("errors")),
    Column("division", "Division", "what it gives up", _text("division"), "ascending", is_number=False),
    Column("evidence", "Evidence", "of the source", _text("evidence"), "ascending", is_number=False),
)
"""Columns after rank and method."""
