"""The figures of a pack: computed from its records, and compared with what it claims."""

import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from math import isclose
from pathlib import Path

from vla_bench.compare import compare_df
from vla_bench.errors import VlaBenchError
from vla_bench.submission import layout
from vla_bench.tables import REFERENCE_METHOD, Results, read, summarise

AGREEMENT = 1e-9
"""Relative difference up to which a figure is the claimed one: other versions of a library may round otherwise."""

ROW = ("suite", "policy", "method")
"""Columns that name a row."""

Table = dict[tuple[str, ...], dict[str, str]]


def computed(root: Path) -> dict[str, str]:
    """Return the claims that the runs under `root` support, by file: a comparison only where there is one to make.

    Raises:
        NoResultsError: If a run holds nothing.
        MixedRunsError: If the runs cannot stand in one table.
    """
    results = read(root / "runs")
    claims = {layout.SUMMARY: summarise(results).to_csv(index=False)}
    compared = _compared(results)
    if len(compared.episodes):
        claims[layout.COMPARISON] = compare_df(compared).to_csv(index=False)
    return claims


def differences(root: Path) -> tuple[list[str], int]:
    """Return every figure that is not what the records give, and how many figures were computed."""
    try:
        expected = computed(root)
    except VlaBenchError as caught:
        return [f"no figure can be computed: {caught}".replace(f"{root}/", "")], 0
    found: list[str] = []
    n_figures = 0
    for name in (layout.SUMMARY, layout.COMPARISON):
        path = root / name
        if name not in expected:
            found += [f"{name} is claimed; the records hold no reference with another method"] * path.exists()
            continue
        recomputed, _ = _table(expected[name])
        n_figures += sum(len(row) for row in recomputed.values())
        try:
            claimed, twice = _table(path.read_bytes().decode() if path.exists() else "")
        except (ValueError, csv.Error) as caught:
            found.append(f"{name} is no table ({type(caught).__name__}: {caught})")
            continue
        found += [f"{name}: row {_said(row)} stands in it more than once" for row in twice]
        found += [f"{name}: {one}" for one in _different(claimed, recomputed)]
    return found, n_figures


def _compared(results: Results) -> Results:
    """Return only the suites and policies that were played with the reference and another method."""
    methods = results.episodes.groupby(["suite", "policy"])["method"].transform(
        lambda played: REFERENCE_METHOD in set(played) and played.nunique() > 1
    )
    return replace(results, episodes=results.episodes[methods.astype(bool)])


def _table(text: str) -> tuple[Table, list[tuple[str, ...]]]:
    """Return rows by name with their columns, and the names that several rows have."""
    rows: Table = {}
    twice = []
    for row in csv.DictReader(io.StringIO(text), strict=True, restkey="(more)", restval="(less)"):
        name = tuple(str(row.get(column, "")) for column in ROW)
        twice += [name] if name in rows else []
        rows[name] = {str(column): str(value) for column, value in row.items() if column not in ROW}
    return rows, twice


def _different(claimed: Table, recomputed: Table) -> Iterator[str]:
    for row in (*recomputed, *(row for row in claimed if row not in recomputed)):
        if row not in claimed or row not in recomputed:
            where = "claimed and in no record" if row in claimed else "in the records and not claimed"
            yield f"row {_said(row)} is {where}"
            continue
        for column in dict.fromkeys([*recomputed[row], *claimed[row]]):
            figures = (claimed[row].get(column), recomputed[row].get(column))
            if not _agree(*figures):
                said = ["nothing" if figure in (None, "") else f"{figure[:40]!r}" for figure in figures]
                yield f"row {_said(row)}, column {column!r}: claimed {said[0]}, recomputed {said[1]}"


def _agree(one: str | None, other: str | None) -> bool:
    if one is None or other is None or one == other:
        return one == other
    try:
        return isclose(float(one), float(other), rel_tol=AGREEMENT, abs_tol=AGREEMENT)
    except ValueError:
        return False


def _said(row: tuple[str, ...]) -> str:
    return " / ".join(map(repr, row))
