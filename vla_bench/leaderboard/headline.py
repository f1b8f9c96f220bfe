"""What a block shows, in sentences that a stranger understands."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pandas as pd

from vla_bench.compare.verdict import MIN_PAIRS, MOST_NEEDED, Speed, Verdict
from vla_bench.leaderboard.blocks import Block

NAMED = 3
"""Methods of which a sentence gives figures; the table has the others."""

MINUS = "\N{MINUS SIGN}"

Describe = Callable[[pd.Series], str]


@dataclass(frozen=True)
class Sentence:
    """One thing that a block shows."""

    kind: str
    """Which of `wins`, `cost`, `decoder`, `other`, `undecided` and `few` it is, for the look."""

    about: str
    """What it is about, in a few words, and of how many methods."""

    items: tuple[tuple[str, str], ...]
    """The first few methods, each with what is said of it."""

    more: int
    """Methods that only the table names."""

    def __str__(self) -> str:
        said = [f"{method} {text}" for method, text in self.items]
        return f"{self.about}: {'; '.join([*said, f'{self.more} more'] if self.more else said)}."


@dataclass(frozen=True)
class Headline:
    """A block in one sentence, and what stands behind it."""

    lead: str

    sentences: tuple[Sentence, ...]


def headline(block: Block) -> Headline:
    """Return which methods are faster, at which boundary and cost, and how many are undecided."""
    rows = block.rows[block.rows["verdict"] != "reference"]
    if not len(rows):
        return Headline("Only the reference was played: nothing to compare.", ())
    margin = f"{100 * float(rows['margin'].iloc[0]):g}"
    verdict = rows["verdict"]
    faster = rows["speed_shows"] == str(Speed.FASTER)
    wins, undecided = rows[verdict == str(Verdict.WINS)], rows[verdict == str(Verdict.UNDECIDED)]
    costly = rows[faster & (verdict == str(Verdict.WORSE))]
    decoder = rows[(rows["decoder_speedup_low"] > 1) & ~faster]
    other = rows[~faster & (verdict != str(Verdict.UNDECIDED)) & ~rows.index.isin(decoder.index)]
    said = [
        _sentence("wins", "Faster, success kept", wins.sort_values("speedup", ascending=False), _with_cost),
        _sentence("cost", "Faster, success lost", costly.sort_values("speedup", ascending=False), _with_cost),
        _sentence("decoder", "Faster at the decoder only", decoder, _at_decoder),
        _sentence("other", "Not shown to be faster", other, _why),
        _sentence("undecided", "Undecided", undecided.sort_values(["needed", "method"]), needs),
        _sentence("few", "Too few pairs", rows[rows["too_few_pairs"]], _counting),
    ]
    return Headline(_lead(len(wins), len(undecided), len(rows), margin), tuple(one for one in said if one is not None))


def _lead(n_wins: int, n_undecided: int, n: int, margin: str) -> str:
    """Return the one sentence that has to be read."""
    undecided = f"; {n_undecided} {'is' if n_undecided == 1 else 'are'} undecided" if n_undecided else ""
    if not n_wins:
        methods = f"None of the {n} methods" if n > 1 else "The only method is not, or not yet,"
        shown = f"{'is ' * (n > 1)}shown to be faster from observation to action and to keep its success"
        return f"{methods} {shown}{undecided}."
    return (
        f"{n_wins} of {n} method{'s' * (n > 1)} {'is' if n_wins == 1 else 'are'} faster from observation to action and "
        f"lose{'s' * (n_wins == 1)} less than {margin} points of success{undecided}."
    )


def _sentence(kind: str, about: str, rows: pd.DataFrame, describe: Describe) -> Sentence | None:
    """Return what is said of the first few rows, and the number of the others; None without rows."""
    if not len(rows):
        return None
    items = tuple((str(row["method"]), describe(row)) for _, row in rows.head(NAMED).iterrows())
    return Sentence(kind, f"{about}: {len(rows)}", items, len(rows) - len(items))


def _with_cost(row: pd.Series) -> str:
    return f"{ratio(row, 'speedup')} as fast, success {points(row, 'difference')} points"


def _at_decoder(row: pd.Series) -> str:
    whole = "as a policy unknown" if pd.isna(row["speedup"]) else f"as a whole {ratio(row, 'speedup')}"
    return f"decoder {ratio(row, 'decoder_speedup')} as fast, {whole}"


def _why(row: pd.Series) -> str:
    if row["verdict"] == str(Verdict.TIE):
        return "as fast as full"
    return "slower" if row["speed_shows"] == str(Speed.SLOWER) else "loses success"


def _counting(row: pd.Series) -> str:
    return f"has {row['pairs']} of at least {MIN_PAIRS} pairs"


def needs(row: pd.Series) -> str:
    """Return how many more starts an undecided method has to play."""
    many = f"over {MOST_NEEDED}" if row["needed"] > MOST_NEEDED else f"{row['needed']:.0f}"
    return f"needs {many} more start{'s' * (many != '1')}"


def points(row: pd.Series, name: str) -> str:
    """Return a difference in percentage points with its interval, signed."""
    value, low, high = (f"{100 * row[key]:+.1f}".replace("-", MINUS) for key in limits(name))
    return f"{value} [{low}, {high}]"


def limits(name: str) -> Sequence[str]:
    """Return the names of an estimate and its limits."""
    return name, f"{name}_low", f"{name}_high"


def ratio(row: pd.Series, name: str) -> str:
    """Return a speed-up with its interval."""
    value, low, high = (f"{row[key]:.2f}" for key in limits(name))
    return f"{value}\N{MULTIPLICATION SIGN} [{low}, {high}]"
