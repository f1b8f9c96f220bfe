"""What every episode of an honest run satisfies by itself, read off `rollout.run_episode` and `Contestant.ask`."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from itertools import accumulate
from typing import Any

from vla_bench.policy import Division
from vla_bench.types import EpisodeRecord, Query

STAGES_SHARE, STAGES_MS = 1.05, 0.1
"""Stages are timed by the policy itself, by events of its device, and may add up to more than the harness measured by
this factor and this time [ms]. Source: the measurement protocol of this project (5 %)."""

CLOCK_MS = 1e-6
"""Sums of intervals of one clock agree to this: rounding of floating-point numbers, [ms]."""

DIVISIONS = {"", *map(str, Division)}

QUERY_RULES: dict[str, Callable[[Query], bool]] = {
    "policy_ms is above 0": lambda query: query.policy_ms > 0,
    "observe_ms and apply_ms are 0 or more": lambda query: min(query.observe_ms, query.apply_ms) >= 0,
    "step_ms holds observe_ms and policy_ms": lambda query: (
        query.step_ms >= query.observe_ms + query.policy_ms - CLOCK_MS
    ),
    "stages_ms add up to at most policy_ms": lambda query: (
        sum(query.stages_ms.values()) <= STAGES_SHARE * query.policy_ms + STAGES_MS
    ),
    "n_executed is from 1 to n_actions, or 0 if steps passed before": lambda query: (
        query.n_executed + query.n_waited >= 1 and query.n_executed <= query.n_actions
    ),
    "is_first_step is said at step 0 and nowhere else": lambda query: query.is_first_step == (query.step == 0),
    "rows_computed, rows_reused and flops are 0 or more": lambda query: (
        min(query.rows_computed or 0, query.rows_reused or 0, query.flops or 0) >= 0
    ),
}

EPISODE_RULES: dict[str, Callable[[EpisodeRecord], bool]] = {
    "error is said where outcome is error and nowhere else": lambda record: (
        record.is_broken == (record.error is not None)
    ),
    "n_steps is 1 or more once an episode has ended": lambda record: record.n_steps >= (0 if record.is_broken else 1),
    "n_steps is what its queries executed": lambda record: (
        _executed(record) == record.n_steps or (record.is_broken and _executed(record) < record.n_steps)
    ),
    "each query begins at the step where the one before ended": lambda record: (
        [query.step for query in record.queries] == _begins(record)
    ),
    "only the last chunk is cut short": lambda record: all(
        query.n_executed == query.n_actions or query.charged_ms for query in record.queries[:-1]
    ),
    "wall_s holds step_ms and apply_ms of all queries": lambda record: (
        record.wall_s * 1e3 + CLOCK_MS >= sum(query.step_ms + query.apply_ms for query in record.queries)
    ),
    "wall_s is above 0": lambda record: record.wall_s > 0,
    "path_m and jerk are 0 or more": lambda record: min(record.path_m, record.jerk) >= 0,
    "jerk is 0 if n_steps is below 4": lambda record: record.n_steps >= 4 or record.jerk == 0,
    "init_state_sha256 has 64 hexadecimal digits": lambda record: (
        re.fullmatch("[0-9a-f]{64}", record.init_state_sha256) is not None
        or (record.is_broken and not record.init_state_sha256)
    ),
    "division is one of the known": lambda record: record.division in DIVISIONS,
}


def broken(record: EpisodeRecord) -> Iterator[str]:
    """Yield the rules that a record breaks, each with what was found; of its queries, the first that breaks it."""
    yield from _broken(EPISODE_RULES, record)
    seen: set[str] = set()
    for number, query in enumerate(record.queries):
        for rule in _unkept(QUERY_RULES, query):
            if rule not in seen:
                yield f"query {number}: {_said(rule, query)}"
            seen.add(rule)


def place(record: EpisodeRecord) -> str:
    """Return which episode it is, as it stands in a message."""
    cell = record.cell
    return f"{record.method!r} task {cell.task} state {cell.init_state} seed {cell.seed} attempt {record.attempt}"


def _broken(rules: Mapping[str, Callable[[Any], bool]], item: object) -> Iterator[str]:
    yield from (_said(rule, item) for rule in _unkept(rules, item))


def _unkept(rules: Mapping[str, Callable[[Any], bool]], item: object) -> list[str]:
    return [rule for rule, holds in rules.items() if not holds(item)]


def _said(rule: str, item: Any) -> str:
    """Return a rule with the values of the fields that it speaks of."""
    names = [field.name for field in fields(item) if field.name in re.findall(r"\w+", rule)]
    found = ", ".join(f"{name} {getattr(item, name)!r}" for name in names if name != "queries")
    return f"expected that {rule}; found {found}" if found else f"expected that {rule}"


def _executed(record: EpisodeRecord) -> int:
    return sum(query.n_executed + query.n_waited for query in record.queries)


def _begins(record: EpisodeRecord) -> list[int]:
    executed = [query.n_executed + query.n_waited for query in record.queries]
    return list(accumulate(executed, initial=0))[: len(executed)]
