"""From a plan to a journal: every start, every method in its turn, what is finished skipped."""

import logging
import os
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TypeAlias

from vla_bench import journal, provenance, registry
from vla_bench.cluster.errors import MissingRayError
from vla_bench.cluster.options import FleetOptions
from vla_bench.contestant import Contestant
from vla_bench.errors import OptionError, RunAbortedError
from vla_bench.parallel import dealing
from vla_bench.parallel.crew import Crew, CrewOptions
from vla_bench.plan import ResolvedPlan
from vla_bench.policy import Policy, PrivilegedPolicy
from vla_bench.progress import Progress
from vla_bench.rollout import run_episode
from vla_bench.types import Cell, EpisodeRecord, Outcome

log = logging.getLogger(__name__)

MAX_ERRORS_IN_A_ROW = 3
"""Episodes that may raise one after the other before the run stops: then nothing works."""

Together: TypeAlias = CrewOptions | FleetOptions


def run(
    plan: ResolvedPlan, directory: Path, show_progress: bool | None = None, crew: Together | None = None,
    shard: tuple[int, int] = (1, 1),
) -> list[EpisodeRecord]:  # fmt: skip
    """Play every episode of the plan that `directory` does not hold yet, and return the latest attempt of each.

    Interrupt it at any moment: run it again and it goes on, with at most the episode in flight to repeat.

    Args:
        plan: What to play.
        directory: Where the journal and the provenance lie; made if missing.
        show_progress: Whether to draw a progress bar on standard error; None draws it on a terminal only.
        crew: How other processes, here or on a cluster, play; None plays in this one, which nobody watches. A timed
            plan may be played by one worker that has the policy to itself.
        shard: Which part of how many is played: 1 is the first.

    Raises:
        OptionError: If a timed plan is to be played by several workers, by one that shares the policy, or with more
            threads than processors.
        CannotWorkError: If a worker cannot make its environment or policy.
        NoClusterError: If there is no cluster where one should be.
        ResumeError: If the directory holds episodes of another plan or of other conditions.
        RunAbortedError: After three errors in a row.
    """
    if plan.timed:
        _check_threads()
        if crew is not None:
            _check_single_stream(crew)
    with journal.writing(directory) as pages:
        provenance.check_plan(directory, plan.to_dict())
        records = journal.read(directory)
        mine = _turns(plan, shard)
        done = journal.finished(records)
        todo = [(cell, method) for cell, method in mine if (method, cell) not in done]
        bar = Progress(
            total=len(mine),
            initial=len(mine) - len(todo),
            unit="episode",
            show=show_progress,
        )
        with bar:
            if todo:
                play = _play if crew is None else partial(_play_together, crew)
                how = {"shard": f"{shard[0]}/{shard[1]}"} if shard != (1, 1) else {}
                attempts = Counter(record.key for record in records)
                records += play(plan, directory, pages, todo, attempts, bar, how)
    return journal.latest(records)


def _check_single_stream(crew: Together) -> None:
    """Refuse what would run beside the policy, or between it and its clock."""
    option, found, expected = "--workers", crew.workers, "1"
    if isinstance(crew, FleetOptions):
        option, found, expected = "--cluster", crew.address, "none"
    elif crew.workers == 1:
        if crew.share is False:
            return
        option, found, expected = "--share", crew.share, "False"
    why = "for a timed plan, in which nothing may run beside: add --no-timed to measure success alone"
    raise OptionError(option, found, f"{expected} {why}")


def _check_threads() -> None:
    """Refuse threads that would take turns on one processor."""
    n_processors = _n_processors()
    for variable in (name for name in provenance.THREADS if name.endswith("_THREADS")):
        wanted = os.environ.get(variable, "")
        if wanted.isdecimal() and int(wanted) > n_processors:
            expected = (
                f"at most {n_processors}, the processors that this process may use, for a timed plan: add --no-timed "
                f"to measure success alone"
            )
            raise OptionError(variable, wanted, expected)


