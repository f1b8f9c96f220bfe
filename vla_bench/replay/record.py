"""The raw facts of one recording under one method."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vla_bench.types import Query, queries_of, query_columns


@dataclass(frozen=True)
class ReplayRecord:
    """One recording under one method; distances are made later, from two of them."""

    dataset: str
    """Name of the directory of recordings."""

    episode: int
    """Index in it."""

    sentence: str
    policy: str
    method: str
    actions: tuple[tuple[float, ...], ...]
    """What would have been applied at each control step; cut short if the policy raised."""

    recorded: tuple[tuple[float, ...], ...]
    """What was applied when it was recorded."""

    queries: tuple[Query, ...] = ()
    error: str | None = None
    """Type and message of what was raised; such a record is in no figure, and retried on resume."""

    @property
    def key(self) -> tuple[str, int]:
        """Return what must be unique among the finished records of a replay."""
        return (self.method, self.episode)

    @property
    def is_broken(self) -> bool:
        """Return whether it must be replayed again."""
        return self.error is not None

    @property
    def done(self) -> np.ndarray:
        """Return `actions` as an array (steps, action)."""
        return np.array(self.actions)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; queries by column."""
        return {**asdict(self), "queries": query_columns(self.queries)}

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> "ReplayRecord":
        """Return the record that `to_dict` wrote."""
        actions = {name: tuple(map(tuple, record[name])) for name in ("actions", "recorded")}
        return cls(**{**record, **actions, "queries": queries_of(record["queries"])})
