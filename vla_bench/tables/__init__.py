"""Tidy frames of runs, and the summary that a reader sees first.

`runs` has a row a run, `episodes` a row an episode, `queries` a row a call of the policy. Averages are made in
`summary.py` and nowhere before.

| file | what it is |
| --- | --- |
| `frames.py` | the frames of runs, from journals or parquet |
| `sources.py` | several results as one, and what cannot stand in one table |
| `summary.py` | one row for every suite, policy and method, with intervals |
| `text.py` | the summary as a person reads it |
| `files.py` | tables as CSV, Markdown and LaTeX |
| `command.py` | `vla-bench table` |
"""

from vla_bench.tables.files import beside, write
from vla_bench.tables.frames import Results, export, load, query_row, read_exported
from vla_bench.tables.sources import check_comparable, read
from vla_bench.tables.summary import EPISODE_KEY, REFERENCE_METHOD, interval_columns, summarise
from vla_bench.tables.text import LEGEND, bracketed, shown, to_text

__all__ = [
    "EPISODE_KEY",
    "LEGEND",
    "REFERENCE_METHOD",
    "Results",
    "beside",
    "bracketed",
    "check_comparable",
    "export",
    "interval_columns",
    "load",
    "query_row",
    "read",
    "read_exported",
    "shown",
    "summarise",
    "to_text",
    "write",
]
