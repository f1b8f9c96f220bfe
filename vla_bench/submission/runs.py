"""The runs of a pack, as their files say."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vla_bench import journal, provenance, registry
from vla_bench.errors import VlaBenchError
from vla_bench.plan import ResolvedPlan, run_name
from vla_bench.submission.shapes import CONDITIONS, MACHINE, PLAN, PROTOCOL, SESSION, misfits, shape_of
from vla_bench.types import EpisodeRecord

DIRTY = "-dirty"


@dataclass(frozen=True)
class PackedRun:
    """One run of a pack; every value is of the kind that the harness writes."""

    name: str
    """Its folder in the pack."""

    records: list[EpisodeRecord]
    """All attempts, in the order in which they were played."""

    plan: dict[str, Any]
    conditions: dict[str, str]
    sessions: list[dict[str, Any]]

    @property
    def plan_name(self) -> str:
        """Return the name that the harness gives to a run of this plan."""
        return run_name(self.plan["suite"].replace("@", "-v"), self.plan["policy"], self.plan)

    @property
    def commits(self) -> list[str]:
        """Return the commits of its sessions, each once."""
        return list(dict.fromkeys(session["commit"] for session in self.sessions))

    @property
    def is_dirty(self) -> bool:
        """Return whether a session ran on uncommitted changes, so that nobody else can have its code."""
        return any(commit.endswith(DIRTY) for commit in self.commits)

    @cached_property
    def resolved(self) -> ResolvedPlan | None:
        """Return the plan on the installed suite; None if suite, protocol or tasks are not the installed ones."""
        try:
            suite = registry.suite(self.plan["suite"])
        except VlaBenchError:
            return None
        protocol = suite.protocols().get(self.plan["protocol"]["name"])
        known = {task.index: task for task in suite.tasks()}
        if protocol is None or protocol.hash != self.plan["protocol"]["hash"] or set(self.plan["tasks"]) - set(known):
            return None
        tasks = tuple(known[index] for index in self.plan["tasks"])
        methods = tuple(self.plan["methods"])
        return ResolvedPlan(
            suite, protocol, tasks, self.plan["policy"], methods, self.plan["episodes"], self.plan["seed"]
        )


def read(directory: Path, name: str) -> tuple[PackedRun | None, list[str]]:
    """Return a run, or None and what of it cannot be read."""
    try:
        records = journal.read(directory)
        found = provenance.read(directory)
    except VlaBenchError as caught:
        return None, [str(caught)]
    except (AttributeError, RecursionError) as caught:
        return None, [f"{name}: holds JSON that is no record ({type(caught).__name__}: {caught})"]
    if found is None or not records:
        return None, [f"{name}: holds no {journal.NAME if found else provenance.NAME} or nothing in it"]
    wrong = [*_wrong_records(records), *_wrong_provenance(found)]
    if wrong:
        return None, [f"{name}: {one}" for one in wrong]
    return PackedRun(name, records, **found), []


def _wrong_records(records: list[EpisodeRecord]) -> list[str]:
    shape = shape_of(EpisodeRecord)
    return [f"line {line}: {one}" for line, record in enumerate(records, 1) for one in misfits(vars(record), shape)]


def _wrong_provenance(found: dict[str, Any]) -> list[str]:
    whole = {"plan": dict[str, Any], "conditions": dict[str, str], "sessions": list[dict[str, Any]]}
    if wrong := misfits(found, whole):
        return wrong
    wrong = [*misfits(found["plan"], PLAN), *misfits(found["conditions"], CONDITIONS)]
    if not wrong:
        wrong = misfits(found["plan"]["protocol"], PROTOCOL)
    if not found["sessions"]:
        wrong.append("'sessions' is empty; expected one for every process that played")
    for session in found["sessions"]:
        if misfit := misfits(session, SESSION) or misfits(session["machine"], MACHINE):
            wrong.extend(misfit)
    return wrong
