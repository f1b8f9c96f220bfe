"""What caching did in a step: recorded with every query."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from vla_bench_policies.token_cache.buffer import NEVER
from vla_bench_policies.token_cache.plan import RowPlan

AGE_BINS = (1, 2, 4, 8, 16, 32)
"""Lower ends of the histogram's bins of ages, in inferences; the last one is open."""


@dataclass(frozen=True)
class CacheReport:
    """One step of one environment."""

    rule: str
    provenance: str
    full_because: str
    """`first` after a reset, `refresh` if the rule wanted it, empty if the plan was not full."""

    nominal: float
    """Share of the visual row-layers that the plan before the decoder leaves out."""

    effective: float
    """Share that was left out in the end, after recovery and narrowing."""

    rows_per_layer: tuple[int, ...]
    """Rows computed in each layer, those that are not visual included."""

    rows_reused: int
    """Visual rows that were seen without being computed in at least one layer."""

    rows_deleted: int
    """Visual rows that were not seen in at least one layer."""

    age_max: int
    """Greatest age of a value that was seen, in inferences."""

    age_counts: tuple[int, ...]
    """Reused visual rows by age at their oldest layer, in `AGE_BINS`."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def report(
    rule: str, provenance: str, full_because: str, nominal: float, plan: RowPlan, n_rest: int, ages: np.ndarray
) -> CacheReport:
    """Return the report of a step.

    Args:
        rule: Its name.
        provenance: Of what it looked at.
        full_because: See `CacheReport`.
        nominal: Of the plan before the decoder.
        plan: As it was followed.
        n_rest: Rows that are not visual.
        ages: Of every visual row and layer after the step (layers, visual).
    """
    layers = np.arange(plan.n_layers)[:, None]
    active = layers < plan.active_until
    reused = ~active & (layers < plan.visible_until)
    seen_old = reused.any(axis=0)
    oldest = np.where(reused, ages, 0).max(axis=0, initial=0)
    return CacheReport(
        rule=rule,
        provenance=provenance,
        full_because=full_because,
        nominal=nominal,
        effective=1.0 - plan.computed_share(),
        rows_per_layer=tuple((active.sum(axis=1) + n_rest).tolist()),
        rows_reused=int(seen_old.sum()),
        rows_deleted=int((plan.visible_until < plan.n_layers).sum()),
        age_max=int(oldest.max(initial=0)),
        age_counts=_histogram(oldest[seen_old]),
    )


def _histogram(ages: Int[np.ndarray, " rows"]) -> tuple[int, ...]:
    assert not (ages == NEVER).any()  # the cache has refused to show what was never computed
    return tuple(np.histogram(ages, bins=(*AGE_BINS, np.iinfo(np.int64).max))[0].tolist())
