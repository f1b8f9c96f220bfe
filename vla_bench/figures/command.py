"""`vla-bench figure`: the figures of a paper, from results."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
import tyro
from matplotlib.axes import Axes

from vla_bench.compare.command import fraction_of
from vla_bench.compare.frontier import frontier_df
from vla_bench.errors import NoResultsError, OptionError, UnknownNameError
from vla_bench.figures.cache import age_over_episode, distance_against_age, reuse_over_episode
from vla_bench.figures.delay import success_against_delay
from vla_bench.figures.frontier import success_against_latency, success_at_equal_latency
from vla_bench.figures.paper import HEIGHT_IN, WIDTH_IN, paper_figure
from vla_bench.figures.stages import stage_bars
from vla_bench.figures.tasks import success_by_task
from vla_bench.realtime.budget import MARGIN, delay_df
from vla_bench.tables import REFERENCE_METHOD, Results, read, summarise
from vla_bench.tables.frames import AT

Kind = Literal["frontier", "equal-latency", "stages", "tasks", "reuse", "ages", "delay", "distance"]

NAMES: dict[str, str] = {
    "frontier": "success_latency",
    "equal-latency": "success_at_equal_latency",
    "stages": "stages",
    "tasks": "success_by_task",
    "reuse": "reuse_over_episode",
    "ages": "age_over_episode",
    "delay": "success_against_delay",
    "distance": "distance_against_age",
}
"""Files that are written, without suffix."""

ROW_IN = 0.24
"""Height of a method in figures that have a row for each [inch]."""


@dataclass(frozen=True)
class Figure:
    """Draw a figure from results, as PNG and PDF.

    frontier: success against policy time per control step, one point a method, with 95 % intervals, and each family's
    hypervolume. equal-latency: the best success of each family within 90, 75 and 50 % of full's time. stages: where a
    query's time goes. tasks: success by task and method. reuse, ages: what is left out over one episode, and how old it
    is. delay: success against the time of an answer (`--realtime`). distance: action distance to full computation
    against age, from what `vla-bench replay` wrote. Curves of trainings: `vla-bench train curve` and `gates-curve`.
    """

    results: Annotated[tuple[Path, ...], tyro.conf.Positional] = (Path("results"),)
    """Directories of runs, directories that hold several, or exported folders; for `distance` a replay's directory."""

    kind: Kind = "frontier"
    """Which figure."""

    out: tuple[Path, ...] = ()
    """Files to write, in the format of their suffix; by default a .png and a .pdf in the first of the results."""

    suite: str = ""
    """Suite to show; by default all for `frontier`, the only one for others."""

    policy: str = ""
    """Policy to show, likewise."""

    methods: tuple[str, ...] = ()
    """Methods to show; by default all."""

    task: int = 0
    """Task of the episode that `reuse` and `ages` show."""

    init_state: int = 0
    """Initial state of the episode that `reuse` and `ages` show."""

    margin: float = 100 * MARGIN
    """Success [percentage points] that a delay may cost, for the mark of what may be spent in `delay`."""

    def run(self) -> int:
        """Write the figure."""
        if not self.results:
            raise OptionError("RESULTS", self.results, "at least one directory of results")
        paths = self.out or tuple(self._beside() / f"{NAMES[self.kind]}.{suffix}" for suffix in ("png", "pdf"))
        draw, size = self._replayed() if self.kind == "distance" else self._drawn()
        with paper_figure(*paths, width_in=size[0], height_in=size[1]) as ax:
            draw(ax)
        print("\n".join(str(path) for path in paths))
        return 0

    def _beside(self) -> Path:
        """Return the directory that files go to if nobody says where: the results', or of a pack the one it lies in."""
        return self.results[0].parent if self.results[0].is_file() else self.results[0]

    def _drawn(self) -> tuple[Callable[[Axes], None], tuple[float, float]]:
        """Return what draws, and the figure's size [inch]."""
        results = self._chosen(read(*self.results))
        if self.kind == "delay":
            delays = delay_df(results, fraction_of("--margin", self.margin))
            return lambda ax: success_against_delay(ax, delays), (WIDTH_IN, HEIGHT_IN)
        rows_in = 1.3 + ROW_IN * results.episodes["method"].nunique()
        match self.kind:
            case "equal-latency":
                families = frontier_df(results)
                size = WIDTH_IN, 1.3 + 1.6 * ROW_IN * max(1, len(families))
                return lambda ax: success_at_equal_latency(ax, families), size
            case "stages":
                return lambda ax: stage_bars(ax, results.queries), (WIDTH_IN, rows_in)
            case "tasks":
                return lambda ax: success_by_task(ax, results.episodes), (WIDTH_IN, rows_in)
            case "reuse" | "ages":
                key = (results.queries["task"] == self.task) & (results.queries["init_state"] == self.init_state)
                if not key.any():
                    raise NoResultsError(self.results[0], f"holds no task {self.task} from state {self.init_state}")
                own = results.queries[key].drop_duplicates(["method", "step"], keep="last")
                draw = reuse_over_episode if self.kind == "reuse" else age_over_episode
                return lambda ax: draw(ax, own), (WIDTH_IN, HEIGHT_IN)
        families = frontier_df(results)
        return lambda ax: success_against_latency(ax, summarise(results), families), (WIDTH_IN, HEIGHT_IN)

    def _replayed(self) -> tuple[Callable[[Axes], None], tuple[float, float]]:
        paths = [self.results[0] / f"{name}.parquet" for name in ("steps", "queries")]
        for path in paths:
            if not path.exists():
                raise NoResultsError(path, "does not exist, and 'distance' needs what 'vla-bench replay' wrote")
        steps, queries = (self._methods(pd.read_parquet(path)) for path in paths)
        return lambda ax: distance_against_age(ax, steps, queries), (WIDTH_IN, HEIGHT_IN)

    def _chosen(self, results: Results) -> Results:
        """Return the results of one suite and policy, or of all for the frontier.

        Raises:
            UnknownNameError: If a name is none of the results'.
            OptionError: If there are several to choose from.
        """
        episodes = results.episodes
        for column, name in (("suite", self.suite), ("policy", self.policy)):
            names = episodes[column].str.partition(AT)[0] if self.kind == "delay" else episodes[column]
            known = sorted(set(names))
            if name and name not in known:
                raise UnknownNameError(f"{column} in these results", name, known)
            if name:
                episodes = episodes[names == name]
            elif len(known) > 1 and self.kind not in ("frontier", "delay"):
                raise OptionError(f"--{column}", "", f"one of {', '.join(known)}: '{self.kind}' shows one {column}")
        episodes = self._methods(episodes)
        key = ["run", "method", "task", "init_state", "seed"]
        queries = results.queries
        if len(queries):  # a frame without rows has no columns either
            queries = queries.merge(episodes[key], on=key)
        return Results(results.runs, episodes, queries)

    def _methods(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of the methods that were asked for.

        Raises:
            UnknownNameError: If one is none of the results'.
        """
        known = set(frame["method"])
        for name in self.methods:
            if name not in known:
                raise UnknownNameError("method in these results", name, known)
        always = {REFERENCE_METHOD} if self.kind in ("frontier", "equal-latency") else set()  # their unit is its time
        return frame[frame["method"].isin({*self.methods, *always})] if self.methods else frame
