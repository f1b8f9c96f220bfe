"""The loop over recordings and, in turns, methods; each is asked when it has no action left, as on a robot."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vla_bench import journal, provenance, registry
from vla_bench.contestant import Answer, Contestant
from vla_bench.errors import RunAbortedError
from vla_bench.progress import Progress
from vla_bench.replay import recording
from vla_bench.replay.plan import ReplayPlan
from vla_bench.replay.record import ReplayRecord
from vla_bench.replay.recording import Recording
from vla_bench.types import ActionSpec, Query, policy_seed

log = logging.getLogger(__name__)

Watch = Callable[[Recording, str, list[dict[str, np.ndarray]]], None]
"""Is given, after an episode, what happened to each patch at each control step."""


@dataclass
class _Listener:
    """One method on its way through a recording."""

    contestant: Contestant
    actions: list[np.ndarray] = field(default_factory=list)
    queries: list[Query] = field(default_factory=list)
    fates: list[dict[str, np.ndarray]] = field(default_factory=list)
    error: str | None = None

    def ask(self, obs: dict, keys: list[str], n_left: int) -> None:
        """Take the next actions, as many as the recording has steps for."""
        answer: Answer = self.contestant.ask(obs, keys)
        step, chunk = len(self.actions), answer.chunk.actions[:n_left]
        self.queries.append(answer.query(step, len(chunk)))
        self.actions.extend(np.asarray(action, dtype=float) for action in chunk)
        self.fates.extend([answer.chunk.fates] * len(chunk))


def replay(plan: ReplayPlan, directory: Path, watch: Watch | None = None) -> list[ReplayRecord]:
    """Show every recording to every method that `directory` does not hold yet, and return the latest of each.

    Interrupt it at any moment: run it again and it goes on, with at most the recording in hand to repeat.

    Args:
        plan: What to replay.
        directory: Where the journal and the provenance lie; made if missing.
        watch: Is told what happened to the patches.

    Raises:
        UnfitRecordingError: If the policy cannot be shown these recordings.
        ResumeError: If the directory holds records of other conditions.
        RunAbortedError: If a recording ends in an error under every method.
    """
    policy = registry.policy(plan.policy)
    cameras = recording.check(plan.dataset, policy)
    contestants = [Contestant.of(method, policy) for method in plan.methods]
    with journal.writing(directory) as pages:
        provenance.check_plan(directory, plan.to_dict())
        found = provenance.conditions("replay", policy.fingerprint, {"recordings": plan.dataset.fingerprint})
        provenance.write(directory, plan.to_dict(), found)
        records = journal.read_as(ReplayRecord.from_dict, directory)
        done = journal.finished(records)
        for index in Progress(plan.chosen, unit="recording"):
            due = [contestant for contestant in contestants if (contestant.method, index) not in done]
            if not due:
                continue
            shown = recording.read(plan.dataset, index, cameras)
            played = _replay_one(plan, shown, due, policy.action_spec, [*cameras, "proprio", "instruction"])
            for listener in played:
                records.append(_record(plan, shown, listener))
                pages.append(records[-1])
                if watch is not None and listener.error is None:
                    watch(shown, listener.contestant.method, listener.fates)
            if len(played) == len(contestants) and all(listener.error for listener in played):
                raise RunAbortedError(len(played), played[-1].error or "")
    return journal.latest(records)


def _replay_one(
    plan: ReplayPlan, shown: Recording, contestants: list[Contestant], spec: ActionSpec, keys: list[str]
) -> list[_Listener]:
    """Show a recording to one method after the other, in a drawn order: methods may share one policy and its memory."""
    listeners = [_Listener(contestant) for contestant in contestants]
    task = shown.task(plan.data.name, spec)
    for index in plan.turns(shown.index, len(listeners)):
        listener = listeners[index]
        try:
            listener.contestant.policy.reset(task, policy_seed(plan.seed, shown.index))
            while (step := len(listener.actions)) < len(shown):
                listener.ask(shown.observation(step), keys, len(shown) - step)
        except Exception as caught:  # recorded, counted, shown and retried, as in `run_episode`
            log.exception("recording %s under %s ended in an error", shown.index, listener.contestant.method)
            listener.error = f"{type(caught).__name__}: {caught}"
    return listeners


def _record(plan: ReplayPlan, shown: Recording, listener: _Listener) -> ReplayRecord:
    return ReplayRecord(
        dataset=plan.data.name,
        episode=shown.index,
        sentence=shown.sentence,
        policy=listener.contestant.policy.name,
        method=listener.contestant.method,
        actions=tuple(tuple(action.tolist()) for action in listener.actions),
        recorded=tuple(tuple(action) for action in shown.actions.tolist()),
        queries=tuple(listener.queries),
        error=listener.error,
    )
