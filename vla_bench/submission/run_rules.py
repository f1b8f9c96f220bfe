"""What the episodes of an honest run satisfy together, read off `runner.run`, `RunPlan` and `provenance`."""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise

from vla_bench.contestant import WARMUP_QUERIES
from vla_bench.submission.episode_rules import place
from vla_bench.submission.runs import PackedRun
from vla_bench.types import Outcome


def _is_its_plan(run: PackedRun) -> Iterator[str]:
    """The folder is named by the plan, and the plan's protocol by its content."""
    if run.name.partition("~")[0] != run.plan_name:
        yield f"the run is called {run.name!r}, its plan {run.plan_name!r}"
    protocol = {key: value for key, value in run.plan["protocol"].items() if key != "hash"}
    digest = hashlib.sha256(json.dumps(protocol, sort_keys=True).encode()).hexdigest()[:16]
    if digest != run.plan["protocol"]["hash"]:
        yield f"the protocol's hash is {run.plan['protocol']['hash']!r}, of its content it would be {digest!r}"
    named = f"{run.plan['protocol']['name']}-{run.plan['protocol']['hash']}"
    if run.conditions["protocol"] != named:
        yield f"the conditions name the protocol {run.conditions['protocol']!r}, the plan {named!r}"


def _was_made_on_one_machine(run: PackedRun) -> Iterator[str]:
    """Every session ran on the processor and accelerator of the conditions, one after the other."""
    for number, session in enumerate(run.sessions, 1):
        for key in ("processor", "accelerator"):
            if session["machine"][key] != run.conditions[key]:
                found = f"{session['machine'][key]!r}; the conditions say {run.conditions[key]!r}"
                yield f"session {number} ran on the {key} {found}"
    started = [session["started"] for session in run.sessions]
    if started != sorted(started):
        yield f"its sessions are not in the order of time: {', '.join(started)}"


def _belongs_to_its_plan(run: PackedRun) -> Iterator[str]:
    """Every record is of the plan's suite, protocol, tasks and methods, and of one policy."""
    first = run.records[0].policy
    for record in run.records:
        pairs = (
            ("suite", record.suite, [run.plan["suite"]]),
            ("protocol", record.protocol, [run.conditions["protocol"]]),
            ("policy", record.policy, [first]),
            ("method", record.method, run.plan["methods"]),
            ("task", record.cell.task, run.plan["tasks"]),
        )
        for name, found, expected in pairs:
            if found not in expected:
                yield f"{place(record)}: its {name} is {found!r}; expected {' or '.join(map(repr, expected))}"


def _attempts_count_up(run: PackedRun) -> Iterator[str]:
    """Attempts of one episode are 1, 2, 3; only after an error there is another."""
    before: dict[object, list] = defaultdict(list)
    for record in run.records:
        tried = before[record.key]
        if record.attempt != len(tried) + 1:
            yield f"{place(record)}: expected attempt {len(tried) + 1}"
        if tried and not tried[-1].is_broken:
            yield f"{place(record)}: was played again after it had ended in {str(tried[-1].outcome)!r}"
        tried.append(record)


def _one_start_is_one_state(run: PackedRun) -> Iterator[str]:
    """All methods began a start from the same bytes."""
    first: dict[object, str] = {}
    for record in run.records:
        digest = record.init_state_sha256
        if digest and digest != first.setdefault(record.cell, digest):
            yield f"{place(record)}: began from state {digest[:12]}, another method from {first[record.cell][:12]}"


def _ends_by_the_horizon(run: PackedRun) -> Iterator[str]:
    """A timeout has as many steps as the task's horizon, a success no more."""
    plan = run.resolved
    horizons = {} if plan is None else {t.index: plan.protocol.horizon(t.suite, t.horizon) for t in plan.tasks}
    for record in run.records:
        if record.outcome is Outcome.TIMEOUT:  # of a suite that is not installed, the first one tells
            horizons.setdefault(record.cell.task, record.n_steps)
    for record in run.records:
        horizon = horizons.get(record.cell.task, record.n_steps)
        if record.n_steps > horizon or (record.outcome is Outcome.TIMEOUT and record.n_steps < horizon):
            yield f"{place(record)}: {record.outcome} after {record.n_steps} steps; the horizon is {horizon}"


def _warms_up_once_a_session(run: PackedRun) -> Iterator[str]:
    """The first 20 queries of a method in a process are warm-up, and no others; all, of an episode that is not timed.

    An episode that ended in an error may have lost its last query, so that a warm-up looks shorter by one.
    """
    by_method: dict[str, list[bool]] = defaultdict(list)
    for record in run.records:
        flags = [query.is_warmup for query in record.queries]
        if not record.timed:
            if not all(flags):
                yield f"{place(record)}: is not timed, and has queries that say they are"
            continue
        if any(late and not early for early, late in pairwise(flags)):
            yield f"{place(record)}: warms up in the middle of an episode"
        by_method[record.method].extend(flags)
    lost = Counter(record.method for record in run.records if record.is_broken)
    for method, flags in by_method.items():
        blocks = _blocks(flags)
        least = min((n for n, is_over in blocks if is_over), default=WARMUP_QUERIES)
        if len(blocks) > len(run.sessions) or sum(flags) > WARMUP_QUERIES * len(run.sessions):
            found = f"{sum(flags)} warm-up queries in {len(blocks)} blocks"
            yield f"{method!r}: {found}; {len(run.sessions)} sessions have {WARMUP_QUERIES} each"
        if least + lost[method] < WARMUP_QUERIES:
            yield f"{method!r}: timed after {least} warm-up queries; expected {WARMUP_QUERIES}"


def _blocks(flags: list[bool]) -> list[tuple[int, bool]]:
    """Return the length of each block of warm-up, an empty one at the start too, and whether a timed query follows."""
    blocks, n = [], 0
    for before, flag in zip([True, *flags], flags, strict=False):
        if before and not flag:
            blocks.append((n, True))
            n = 0
        n += flag
    return [*blocks, (n, False)] if n else blocks


RULES: tuple[Callable[[PackedRun], Iterator[str]], ...] = (
    _is_its_plan,
    _was_made_on_one_machine,
    _belongs_to_its_plan,
    _attempts_count_up,
    _one_start_is_one_state,
    _ends_by_the_horizon,
    _warms_up_once_a_session,
)
