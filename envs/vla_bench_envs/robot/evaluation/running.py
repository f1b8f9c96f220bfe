"""The plan, played: the harness of every run on a robot, one trial after the other, each with its label."""

import logging
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from vla_bench import journal, provenance, registry
from vla_bench.contestant import Contestant
from vla_bench.errors import RunAbortedError
from vla_bench.plan import ResolvedPlan
from vla_bench.policy import Policy, PrivilegedPolicy
from vla_bench.rollout import run_episode
from vla_bench.runner import MAX_ERRORS_IN_A_ROW
from vla_bench.types import EpisodeRecord, Outcome
from vla_bench_envs.robot.evaluation import film
from vla_bench_envs.robot.evaluation.desk import Press
from vla_bench_envs.robot.evaluation.folder import EVALUATION, Folder
from vla_bench_envs.robot.evaluation.operators import Operator
from vla_bench_envs.robot.evaluation.plan import EvaluationPlan, Trial
from vla_bench_envs.robot.evaluation.records import Label, TrialRecord
from vla_bench_envs.robot.evaluation.seal import Seal
from vla_bench_envs.robot.evaluation.watching import Watched, WatchedEnv

log = logging.getLogger(__name__)


class Ledger:
    """Everything that is written while a plan is played; nothing is ever changed, only added."""

    def __init__(self, folder: Folder, plan: EvaluationPlan, rater: str) -> None:
        """Take over the folder: nobody else writes there until `close`.

        Raises:
            RunLockedError: If another process plays the plan.
            PlanChangedError: If another plan was played there.
        """
        folder.played(plan)
        self._opened = ExitStack()
        open_journal = self._opened.enter_context
        self._episodes = open_journal(journal.writing(folder.blind))
        self._trials = open_journal(journal.writing(folder.trials))
        self._labels = open_journal(journal.writing(folder.labels(rater)))
        self._plan, self._rater = plan, rater
        self._ids = {(trial.alias, trial.cell): trial.id for trial in plan.trials()}
        records = journal.read(folder.blind)
        self.attempts = Counter(self._ids[record.key] for record in records)
        self._latest = {self._ids[record.key]: record for record in records}

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the folder."""
        self._opened.close()

    @property
    def done(self) -> dict[str, EpisodeRecord]:
        """Return the labelled trials, in the order in which they were first played."""
        return {trial: record for trial, record in self._latest.items() if not record.is_broken}

    def add(self, trial: Trial, record: EpisodeRecord, watched: Watched, film_name: str) -> None:
        """Write an attempt that is over, and labelled if it counts."""
        self._trials.append(
            TrialRecord(
                trial=trial.id,
                alias=trial.alias,
                cell=trial.cell,
                attempt=record.attempt,
                plan_sha256=self._plan.sha256,
                reset_score=watched.reset_score,
                sensor_to_action_ms=tuple(watched.sensor_to_action_ms),
                verdicts=dict(watched.verdicts),
                reasons=dict(watched.reasons),
                counters=watched.counters,
                film=film_name,
                error=record.error,
                failed=watched.failed,
            )
        )
        self.attempts[trial.id] += 1
        self._write(trial.id, record)

    def label(self, trial: str, verdict: Press, corrected: bool = False) -> None:
        """Write a label."""
        self._labels.append(Label.of(trial, verdict, self._rater, self._plan, corrected))

    def correct(self, trial: str, verdict: Press) -> None:
        """Take back a label for another one: the episode is written again, with the outcome that counts."""
        self.label(trial, verdict, corrected=True)
        self._write(trial, labelled(self._latest[trial], verdict))

    def _write(self, trial: str, record: EpisodeRecord) -> None:
        self._episodes.append(record)
        self._latest[trial] = record


def labelled(record: EpisodeRecord, verdict: Press) -> EpisodeRecord:
    """Return an episode with the outcome that its label says."""
    return replace(record, outcome=Outcome.SUCCESS if verdict.word == "success" else Outcome.TIMEOUT)


def play(folder: Folder, plan: EvaluationPlan, seal: Seal, env: WatchedEnv, operator: Operator, ledger: Ledger) -> int:
    """Play every trial that is not done yet; return how many are.

    An attempt that ends in an error is repeated at once, with its block: the operator resets what has to be.

    Raises:
        ResumeError: If trials were played under other conditions.
        RunAbortedError: After three errors in a row.
    """
    blind = plan.blind()
    policy = registry.policy(plan.policy)
    contestants = {name: _hidden(name, spec, policy) for name, spec in seal.methods.items()}
    for contestant in contestants.values():
        contestant.check(blind.tasks[0])
    content = blind.to_dict() | {EVALUATION: plan.sha256}
    provenance.check_plan(folder.blind, content)
    provenance.write(folder.blind, content, _conditions(blind, policy, env))
    env.operator = operator
    if isinstance(policy, PrivilegedPolicy):
        policy.attach(env)
    n_errors = 0
    todo = [trial for trial in plan.trials() if trial.id not in ledger.done]
    while todo:
        record = _attempt(folder, blind, env, operator, ledger, contestants[todo[0].alias], todo[0])
        n_errors = n_errors + 1 if record.is_broken else 0
        if n_errors == MAX_ERRORS_IN_A_ROW:
            raise RunAbortedError(n_errors, record.error or "")
        if record.is_broken:
            operator.told(todo[0], record.error or "")
        else:
            todo.pop(0)
    operator.finish()
    return len(ledger.done)


def _attempt(
    folder: Folder, plan: ResolvedPlan, env: WatchedEnv, operator: Operator, ledger: Ledger, contestant: Contestant,
    trial: Trial,
) -> EpisodeRecord:  # fmt: skip
    """Play a trial once, have it labelled, and write all of it."""
    env.begin(trial)
    attempt = ledger.attempts[trial.id] + 1
    task = plan.suite.tasks()[trial.cell.task]
    record = run_episode(env, contestant, task, trial.cell, plan.protocol, attempt)
    watched = env.finish()
    name = f"{trial.id}-{attempt}.mcap" if watched.pictures else ""
    if name:
        film.write(folder.films / name, plan.protocol.cameras[0], watched.pictures, 1e3 / plan.protocol.control_hz)
    if record.is_broken:
        ledger.add(trial, record, watched, name)
        return record
    verdict = operator.label(trial, record.outcome is Outcome.SUCCESS, watched.failed)
    record = labelled(record, verdict)
    ledger.label(trial.id, verdict)  # first: a trial that a crash leaves without its episode is played again
    ledger.add(trial, record, watched, name)
    return record


def _hidden(alias: str, spec: str, policy: Policy) -> Contestant:
    """Return a policy under a method whose name, and what it gives up, nobody reads before the report."""
    return replace(Contestant.of(spec, policy), method=alias, division="")


def _conditions(plan: ResolvedPlan, policy: Policy, env: WatchedEnv) -> dict[str, str]:
    """Return what must be equal between trials: those of every run, and the robot."""
    welcome: dict[str, Any] = env.robot.session.link.welcome
    robot = {"robot": f"{welcome['robot']['driver']} ({welcome['robot']['arm']})", "limits": welcome["limits_sha256"]}
    simulated = plan.suite.fingerprint(plan.protocol) if env.robot.url is None else {}
    return provenance.conditions(str(plan.protocol), policy.fingerprint, robot | simulated)
