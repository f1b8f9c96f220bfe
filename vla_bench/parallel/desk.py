"""The process that holds the policy: it answers whoever asks, all that ask at the same time together."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from vla_bench import registry
from vla_bench.contestant import Contestant
from vla_bench.errors import VlaBenchError
from vla_bench.parallel.exchange import Exchange
from vla_bench.parallel.heart import Heart
from vla_bench.parallel.seat import Character
from vla_bench.policy import SharedPolicy
from vla_bench.types import Observation, Task

log = logging.getLogger(__name__)

PATIENCE_S = 0.002
"""How long the first question waits for others to share a batch: a tenth of what a small policy takes."""


class UnsharedPolicyError(VlaBenchError):
    """Refuse a policy that cannot answer several environments."""

    def __init__(self, policy: str) -> None:
        super().__init__(
            f"the policy {policy!r} remembers one episode at a time and cannot be shared; expected one with 'seat' and "
            f"'act_together': run it with --no-share, which loads it in every worker"
        )


@dataclass(frozen=True)
class DeskJob:
    """All that the desk must know."""

    policy: str
    methods: tuple[str, ...]
    registered: dict[tuple[str, str], Any]
    """Policy and methods that a script has added."""
    task: Task
    """For the check of what actions mean."""
    seats: tuple[tuple[Connection, Exchange], ...]
    """Of each worker: its questions, and where its pictures lie."""
    crew: Connection
    heart: Heart


@dataclass
class _Question:
    """What a seat has asked."""

    seat: int
    token: Any
    method: str
    obs: Observation = field(default_factory=dict)


def serve(job: DeskJob) -> None:
    """Load the policy, say so, and answer until the crew is gone."""
    job.heart.listen()
    registry.take(job.registered)
    try:
        desk = _Desk(job)
    except VlaBenchError as caught:
        job.crew.send(("unshared" if isinstance(caught, UnsharedPolicyError) else "cannot", str(caught)))
        return
    job.crew.send(("ready", desk.character))
    desk.answer_all()


class _Desk:
    def __init__(self, job: DeskJob) -> None:
        self._job = job
        policy = registry.policy(job.policy)
        if not isinstance(policy, SharedPolicy):
            raise UnsharedPolicyError(policy.name)
        self._policy = policy
        self._contestants = {
            (seat, method): Contestant.of(method, policy.seat())
            for seat in range(len(job.seats))
            for method in job.methods
        }
        for contestant in self._contestants.values():
            contestant.check(job.task)
        divisions = {method: self._contestants[0, method].division for method in job.methods}
        self.character = Character(policy.name, policy.action_spec, policy.cameras, policy.fingerprint), divisions

    def answer_all(self) -> None:
        """Answer until the crew is gone."""
        links: dict[Any, int] = {link: seat for seat, (link, _) in enumerate(self._job.seats)}
        while True:
            ready = wait([self._job.crew, *links])
            if self._job.crew in ready:
                return  # it sends nothing: it is gone
            questions: list[_Question] = []
            until = time.monotonic() + PATIENCE_S
            while ready:
                questions += [question for link in ready for question in self._taken(link, links[link])]
                left = until - time.monotonic()
                waiting = [link for link, seat in links.items() if seat not in {one.seat for one in questions}]
                ready = wait(waiting, left) if left > 0 and waiting else []
            for method in dict.fromkeys(question.method for question in questions):
                self._answer([question for question in questions if question.method == method])

    def _taken(self, link: Any, seat: int) -> list[_Question]:
        """Return the question of a seat, unless it was a reset, which is answered at once."""
        token, verb, method, content = link.recv()
        if verb == "act":
            return [_Question(seat, token, method, self._job.seats[seat][1].read(content))]
        self._reply([_Question(seat, token, method)], lambda: [self._contestants[seat, method].policy.reset(*content)])
        return []

    def _answer(self, questions: Sequence[_Question]) -> None:
        policies = [self._contestants[question.seat, question.method].policy for question in questions]
        observations = [question.obs for question in questions]
        first = policies[0]
        if isinstance(first, SharedPolicy):
            self._reply(questions, lambda: first.act_together(policies, observations))
            return
        for question, policy in zip(questions, policies, strict=True):
            self._reply([question], lambda policy=policy, obs=question.obs: [policy.act(obs)])

    def _reply(self, questions: Sequence[_Question], ask: Any) -> None:
        """Send what `ask` returns, one answer a question, or what it raises."""
        self._job.heart.beat()
        try:
            answers = [("answer", answer) for answer in ask()]
            self._policy.synchronize()
        except Exception as caught:  # it ends these episodes in an error, and no others; see `run_episode`
            log.exception("the policy raised at the desk")
            answers = [("raised", f"{type(caught).__name__}: {caught}")] * len(questions)
        self._job.heart.rest()
        for question, (kind, answer) in zip(questions, answers, strict=True):
            self._job.seats[question.seat][0].send((question.token, kind, answer))
