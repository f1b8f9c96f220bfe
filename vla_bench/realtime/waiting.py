"""What the arm does while an answer is on its way."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from jaxtyping import Float

from vla_bench.contestant import Answer
from vla_bench.policy import Division
from vla_bench.protocol import Protocol
from vla_bench.realtime.clock import VirtualClock
from vla_bench.realtime.latency import Latency
from vla_bench.types import ActionSpec

Waiting = Literal["hold", "repeat", "continue", "overlap"]
"""`hold`: the arm stands, the gripper stays as it is. `repeat`: the last action again. `continue`: the policy is asked
before its chunk ends, as early as the last answer took, and the rest of the chunk is applied meanwhile; the new chunk
is applied from its beginning (naive asynchronous inference). `overlap`: the same, and the actions of the new chunk that
were meant for the time that has passed are left out. Source of the last two: Black et al. 2025, "Real-Time Execution of
Action Chunking Flow Policies", section 2, where they are baselines."""

POSE = 6
"""Entries of an action before the gripper's."""


def division_while(waiting: Waiting, own: str) -> str:
    """Return the division of an episode whose method by itself is in `own`: motion during inference is more."""
    moves = waiting in ("continue", "overlap")
    return str(Division.most((Division(own or Division.EXACT), Division.ASYNC))) if moves else own


@dataclass(frozen=True)
class Realtime:
    """Latency in the loop, as a plan asks for it."""

    latency: Latency
    waiting: Waiting = "hold"

    def division(self, own: str) -> str:
        """Return what an episode gives up or needs whose method by itself is in the division `own`."""
        return division_while(self.waiting, own)

    def loop(self, method: str, spec: ActionSpec, period_ms: float, seed: int) -> "Loop":
        """Return what one episode needs."""
        return Loop(self, method, VirtualClock(period_ms), np.zeros(spec.size), np.random.default_rng([seed, 0xC10C]))


@dataclass
class Loop:
    """One episode on the virtual clock."""

    realtime: Realtime
    method: str
    clock: VirtualClock
    last: Float[np.ndarray, " size"]
    """The last action, or in the beginning none."""
    rng: np.random.Generator
    charged_ms: float = 0.0
    """Of the last answer."""
    n_waited: int = 0
    """Control steps that passed during it."""
    _rest: list[np.ndarray] = field(default_factory=list)
    """Of the last chunk, for the time of the next answer."""
    _asked: bool = False
    _resting_gripper: float | None = None

    def begin(self, protocol: Protocol) -> None:
        """Take the action that the environment settled with, and what leaves its gripper as it is."""
        standing = np.array(protocol.settle_action, dtype=float)
        if standing.shape == self.last.shape:
            self.last = standing
        self._resting_gripper = protocol.resting_gripper

    def actions(self, answer: Answer) -> Iterator[tuple[np.ndarray, bool]]:
        """Yield what is applied until the policy is asked again, and whether it is of the answer.

        Raises:
            LatencyError: If nobody knows how long the answer takes.
        """
        waiting = self.realtime.waiting
        self.charged_ms = self.realtime.latency.ms(answer, self.method, not self._asked, self.rng)
        self.n_waited = self.clock.steps(self.charged_ms)
        rest, self._rest, self._asked = self._rest, [], True
        for index in range(self.n_waited):
            yield self._noted(rest[index] if index < len(rest) else self._idle()), False
        chunk = [np.asarray(action, dtype=float) for action in answer.chunk.actions]
        if waiting == "overlap":
            chunk = chunk[self.n_waited :]
        if waiting in ("continue", "overlap"):
            ahead = max(1 - self.n_waited, len(chunk) - self.n_waited, 0)
            chunk, self._rest = chunk[:ahead], chunk[ahead:]
        for action in chunk:
            yield self._noted(action), True

    def _idle(self) -> np.ndarray:
        if self.realtime.waiting == "repeat":
            return self.last
        still = np.zeros_like(self.last)
        still[POSE:] = self.last[POSE:] if self._resting_gripper is None else self._resting_gripper
        return still

    def _noted(self, action: np.ndarray) -> np.ndarray:
        self.last = action
        return action
