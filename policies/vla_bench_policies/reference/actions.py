"""From an environment's numbers to the model's and back: quantile normalisation, and bins for action tokens."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from vla_bench.types import ActionSpec

QUANTILES = (0.01, 0.99)
"""Mapped to -1 and 1. Source: OpenVLA, `NormalizationType.BOUNDS_Q99`."""

LEAST_RANGE = 0.1
"""Narrower ranges count as this wide, so that the noise of an unused axis is not blown up. Of an action, in LIBERO's
units: 5 mm and 50 mrad."""

N_BINS = 256
"""Values an action token can take. Source: OpenVLA (Kim et al. 2024), section 3.2."""


@dataclass(frozen=True)
class Range:
    """What the model calls -1 and 1, entry by entry."""

    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of(cls, values: Float[np.ndarray, "n size"], least: float | np.ndarray = LEAST_RANGE) -> "Range":
        """Return the range between the quantiles of each entry, at least `least` wide, of all or of each."""
        low, high = np.quantile(values, QUANTILES, axis=0)
        middle, half = (low + high) / 2, np.maximum(high - low, least) / 2
        return cls(tuple((middle - half).tolist()), tuple((middle + half).tolist()))

    @classmethod
    def of_actions(cls, values: Float[np.ndarray, "n size"], spec: ActionSpec) -> "Range":
        """Return the range of actions: in metres and radians, no narrower than LIBERO's."""
        libero, least = ActionSpec(), np.full(values.shape[1], LEAST_RANGE)
        least[0:3] *= libero.translation_m / spec.translation_m
        least[3:6] *= libero.rotation_rad / spec.rotation_rad
        return cls.of(values, least)

    @property
    def widths(self) -> list[float]:
        """Return how far `high` is from `low`, entry by entry."""
        return [high - low for low, high in zip(self.low, self.high, strict=True)]

    def normalise(self, values: Float[Tensor, "*n size"]) -> Float[Tensor, "*n size"]:
        """Return values where `low` is -1 and `high` is 1; what lies outside stays outside."""
        low, high = self._bounds(values)
        return 2 * (values - low) / (high - low) - 1

    def restore(self, values: Float[Tensor, "*n size"]) -> Float[Tensor, "*n size"]:
        """Undo `normalise`."""
        low, high = self._bounds(values)
        return (values + 1) / 2 * (high - low) + low

    def _bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        return like.new_tensor(self.low), like.new_tensor(self.high)


def to_bins(values: Float[Tensor, "*n"]) -> Int[Tensor, "*n"]:
    """Return the bin of normalised values, of `N_BINS` equal ones over [-1, 1]; what lies outside goes to the ends."""
    return ((values.clamp(-1, 1) + 1) / 2 * N_BINS).long().clamp(max=N_BINS - 1)


def from_bins(bins: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Return the centres of the bins."""
    return (bins.float() + 0.5) / N_BINS * 2 - 1
