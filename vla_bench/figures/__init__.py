"""Figures as functions of an Axes and frames, the same for the command, the leaderboard and the notebooks.

| file | what it is |
| --- | --- |
| `paper.py` | size, letters, and the look of each method |
| `frontier.py` | success against policy time; success at equal time |
| `stages.py` | where a query's time goes |
| `tasks.py` | success by task and method |
| `delay.py` | success against the time of an answer |
| `cache.py` | what is reused over an episode, and how old; action distance against age |
| `command.py` | `vla-bench figure` |
"""

from vla_bench.figures.cache import age_over_episode, distance_against_age, reuse_over_episode
from vla_bench.figures.delay import success_against_delay
from vla_bench.figures.frontier import success_against_latency, success_at_equal_latency
from vla_bench.figures.paper import COLOURS, HEIGHT_IN, MARKERS, WIDTH_IN, Look, look, paper_figure
from vla_bench.figures.stages import stage_bars
from vla_bench.figures.tasks import success_by_task

__all__ = [
    "COLOURS",
    "HEIGHT_IN",
    "MARKERS",
    "WIDTH_IN",
    "Look",
    "age_over_episode",
    "distance_against_age",
    "look",
    "paper_figure",
    "reuse_over_episode",
    "stage_bars",
    "success_against_delay",
    "success_against_latency",
    "success_at_equal_latency",
    "success_by_task",
]
