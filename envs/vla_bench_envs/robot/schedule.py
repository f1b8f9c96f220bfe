"""When the rows of a chunk are due: rows whose time has passed are dropped, and the newest chunk wins."""

from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Pending:
    """An accepted action whose first row has not been applied yet."""

    session: str
    sequence: int
    observation: int
    received_ns: int


@dataclass(frozen=True)
class _Row:
    due_ns: int
    expires_ns: int
    action: np.ndarray


class Schedule:
    """The rows that are still to be applied, and the action that waits for its acknowledgement."""

    def __init__(self) -> None:
        """Begin empty."""
        self._rows: deque[_Row] = deque()
        self.pending: Pending | None = None

    def replace(self, session: str, message: dict[str, Any], now_ns: int) -> Pending | None:
        """Plan a message's rows from now on instead of all others; return the action that this supersedes."""
        superseded = self.pending
        self.pending = Pending(session, message["seq"], message["obs_seq"], now_ns)
        step_ns, alive_ns = round(message["dt_ms"] * 1e6), round(message["ttl_ms"] * 1e6)
        dues = (now_ns + index * step_ns for index in range(len(message["chunk"])))
        rows = zip(dues, message["chunk"], strict=True)
        self._rows = deque(_Row(due, due + alive_ns, np.array(row, dtype=float)) for due, row in rows)
        return superseded

    def due(self, now_ns: int) -> tuple[np.ndarray | None, int]:
        """Return the row (size,) to apply now, and how many were dropped because their time had passed."""
        taken = [self._rows.popleft() for _ in range(sum(row.due_ns <= now_ns for row in self._rows))]
        if not taken:
            return None, 0
        if taken[-1].expires_ns < now_ns:
            return None, len(taken)
        return taken[-1].action, len(taken) - 1

    def clear(self) -> Pending | None:
        """Forget all rows; return the action that will never be applied."""
        pending, self.pending = self.pending, None
        self._rows.clear()
        return pending
