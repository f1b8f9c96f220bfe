"""The leaderboard: results of several sources as one static page that works offline.

| file | what it is |
| --- | --- |
| `sources.py` | what is shown and how much it rests on; what is refused |
| `blocks.py` | one suite and policy of one source: its rows, compared and ranked |
| `boundaries.py` | time at the decoder and at the control step, beside policy time |
| `ranks.py` | ranks that the pairs can carry |
| `headline.py` | what a block shows, in sentences |
| `table.py` | the rows as one frame, and as cells that a person reads |
| `plots.py` | the figures of a block as SVG, and in words |
| `page.py` | the page: `page.html`, `page.css` and `page.js` with everything in it |
| `command.py` | `vla-bench leaderboard` |
"""

from vla_bench.leaderboard.blocks import Block, blocks_of
from vla_bench.leaderboard.page import render
from vla_bench.leaderboard.sources import LeftOut, Source, read_sources
from vla_bench.leaderboard.table import leaderboard_df

__all__ = ["Block", "LeftOut", "Source", "blocks_of", "leaderboard_df", "read_sources", "render"]
