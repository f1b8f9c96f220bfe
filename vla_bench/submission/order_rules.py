"""In which order an honest run plays its plan: start by start, the methods of each in drawn turns, nothing skipped."""

from collections.abc import Iterator
from functools import cache

from vla_bench import __version__, registry
from vla_bench.errors import VlaBenchError
from vla_bench.plan import ResolvedPlan
from vla_bench.realtime.waiting import division_while
from vla_bench.runner import MAX_ERRORS_IN_A_ROW
from vla_bench.submission.episode_rules import place
from vla_bench.submission.runs import PackedRun
from vla_bench.types import Cell, EpisodeRecord

N_RULES = 4
"""Membership, turns, gaps and divisions."""

Position = tuple[int, int, int]
"""Where an episode stands in its plan: position of its task, start within the task, turn of its method."""


def broken(run: PackedRun) -> Iterator[str]:
    """Yield what contradicts the plan's order; nothing is known of a suite that is not installed as it was.

    Parts of a plan, and several workers, keep no order.
    """
    plan = run.resolved
    if plan is None:
        return
    order = _Order(plan)
    placed = [(record, order.position(record)) for record in run.records]
    for record, position in placed:
        if position is None:
            yield f"{place(record)}: is not in the plan; expected {order}"
    known = [(record, position) for record, position in placed if position is not None]
    if not any(key in session for session in run.sessions for key in ("shard", "workers")):
        yield from _needs_no_more_sessions(known, len(run.sessions))
    yield from _leaves_out_nothing(order, {position for _, position in known})
    yield from _says_its_division(run)


class _Order:
    """The positions of a plan's episodes, computed and never listed: a forged plan may have any length."""

    def __init__(self, plan: ResolvedPlan) -> None:
        self.plan = plan
        self.turns = cache(plan.turns)
        self._starts = {task.index: (place, task.n_initial_states) for place, task in enumerate(plan.tasks)}

    def position(self, record: EpisodeRecord) -> Position | None:
        """Return where a record's episode stands; None if the plan does not hold it."""
        cell, plan = record.cell, self.plan
        if record.method not in plan.methods or cell.task not in self._starts or min(cell.seed, plan.seed) < 0:
            return None
        task, n_states = self._starts[cell.task]
        start = (cell.seed - plan.seed) * n_states + cell.init_state
        if not 0 <= cell.init_state < n_states or not 0 <= start < plan.episodes:
            return None
        return task, start, self.turns(cell).index(record.method)

    def after(self, position: Position) -> Position:
        """Return the position that follows; of the last one, that of a task that is not there."""
        task, start, turn = position
        if turn + 1 < len(self.plan.methods):
            return task, start, turn + 1
        return (task, start + 1, 0) if start + 1 < self.plan.episodes else (task + 1, 0, 0)

    def said(self, position: Position) -> str:
        """Return which episode stands there."""
        task, start, turn = position
        found = self.plan.tasks[task]
        repeat, init_state = divmod(start, found.n_initial_states)
        cell = Cell(found.index, init_state, self.plan.seed + repeat)
        return f"{self.turns(cell)[turn]!r} task {cell.task} state {cell.init_state} seed {cell.seed}"

    def __str__(self) -> str:
        return f"{self.plan.episodes} episodes of each task, seeds from {self.plan.seed}"


def _needs_no_more_sessions(placed: list[tuple[EpisodeRecord, Position]], n_sessions: int) -> Iterator[str]:
    """A process plays what is missing in the plan's order, and stops after three errors in a row."""
    needed, errors, before, turned = 1, 0, (-1, -1, -1), ""
    for record, position in placed:
        if position <= before or errors == MAX_ERRORS_IN_A_ROW:
            needed, errors = needed + 1, 0
            turned = turned or place(record)
        before, errors = position, errors + 1 if record.is_broken else 0
    if needed > n_sessions:
        yield (
            f"{turned}: is out of turn; in the plan's drawn order such a journal takes {needed} sessions, the "
            f"provenance knows {n_sessions}"
        )


def _leaves_out_nothing(order: _Order, played: set[Position]) -> Iterator[str]:
    """Nothing is played before what stands earlier in the plan, so that only an end of it can be missing."""
    expected: Position = (0, 0, 0)
    for position in sorted(played):
        if position != expected:
            yield f"{order.said(expected)}: is missing, later ones were played; finish the run, or show all of it"
        expected = order.after(position)


def _says_its_division(run: PackedRun) -> Iterator[str]:
    """A method's division is what its class says, or the waiting; asked only of records that this version made."""
    if any(session["packages"].get("vla-bench") != __version__ for session in run.sessions):
        return
    for method in run.plan["methods"]:
        try:
            own = str(registry.division(registry.method(method)))
        except VlaBenchError:
            continue
        expected = division_while(run.plan.get("waiting", "hold"), own)
        found = {record.division for record in run.records if record.method == method} - {"", expected}
        if found:
            yield f"{method!r}: its division is {', '.join(map(repr, sorted(found)))}; here it is {expected!r}"
