"""Methods against a reference on the same starts: what changed, whether it is shown, and what a run could show.

| file | what it is |
| --- | --- |
| `paired.py` | statistics of paired outcomes: McNemar, Tango, Cochran, Holm, bootstrap |
| `power.py` | what a number of pairs can resolve, and how many a question needs |
| `pairs.py` | which episodes pair with which |
| `latency.py` | percentiles, deadlines, first queries and warm-up |
| `verdict.py` | wins, tie, worse or undecided |
| `frontier.py` | what a method attains over its budgets: hypervolume, success at equal time |
| `tables.py` | the comparison as a frame: `compare_df` |
| `text.py` | the comparison as a person reads it |
| `command.py` | `vla-bench compare` |
| `probe.py` | how long episodes take here, tried or from earlier results |
| `forecast.py` | `vla-bench plan` |
"""

from vla_bench.compare.frontier import frontier_df
from vla_bench.compare.tables import compare_df

__all__ = ["compare_df", "frontier_df"]