def _n_processors() -> int:
    """Return the processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shard_of(text: str) -> tuple[int, int]:
    """Return which part of how many `2/8` means; all of one, if it is empty.

    Raises:
        OptionError: If it is nothing of the kind.
    """
    index, slash, count = text.partition("/")
    if not text:
        return 1, 1
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise OptionError("--shard", text, "a part and their number, such as 2/8")
    return int(index), int(count)


def _turns(plan: ResolvedPlan, shard: tuple[int, int]) -> list[tuple[Cell, str]]:
    """Return all turns of a part: starts are dealt out in turn, each with all methods, which pairs need."""
    index, count = shard
    return [(cell, method) for cell in list(plan.cells())[index - 1 :: count] for method in plan.turns(cell)]


def _play(
    plan: ResolvedPlan,
    directory: Path,
    pages: journal.Journal,
    todo: list[tuple[Cell, str]],
    attempts: Counter,
    bar: Progress,
    how: dict[str, str],
) -> list[EpisodeRecord]:
    policy = registry.policy(plan.policy)
    contestants = {method: Contestant.of(method, policy, plan.timed) for method in plan.methods}
    tasks = {task.index: task for task in plan.tasks}
    for contestant in contestants.values():
        contestant.check(plan.tasks[0])
    bar.set_description("fingerprint of physics and pixels")
    physics = plan.suite.fingerprint(plan.protocol)
    found = provenance.conditions(str(plan.protocol), policy.fingerprint, physics) | plan.clock
    provenance.write(directory, plan.to_dict(), found, **how)
    env = plan.suite.make(plan.protocol)
    played: list[EpisodeRecord] = []
    try:
        _attach(policy, env)
        for cell, method in todo:
            bar.set_description(f"task {cell.task} state {cell.init_state} {method}")
            attempt = attempts[method, cell] + 1
            task = tasks[cell.task]
            record = run_episode(env, contestants[method], task, cell, plan.protocol, attempt, plan.realtime)
            pages.append(record)
            played.append(record)
            bar.update()
            _stop_if_nothing_works(played)
    finally:
        env.close()
    return played


def _play_together(
    options: Together,
    plan: ResolvedPlan,
    directory: Path,
    pages: journal.Journal,
    todo: list[tuple[Cell, str]],
    attempts: Counter,
    bar: Progress,
    how: dict[str, str],
) -> list[EpisodeRecord]:
    played: list[EpisodeRecord] = []
    ended: list[EpisodeRecord] = []

    def done(record: EpisodeRecord, again: bool) -> None:
        pages.append(record)
        played.append(record)
        if not record.is_broken:
            bar.update()
        if not again:  # one node takes many episodes with it: that says nothing of the others
            ended.append(record)
            _stop_if_nothing_works(ended)

    bar.set_description("fingerprint of physics and pixels")
    with _together(plan, options).at_work() as hands:
        how |= {"workers": str(options.workers)}
        how |= {"crews": str(options.crews)} if isinstance(options, FleetOptions) else {}
        provenance.write(directory, plan.to_dict(), hands.conditions(), **how)
        bar.set_description(f"{options.workers} workers")
        dealing.play(hands, todo, attempts, done)
    return played


def _together(plan: ResolvedPlan, options: Together) -> dealing.Band:
    if isinstance(options, CrewOptions):
        return Crew(plan, options)
    try:
        from vla_bench.cluster.fleet import Fleet
    except ImportError as caught:
        raise MissingRayError(caught) from None
    return Fleet(plan, options)


def _attach(policy: Policy, env: object) -> None:
    if isinstance(policy, PrivilegedPolicy):
        policy.attach(env)


def _stop_if_nothing_works(played: list[EpisodeRecord]) -> None:
    last = played[-MAX_ERRORS_IN_A_ROW:]
    if len(last) == MAX_ERRORS_IN_A_ROW and all(record.outcome is Outcome.ERROR for record in last):
        raise RunAbortedError(MAX_ERRORS_IN_A_ROW, last[-1].error or "")
