"""Which turn comes next, whoever plays it, here or on another node; and what happens to one that was lost."""

from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from vla_bench.plan import ResolvedPlan
from vla_bench.types import Cell, EpisodeRecord, Outcome

LOST_AGAIN = 1
"""How often an episode that was lost with its process is played again in the same run."""

Turn = tuple[Cell, str]


@dataclass(frozen=True)
class Ended:
    """How a turn came out."""

    seat: int
    """Whose it was."""
    record: EpisodeRecord
    lost: bool = False
    """Whether a process died or hung, and the episode with it."""


class Hands(Protocol):
    """Seats that play one turn at a time each."""

    def free(self) -> Sequence[int]:
        """Return the seats that wait for a turn."""
        ...

    def give(self, seat: int, turn: Turn, attempt: int) -> None:
        """Let a free seat play."""
        ...

    def look(self) -> list[Ended]:
        """Wait a moment, replace who has died or hangs, and return what has ended."""
        ...


class Band(Hands, Protocol):
    """Hands that come and go together."""

    def at_work(self) -> AbstractContextManager["Band"]:
        """Start the processes; end all of them however the block ends."""
        ...

    def conditions(self) -> dict[str, str]:
        """Return what must be equal between episodes that are compared, as they have found it."""
        ...


@dataclass
class _Deck:
    """What is left to play, by task."""

    turns: dict[int, deque[Turn]]
    playing: dict[int, Turn] = field(default_factory=dict)
    """By seat."""
    tasks: dict[int, int] = field(default_factory=dict)
    """Of each seat's last turn: another one is dear."""

    @classmethod
    def of(cls, todo: Sequence[Turn]) -> "_Deck":
        turns: dict[int, deque[Turn]] = {}
        for turn in todo:
            turns.setdefault(turn[0].task, deque()).append(turn)
        return cls(turns)

    def deal(self, seat: int) -> Turn | None:
        """Return the next turn of the seat's task, or of the task with most to do, of those that nobody plays first."""
        left = {task: len(turns) for task, turns in self.turns.items() if turns}
        if not left:
            return None
        if self.tasks.get(seat) not in left:
            others = {cell.task for cell, _ in self.playing.values()}
            self.tasks[seat] = max(left, key=lambda task: (task not in others, left[task]))
        self.playing[seat] = self.turns[self.tasks[seat]].popleft()
        return self.playing[seat]

    def take_back(self, turn: Turn) -> None:
        self.turns[turn[0].task].append(turn)

    @property
    def empty(self) -> bool:
        return not self.playing and not any(self.turns.values())


def play(hands: Hands, todo: Sequence[Turn], attempts: Counter, done: Callable[[EpisodeRecord, bool], None]) -> None:
    """Play all turns; what is lost with a process is played again, once.

    Args:
        hands: Who plays.
        todo: What is to be played.
        attempts: How often each was tried before, by method and cell.
        done: Is given every record as it comes, and whether its episode will be played again.

    Raises:
        CannotWorkError: If a process cannot make its environment or policy.
    """
    deck, tried, lost = _Deck.of(todo), Counter(attempts), Counter()
    while not deck.empty:
        for seat in hands.free():
            if (turn := deck.deal(seat)) is not None:
                cell, method = turn
                tried[method, cell] += 1
                hands.give(seat, turn, tried[method, cell])
        for ended in hands.look():
            turn, key = deck.playing.pop(ended.seat), ended.record.key
            again = ended.lost and lost[key] < LOST_AGAIN
            if again:
                lost[key] += 1
                deck.take_back(turn)
            done(ended.record, again)


def lost_record(plan: ResolvedPlan, policy: str, turn: Turn, attempt: int, wall_s: float, reason: str) -> EpisodeRecord:
    """Return the record of an episode that nobody could end."""
    cell, method = turn
    return EpisodeRecord(
        plan.suite.name, method, policy, cell, Outcome.ERROR, 0, "", str(plan.protocol), 0.0, 0.0, wall_s,
        error=reason, attempt=attempt, timed=plan.timed,
    )  # fmt: skip
