"""Episodes of a pack, drawn at random and played again."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isclose
from typing import Any

import numpy as np

from vla_bench import journal, provenance, registry
from vla_bench.contestant import Contestant
from vla_bench.errors import VlaBenchError
from vla_bench.plan import ResolvedPlan
from vla_bench.policy import PrivilegedPolicy
from vla_bench.progress import Progress
from vla_bench.rollout import run_episode
from vla_bench.submission.episode_rules import place
from vla_bench.submission.runs import PackedRun
from vla_bench.submission.shapes import short
from vla_bench.types import EpisodeRecord

SAME, NOT_PLAYED = "as recorded", "not played"

AGREEMENT = 1e-6
"""Relative difference of path and jerk up to which two episodes are the same: sums of the same actions."""

MACHINE = ("processor", "accelerator")
"""Conditions that may move a network's answers by rounding, and time; neither pictures nor physics."""


@dataclass
class Replay:
    """What came of episodes that were played again. Their time is not compared: another machine has another clock."""

    seed: int
    """Of the draw."""

    episodes: list[dict[str, Any]] = field(default_factory=list)
    """Every drawn episode with its `result`: `as recorded`, or in what it differs, or why it was not played."""

    found: list[str] = field(default_factory=list)
    """Episodes that differ although all that could explain it is equal: something wrong with the pack."""

    remarks: list[str] = field(default_factory=list)
    """Why episodes were not played, or why a difference proves nothing."""

    @property
    def is_as_recorded(self) -> bool:
        """Return whether episodes were drawn and every one of them came out as recorded."""
        return bool(self.episodes) and all(episode["result"] == SAME for episode in self.episodes)


def replay(runs: list[PackedRun], n: int, seed: int) -> Replay:
    """Play `n` finished episodes again, drawn by `seed` from all runs, or all if there are fewer."""
    finished = [(run, record) for run in runs for record in journal.latest(run.records) if not record.is_broken]
    rng = np.random.default_rng(seed)
    drawn = sorted(rng.choice(len(finished), min(n, len(finished)), replace=False)) if finished else []
    done = Replay(seed)
    with Progress(total=len(drawn), unit="episode") as bar:
        for run in runs:
            chosen = [record for index in drawn for owner, record in [finished[index]] if owner is run]
            if chosen:
                _replay_run(done, run, chosen, bar)
    return done


def _replay_run(done: Replay, run: PackedRun, chosen: list[EpisodeRecord], bar: Progress) -> None:
    """Play the drawn episodes of one run, if this machine has what made them."""
    results: list[str] = []
    try:
        with _stage(run) as stage:
            for record in chosen:
                bar.set_description(f"{run.name} {place(record)}")
                results.append(stage.play(record))
                bar.update()
            excuses = stage.excuses
    except (VlaBenchError, OSError) as caught:  # OSError: a file that the policy's specification names
        done.remarks.append(f"{run.name} cannot be replayed here: {caught}")
        excuses = []
    results += [NOT_PLAYED] * (len(chosen) - len(results))
    for record, result in zip(chosen, results, strict=True):
        cell = {"task": record.cell.task, "init_state": record.cell.init_state, "seed": record.cell.seed}
        done.episodes.append({"run": run.name, "method": record.method, **cell, "result": result})
        if result.startswith("differs"):
            text = f"{run.name}: {place(record)}: played again it {result}"
            if excuses:
                done.remarks.append(f"{text}; this proves nothing, since {'; '.join(excuses)}")
            else:
                done.found.append(text)
        elif result not in (SAME, NOT_PLAYED):
            done.remarks.append(f"{run.name}: {place(record)}: {result}")


class OtherConditionsError(VlaBenchError):
    """Refuse to replay where other pictures, physics or answers must come out."""

    def __init__(self, differences: list[str]) -> None:
        super().__init__(
            f"the pack and this machine differ in {'; '.join(differences)}: replay it where they are equal; the pack "
            f"is none the worse"
        )


@dataclass
class _Stage:
    """A run's suite and policy, ready to play its episodes again."""

    plan: ResolvedPlan
    env: Any
    policy: Any
    excuses: list[str]
    """What of this machine and code may explain a difference."""

    contestants: dict[str, Contestant] = field(default_factory=dict)

    def play(self, record: EpisodeRecord) -> str:
        """Return `SAME`, or in what the episode differs."""
        task = next(task for task in self.plan.tasks if task.index == record.cell.task)
        if record.method not in self.contestants:
            self.contestants[record.method] = Contestant.of(record.method, self.policy)
            self.contestants[record.method].check(task)
        played = run_episode(self.env, self.contestants[record.method], task, record.cell, self.plan.protocol)
        if played.is_broken:
            return f"could not be played: {played.error}"
        found = list(_different(record, played))
        return f"differs in {', '.join(found)}" if found else SAME


@contextmanager
def _stage(run: PackedRun) -> Iterator[_Stage]:
    """Make what played a run, and take it down afterwards.

    Raises:
        OtherConditionsError: If suite, policy or protocol are others here.
    """
    plan = run.resolved
    if plan is None:
        raise OtherConditionsError([f"the suite {run.plan['suite']!r}, its protocol or its tasks"])
    if run.plan.get("realtime"):
        raise OtherConditionsError(["the clock: episodes with latency in the loop are not replayed"])
    policy = registry.policy(plan.policy)
    here = provenance.conditions(str(plan.protocol), policy.fingerprint, plan.suite.fingerprint(plan.protocol))
    decisive = [{key: value for key, value in one.items() if key not in MACHINE} for one in (run.conditions, here)]
    if unequal := provenance.differences(*decisive):
        raise OtherConditionsError(unequal)
    env = plan.suite.make(plan.protocol)
    try:
        if isinstance(policy, PrivilegedPolicy):
            policy.attach(env)
        yield _Stage(plan, env, policy, _excuses(run, here))
    finally:
        env.close()


def _excuses(run: PackedRun, here: dict[str, str]) -> list[str]:
    """Return what differs from any session and may honestly change an answer: machine, packages and code."""
    own = provenance.packages() | {"commit": provenance.commit()} | {key: here[key] for key in MACHINE}
    found: dict[str, None] = {}
    for session in run.sessions:
        theirs = session["packages"] | {"commit": session["commit"]} | {key: run.conditions[key] for key in MACHINE}
        found |= dict.fromkeys(provenance.differences(theirs, own))
    return list(found)


def _different(recorded: EpisodeRecord, played: EpisodeRecord) -> Iterator[str]:
    """Yield what of an episode came out otherwise; of the times, nothing."""
    for name in ("outcome", "n_steps", "init_state_sha256", "division"):
        one, other = str(getattr(recorded, name)), str(getattr(played, name))
        if one != other and not (name == "division" and not one):  # not written down in old records
            yield f"{name} (recorded {one}, played {other})"
    for name in ("path_m", "jerk"):
        one, other = getattr(recorded, name), getattr(played, name)
        if not isclose(one, other, rel_tol=AGREEMENT):
            yield f"{name} (recorded {one:.9g}, played {other:.9g})"
    for name in ("n_executed", "rows_computed"):
        columns = [[getattr(query, name) for query in record.queries] for record in (recorded, played)]
        if columns[0] != columns[1]:
            yield f"{name} of its queries (recorded {short(columns[0])}, played {short(columns[1])})"
