"""What caching did in a step: recorded with every query."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, UInt8

from vla_bench.policy import Fate
from vla_bench_policies.token_cache.buffer import NEVER
from vla_bench_policies.token_cache.plan import RowPlan
from vla_bench_policies.token_cache.rule import CacheRule

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
    """Share of the visual row-layers that the rule meant to leave out, before the decoder ran."""

    effective: float
    """Share that was left out in the end, after recovery and narrowing."""

    rows_per_layer: tuple[int, ...]
    """Rows computed in each layer, those that are not visual included."""

    rows_reused: int
    """Visual rows that were seen without being computed in at least one layer."""

    rows_deleted: int
    """Visual rows that were not seen in at least one layer."""

    rows_refreshed: int
    """Visual rows that are computed in every layer, and were reused the step before."""

    age_max: int
    """Greatest age of a value that was seen, in inferences."""

    age_counts: tuple[int, ...]
    """Reused visual rows by age at their oldest layer, in `AGE_BINS`."""

    flops: int
    """Floating-point operations of the prompt's rows and of the gate, a multiply-add counted as two."""

    decoder_bytes: int
    """Bytes of weights, keys and values that the decoder's layers read for the prompt's rows."""

    fates: UInt8[np.ndarray, " visual"]
    """What happened to each visual row, a `Fate`: the verb of its last layer."""

    def to_dict(self, bytes_extended: int = 0) -> dict[str, Any]:
        """Return plain JSON values, without what is a number a row; bytes with those of rows that came later."""
        values = {own.name: getattr(self, own.name) for own in fields(self) if own.name not in ("fates", "flops")}
        values["decoder_bytes"] += bytes_extended
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def of(
        cls, rule: CacheRule, full_because: str, nominal: float, plan: RowPlan, n_rest: int, flops: int,
        decoder_bytes: int, reused_before: Bool[np.ndarray, " visual"], after: Int[np.ndarray, "layers visual"],
    ) -> "CacheReport":  # fmt: skip
        """Return the report of a step.

        Args:
            rule: Has decided it.
            full_because: See `CacheReport`.
            nominal: Of the plan before the decoder.
            plan: As it was followed.
            n_rest: Rows that are not visual.
            flops: See `CacheReport`.
            decoder_bytes: See `CacheReport`.
            reused_before: Visual rows that the last step reused, at some layer.
            after: Ages of every visual row and layer after the step.
        """
        active, visible, last = plan.active_until, plan.visible_until, plan.n_layers - 1
        reused, deleted = visible > active, visible <= last
        # a step that computes a layer computes those before it, so the oldest value that is seen is the last one
        oldest = after[np.maximum(visible - 1, 0), np.arange(len(visible))][reused]
        refreshed = (active > last) & reused_before
        fates = np.select((deleted, reused, refreshed), (Fate.DELETED, Fate.REUSED, Fate.REFRESHED), Fate.COMPUTED)
        leaving = np.bincount(active, minlength=plan.n_layers)[: plan.n_layers]
        rows = len(active) + n_rest - leaving.cumsum()
        return cls(
            rule=rule.name,
            provenance=rule.provenance,
            full_because=full_because,
            nominal=nominal,
            effective=1.0 - plan.computed_share(),
            rows_per_layer=tuple(rows.tolist()),
            rows_reused=len(oldest),
            rows_deleted=int(deleted.sum()),
            rows_refreshed=int(refreshed.sum()),
            age_max=int(oldest.max(initial=0)),
            age_counts=_histogram(oldest),
            flops=flops,
            decoder_bytes=decoder_bytes,
            fates=fates.astype(np.uint8),
        )


def _histogram(ages: Int[np.ndarray, " rows"]) -> tuple[int, ...]:
    assert not (ages == NEVER).any()  # the cache has refused to show what was never computed
    return tuple(np.bincount(np.searchsorted(AGE_BINS, ages, side="right") - 1, minlength=len(AGE_BINS)).tolist())
