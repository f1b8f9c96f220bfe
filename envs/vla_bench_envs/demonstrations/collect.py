"""`vla-bench collect`: demonstrations of scripted experts, or a policy's own episodes, as many as wanted of each task.

Which demonstrations come out depends on suite, tasks, episodes, protocol and seed, never on the number of processes or
on interruptions: processes put their attempts on a shelf each, and one writer takes them task by task, in order.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from vla_bench import provenance, registry
from vla_bench.demonstrations import layout
from vla_bench.demonstrations.layout import Layout
from vla_bench.demonstrations.writer import DatasetWriteError, DatasetWriter, OtherConditionsError
from vla_bench.errors import OptionError
from vla_bench.lock import only_writer
from vla_bench.progress import Progress
from vla_bench.protocol import Protocol
from vla_bench.suite import Suite
from vla_bench.types import Task
from vla_bench_envs.demonstrations.attempts import Shelf
from vla_bench_envs.demonstrations.crew import Crew, Job
from vla_bench_envs.demonstrations.driver import TEACHER, Driver
from vla_bench_envs.demonstrations.source import Source, preset_of, source_of

MOST_PUSHES_HZ = 5.0
"""With more, an expert hardly moves undisturbed."""

LOOK_EVERY_S = 0.5
"""Time between two looks at what the processes have put on their shelves."""


@dataclass(frozen=True)
class Collected:
    """What has been collected of one task."""

    task: str
    """Its name."""

    kept: int
    """Demonstrations in the dataset."""

    tried: int
    """Attempts, failures included."""

    mean_steps: float
    """Frames of a demonstration; NaN without one."""

    n_bytes: int
    """Size of its data and videos."""

    problems: tuple[str, ...]
    """Why attempts failed, in order."""


@dataclass(frozen=True)
class Collect:
    """Collect demonstrations of the scripted experts. Interrupt it at any moment; run it again and it goes on.

    With --driver: episodes of a policy under a method, with what the policy would have answered with everything
    computed. `vla-bench train lac` learns from them where its gates lead.
    """

    out: Path = Path("demonstrations")
    """Directory of the dataset; made if missing, continued if begun."""

    suite: str = "libero-object@1"
    """Suite of tasks, with its version; `vla-bench list` shows all."""

    episodes: int = 50
    """Demonstrations of each task."""

    tasks: tuple[int, ...] = ()
    """Indices of the tasks in the suite's standard order; none means all."""

    protocol: str = "reference"
    """Preset that says which cameras see what, at which size; `reference-fast` is for machines without a GPU."""

    seed: int = 0
    """Draws the initial states; none of them is one on which policies are evaluated."""

    pushes_hz: float = 0.0
    """Random pushes of the arm a second, from which the expert recovers; recorded is what it answers, not the push.
    Policies that are cloned from such data drift less; 0.5 is a good start."""

    driver: str = ""
    """Policy that moves the arm instead of the expert, as `reference:execute=2,ensemble=True`. Recorded is what it
    would have answered with everything computed; every episode is kept, solved or not."""

    method: str = TEACHER
    """With --driver or --lead: the method under which the policy moves the arm."""

    lead: str = ""
    """Policy that moves the arm first, for a drawn number of steps; then the expert takes over, and its answers alone
    are recorded: what to do where a policy's mistakes have led."""

    workers: int = 1
    """Processes at a time, each with a task of its own and 1.5 to 1.9 GB."""

    def run(self) -> int:
        """Print what there is of each task; return 1 if a task was given up, else 0."""
        collected = self.collect()
        print(table(collected))
        return int(any(row.kept < self.episodes for row in collected))

    def collect(self, show_progress: bool | None = None) -> list[Collected]:
        """Collect what is missing, and return what there is of each task.

        Args:
            show_progress: Whether to draw a progress bar on standard error; None draws it on a terminal only.

        Raises:
            UnknownNameError: If there is no such suite or protocol.
            NotDemonstratedError: If no expert demonstrates the suite's tasks.
            UnfitPicturesError: If the protocol's pictures are not square.
            OptionError: If tasks or numbers are out of range.
            OtherConditionsError: If the directory holds demonstrations made otherwise.
            RunLockedError: If another process collects into the same directory.
            CollectorError: If a process that plays the expert has failed.
        """
        suite = registry.suite(self.suite)
        source, protocol = source_of(suite), preset_of(suite, self.protocol)
        tasks = self._chosen(suite)
        with _lock(self.out):
            self._record_conditions(suite, source, protocol)
            writer = DatasetWriter(self.out, _form(source, protocol), [task.instruction for task in suite.tasks()])
            shelves = {task: Shelf(self.out, task.index) for task in tasks}
            jobs = [
                Job(self.out, task, self.episodes, protocol, self.seed, self.pushes_hz, self._driver, self._lead)
                for task, shelf in shelves.items()
                if not shelf.done(self.episodes)
            ]
            with Crew(jobs, self.workers).at_work() as crew, self._bar(shelves, show_progress) as bar:
                self._follow(crew, shelves, writer, bar)
            return [_summary(self.out, task, shelf, writer) for task, shelf in shelves.items()]

    def _follow(self, crew: Crew, shelves: dict[Task, Shelf], writer: DatasetWriter, bar: Progress) -> None:
        """Move demonstrations into the dataset while processes make them."""
        while crew.busy:
            try:
                crew.advance(LOOK_EVERY_S)
            finally:
                self._store(shelves, writer)
                bar.set_postfix(tried=sum(len(shelf.attempts) for shelf in shelves.values()), refresh=False)
                bar.update(self._n_kept(shelves) - bar.n)
        self._store(shelves, writer)

    def _store(self, shelves: dict[Task, Shelf], writer: DatasetWriter) -> None:
        """Put into the dataset what is next in its order: task by task, attempt by attempt."""
        for shelf in shelves.values():
            shelf.refresh()
        stored = {(row["vla_bench/task"], row["vla_bench/attempt"]) for row in writer.rows}
        for task, shelf in shelves.items():
            for attempt in shelf.kept(self.episodes):
                if (task.index, attempt.index) not in stored:
                    writer.append(shelf.episode(attempt, task.instruction, task.name))
                shelf.clear(attempt)
            if not shelf.done(self.episodes):
                return

    def _n_kept(self, shelves: dict[Task, Shelf]) -> int:
        return sum(len(shelf.kept(self.episodes)) for shelf in shelves.values())

    def _bar(self, shelves: dict[Task, Shelf], show: bool | None) -> Progress:
        return Progress(
            total=len(shelves) * self.episodes,
            initial=self._n_kept(shelves),
            unit="demonstration",
            smoothing=0.1,
            show=show,
        )

    @property
    def _driver(self) -> Driver | None:
        return Driver(self.driver, self.method) if self.driver else None

    @property
    def _lead(self) -> Driver | None:
        return Driver(self.lead, self.method) if self.lead else None

    def _chosen(self, suite: Suite) -> list[Task]:
        for option, value in (("--episodes", self.episodes), ("--workers", self.workers)):
            if value < 1:
                raise OptionError(option, value, "at least 1")
        if not 0 <= self.pushes_hz <= MOST_PUSHES_HZ:
            raise OptionError("--pushes-hz", self.pushes_hz, f"a rate from 0 to {MOST_PUSHES_HZ:g}")
        if self.driver and self.pushes_hz:
            raise OptionError("--pushes-hz", self.pushes_hz, "0 with --driver: a policy brings its own disturbance")
        if self.driver and self.lead:
            raise OptionError("--lead", self.lead, "nothing with --driver: there no expert takes over")
        if not (self.driver or self.lead) and self.method != TEACHER:
            expected = f"{TEACHER!r} without --driver and --lead: an expert moves under none"
            raise OptionError("--method", self.method, expected)
        if self.seed < 0:
            raise OptionError("--seed", self.seed, "an integer of at least 0")
        if len(set(self.tasks)) < len(self.tasks):
            raise OptionError("--tasks", self.tasks, "each index once")
        tasks = suite.tasks()
        if any(not 0 <= index < len(tasks) for index in self.tasks):
            raise OptionError("--tasks", self.tasks, f"indices from 0 to {len(tasks) - 1} ({suite.name})")
        return [tasks[index] for index in sorted(self.tasks)] if self.tasks else list(tasks)

    def _record_conditions(self, suite: Suite, source: Source, protocol: Protocol) -> None:
        """Write what must be equal for the dataset to grow: more tasks and episodes are welcome."""
        found = {
            "suite": suite.name,
            "protocol": str(protocol),
            "seed": str(self.seed),
            "pushes_hz": str(self.pushes_hz),
            **source.conditions(),
            **(self._driver.conditions() if self._driver else {}),
            **(self._lead.conditions("lead") if self._lead else {}),
        }
        before = provenance.read(self.out)
        if before is not None and (unequal := provenance.differences(before["conditions"], found)):
            raise OtherConditionsError(self.out, unequal)
        plan = {
            **asdict(self),
            "preset": self.protocol,
            "protocol": {**asdict(protocol), "hash": protocol.hash},
            "action_spec": asdict(suite.tasks()[0].action_spec),
            "out": self.out.name,
        }
        provenance.write(self.out, plan, found)


