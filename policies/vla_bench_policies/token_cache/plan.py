"""What happens to each visual row at each layer: recomputed, reused or deleted.

A row is recomputed in the first layers, then only its cached key and value stay visible, then not even they:

    layer      0 ... active_until - 1     active_until ... visible_until - 1     visible_until ...
    verb       RECOMPUTE                  REUSE                                  DELETE

Two numbers a row say it all, and sets that only shrink with depth need no check: nothing else can be written down.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Int

from vla_bench.errors import VlaBenchError


class PlanError(VlaBenchError):
    """Refuse a plan that no cache can follow: a mistake of the rule that made it."""

    def __init__(self, problem: str, expected: str) -> None:
        super().__init__(f"a cache rule's plan {problem}; expected {expected}: mend the rule")


@dataclass(frozen=True)
class RowPlan:
    """The verbs of all visual rows, in the order of the layout."""

    active_until: Int[np.ndarray, " rows"]
    """The first layer in which the row is not recomputed; 0 for a row that is reused or deleted altogether."""

    visible_until: Int[np.ndarray, " rows"]
    """The first layer in which nobody sees the row; at least `active_until`."""

    n_layers: int

    def __post_init__(self) -> None:
        """Refuse layers out of range."""
        if self.active_until.shape != self.visible_until.shape or self.active_until.ndim != 1:
            shapes = f"{self.active_until.shape} and {self.visible_until.shape}"
            raise PlanError(f"has shapes {shapes}", "one number a visual row in both")
        ordered = (self.active_until >= 0) & (self.active_until <= self.visible_until)
        if not (ordered & (self.visible_until <= self.n_layers)).all():
            row = int(np.flatnonzero(~(ordered & (self.visible_until <= self.n_layers)))[0])
            found = f"computes row {row} until layer {self.active_until[row]}, shows it until {self.visible_until[row]}"
            raise PlanError(found, f"0 <= active_until <= visible_until <= {self.n_layers}")

    @classmethod
    def full(cls, n_rows: int, n_layers: int) -> "RowPlan":
        """Return the plan that recomputes every row in every layer."""
        whole = np.full(n_rows, n_layers)
        return cls(whole, whole.copy(), n_layers)

    @cached_property
    def is_full(self) -> bool:
        """Return whether every row is recomputed in every layer."""
        return bool((self.active_until == self.n_layers).all())

    @cached_property
    def changes_at(self) -> frozenset[int]:
        """Return the layers before which a row leaves the stream or is deleted."""
        return frozenset(np.unique(np.concatenate((self.active_until, self.visible_until))).tolist())

    def reuse(self, rows: Bool[np.ndarray, " rows"], from_layer: int = 0) -> "RowPlan":
        """Return the plan in which these rows leave the stream at a layer, and their cached values stay."""
        until = np.where(rows, np.minimum(self.active_until, from_layer), self.active_until)
        return RowPlan(until, self.visible_until, self.n_layers)

    def delete(self, rows: Bool[np.ndarray, " rows"], from_layer: int = 0) -> "RowPlan":
        """Return the plan in which these rows are gone from a layer on."""
        visible = np.where(rows, np.minimum(self.visible_until, from_layer), self.visible_until)
        return RowPlan(np.minimum(self.active_until, visible), visible, self.n_layers)

    def recompute(self, rows: Bool[np.ndarray, " rows"]) -> "RowPlan":
        """Return the plan in which these rows are recomputed in every layer."""
        active, visible = (np.where(rows, self.n_layers, until) for until in (self.active_until, self.visible_until))
        return RowPlan(active, visible, self.n_layers)

    def active(self, layer: int) -> Bool[np.ndarray, " rows"]:
        """Return the rows that a layer recomputes."""
        return self.active_until > layer

    def visible(self, layer: int) -> Bool[np.ndarray, " rows"]:
        """Return the rows that a layer sees, recomputed or reused."""
        return self.visible_until > layer

    def reused(self, layer: int) -> Bool[np.ndarray, " rows"]:
        """Return the rows whose cached key and value a layer sees."""
        return self.visible(layer) & ~self.active(layer)

    def computed_share(self) -> float:
        """Return the part of the full plan's row-layers that is computed."""
        return float(self.active_until.sum() / (self.n_layers * max(len(self.active_until), 1)))

    def check_follows(self, earlier: "RowPlan", layer: int) -> None:
        """Refuse a plan made at a layer that changes what lies behind it, or brings back rows.

        Raises:
            PlanError: Naming the row.
        """
        behind = np.minimum(self.active_until, layer) != np.minimum(earlier.active_until, layer)
        back = (self.active_until > layer) & (earlier.active_until <= layer)
        seen = (self.visible_until > layer) & (earlier.visible_until <= layer)
        if (wrong := behind | back | seen).any():
            row = int(np.flatnonzero(wrong)[0])
            raise PlanError(f"made at layer {layer} brings back row {row}", "rows to leave, and none to return")
