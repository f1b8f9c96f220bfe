"""The policy as a worker sees it: it asks the desk."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from multiprocessing.connection import Connection

from vla_bench.errors import VlaBenchError
from vla_bench.parallel.exchange import Exchange
from vla_bench.policy import ActionChunk
from vla_bench.types import ActionSpec, Observation, Task


class DeskError(VlaBenchError):
    """Report what the policy has raised in its own process."""

    def __init__(self, method: str, raised: str) -> None:
        super().__init__(f"the policy under {method!r} raised in its process: {raised}")


@dataclass(frozen=True)
class Character:
    """What a policy says about itself."""

    name: str
    action_spec: ActionSpec
    cameras: tuple[str, ...] | None
    fingerprint: str


@dataclass
class SeatPolicy:
    """One seat at the desk, under one method."""

    method: str
    character: Character
    link: Connection
    exchange: Exchange
    tokens: Iterator[int] = field(default_factory=count)
    """Numbers that mark a question and its answer: after a crash an older answer may still be on its way."""

    @property
    def name(self) -> str:
        """Return what tables call it."""
        return self.character.name

    @property
    def action_spec(self) -> ActionSpec:
        """Return what its actions mean."""
        return self.character.action_spec

    @property
    def cameras(self) -> tuple[str, ...] | None:
        """Return the cameras it reads."""
        return self.character.cameras

    @property
    def fingerprint(self) -> str:
        """Return what decides its answers."""
        return self.character.fingerprint

    def reset(self, task: Task, seed: int) -> None:
        """Let the desk prepare for an episode.

        Raises:
            DeskError: If the policy raised.
        """
        self._ask("reset", (task, seed))

    def act(self, obs: Observation) -> ActionChunk:
        """Return the desk's answer.

        Raises:
            DeskError: If the policy raised.
        """
        return self._ask("act", self.exchange.write(obs, obs))

    def synchronize(self) -> None:
        """Do nothing: an answer that has come is complete."""

    def _ask(self, verb: str, content: object):
        token = (os.getpid(), next(self.tokens))
        self.link.send((token, verb, self.method, content))
        while True:
            marked, kind, answer = self.link.recv()
            if marked == token:
                break
        if kind == "raised":
            raise DeskError(self.method, answer)
        return answer