def table(collected: list[Collected]) -> str:
    """Return a line a task and one for all: kept of tried, mean steps, size; then why attempts failed."""
    width = max(len(row.task) for row in collected)
    lines = [f"{'task':{width}}  kept  tried  mean steps     MB"]
    lines += [
        f"{row.task:{width}}  {row.kept:4}  {row.tried:5}  {row.mean_steps:10.1f}  {row.n_bytes / 1e6:5.1f}"
        for row in collected
    ]
    kept, tried, n_bytes = (sum(getattr(row, key) for row in collected) for key in ("kept", "tried", "n_bytes"))
    lines.append(f"{'all':{width}}  {kept:4}  {tried:5}  {'':10}  {n_bytes / 1e6:5.1f}")
    lines += [f"not kept: {row.task}: {problem}" for row in collected for problem in row.problems]
    return "\n".join(lines)


def _form(source: Source, protocol: Protocol) -> Layout:
    return Layout(
        cameras=protocol.cameras,
        image_size=protocol.image_size,
        fps=round(protocol.control_hz),
        state_names=source.state_names,
        action_names=source.action_names,
        robot=source.robot,
    )


def _summary(directory: Path, task: Task, shelf: Shelf, writer: DatasetWriter) -> Collected:
    rows = [row for row in writer.rows if row["vla_bench/task"] == task.index]
    paths = [directory / path for row in rows for path in layout.files(row)]
    return Collected(
        task=task.name,
        kept=len(rows),
        tried=len(shelf.attempts),
        mean_steps=float(np.mean([row["length"] for row in rows])) if rows else float("nan"),
        n_bytes=sum(path.stat().st_size for path in paths),
        problems=tuple(attempt.problem for attempt in shelf.attempts if attempt.problem is not None),
    )


@contextmanager
def _lock(directory: Path) -> Iterator[None]:
    path = directory / "collect.lock"
    with ExitStack() as opened:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            opened.enter_context(only_writer(path))
        except OSError as caught:
            raise DatasetWriteError(path, caught) from caught
        yield
