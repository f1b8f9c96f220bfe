"""`vla-bench replay`: drive methods over recorded episodes."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import pandas as pd
import tyro

from vla_bench import registry
from vla_bench.errors import OptionError, ResultsWriteError
from vla_bench.replay import tables
from vla_bench.replay.loop import replay
from vla_bench.replay.masks import MaskFilms
from vla_bench.replay.plan import ReplayPlan
from vla_bench.tables import write

SUMMARY, STAGES = "summary.csv", "stages.csv"


@dataclass(frozen=True)
class Replay:
    """Drive methods over recorded episodes, without a simulator: what they change in the actions, and what they cost.

    Every method is shown the same pictures. Ends with a table: distance to the actions of the full computation,
    gripper commands that flip, operations, time, and which stage made a method slower. Run it again to resume.
    An open loop says nothing about success: for that, use `vla-bench run`.

    Exit status: 0 when every recording was replayed, 1 when some ended in an error (retried when it is run again),
    2 for a mistake in the command, 130 when interrupted.
    """

    plan: Annotated[ReplayPlan, tyro.conf.arg(name="")] = field(
        default_factory=lambda: ReplayPlan(Path("demonstrations"))
    )
    """What to replay."""

    out: Path = Path("results/replay")
    """Directory under which the replay gets a directory of its own, named by the plan's hash."""

    films: int = 1
    """Recordings of which a film shows which patches each method recomputes, reuses and deletes; the first ones."""

    def run(self) -> int:
        """Replay what is missing, then print and write the summary."""
        if self.films < 0:
            raise OptionError("--films", self.films, "a number of recordings, or 0 for none")
        plan = self.plan.check()
        directory = self.out / plan.id
        n_frames = sum(plan.dataset.episodes[index]["length"] for index in plan.chosen)
        print(
            f"{len(plan.chosen)} recordings, {n_frames} frames, {len(plan.methods)} methods in {directory}",
            file=sys.stderr,
        )
        films = MaskFilms(directory / "films", plan.chosen[: self.films])
        records = replay(plan, directory, films)
        records = [record for record in records if record.method in plan.methods and record.episode in plan.chosen]
        spec = registry.policy(plan.policy).action_spec
        summary, by_stage = tables.summarise(records, spec), tables.stages(records)
        print(tables.to_text(summary, by_stage))
        write(summary.assign(verdict=tables.verdicts(summary, by_stage)), directory / SUMMARY)
        write(by_stage.reset_index(), directory / STAGES)
        _write_frames(directory, steps=tables.steps(records, spec), queries=tables.queries(records))
        for path in films.paths:
            print(path)
        failed = [record for record in records if record.is_broken]
        for record in failed[:5]:
            print(f"error: {record.method} recording {record.episode}: {record.error}")
        return 1 if failed else 0


def _write_frames(directory: Path, **frames: pd.DataFrame) -> None:
    """Write tidy frames as parquet, each replaced as a whole."""
    for name, frame in frames.items():
        path = directory / f"{name}.parquet"
        try:
            frame.to_parquet(path.with_suffix(".partial"), index=False)
            path.with_suffix(".partial").replace(path)
        except OSError as caught:
            raise ResultsWriteError(path, caught) from caught
