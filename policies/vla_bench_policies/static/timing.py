"""Times of steps that are compared: interleaved, by events of the device and by the host's clock, each step awaited."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from time import perf_counter
from typing import Any

import numpy as np
import torch

LEAST = 10
"""Repetitions that are done even when time is up."""


def unprepared(name: str) -> None:
    """Prepare nothing for whose turn it is."""


@dataclass
class Times:
    """Of one step, a number a repetition [ms]."""

    device_ms: list[float] = field(default_factory=list)
    """Between two events around everything that was handed over."""
    wall_ms: list[float] = field(default_factory=list)
    """From before the first launch until the device has finished: no launch is hidden behind earlier work."""

    def summary(self, prefix: str) -> dict[str, float]:
        """Return median, 5th and 95th percentile of the device, and the median of the wall."""
        low, median, high = np.percentile(self.device_ms, (5, 50, 95))
        wall = float(np.median(self.wall_ms))
        return {
            f"{prefix}_ms": median, f"{prefix}_p5": low, f"{prefix}_p95": high, f"{prefix}_wall_ms": wall,
            f"{prefix}_n": len(self.device_ms),
        }  # fmt: skip


def speed_up(
    reference: list[float], measured: list[float], rng: np.random.Generator, draws: int = 500
) -> tuple[float, float, float]:
    """Return the ratio of paired medians with its 95 % bootstrap interval, repetitions drawn together."""
    pairs = np.stack((reference, measured))
    picked = pairs[:, rng.integers(0, pairs.shape[1], (draws, pairs.shape[1]))]
    medians = np.median(picked, axis=2)
    low, high = np.percentile(medians[0] / medians[1], (2.5, 97.5))
    return float(np.median(reference) / np.median(measured)), float(low), float(high)


class Watchmaker:
    """Times steps on a device until a moment."""

    def __init__(self, device: torch.device, repetitions: int, until: float = float("inf")) -> None:
        """Take the moment of `time.perf_counter` after which no more than `LEAST` repetitions are done [s]."""
        self.device, self.repetitions, self.until = device, repetitions, until
        self._on_cuda = device.type == "cuda"

    def compare(
        self,
        steps: Mapping[str, Callable[[], Any]],
        rng: np.random.Generator,
        prepare: Callable[[str], None] = unprepared,
    ) -> dict[str, Times]:
        """Return the times of steps that take turns, in an order that is drawn anew for each repetition.

        Args:
            steps: By name.
            rng: Draws the order.
            prepare: Is told whose turn it is, before the time is taken.
        """
        names, found = list(steps), {name: Times() for name in steps}
        for name in names:
            prepare(name)
            for _ in range(3):
                steps[name]()
        for repetition in range(self.repetitions):
            if repetition >= LEAST and perf_counter() > self.until:
                break
            for index in rng.permutation(len(names)):
                name = names[index]
                prepare(name)
                device_ms, wall_ms = self._one(steps[name])
                found[name].device_ms.append(device_ms)
                found[name].wall_ms.append(wall_ms)
        return found

    def stages(self, step: Callable[[Callable[[str], None]], Any]) -> dict[str, float]:
        """Return the median time of each stage that a step marks the end of [ms], and of the whole as `total`."""
        rows: list[dict[str, float]] = []
        for _ in range(self.repetitions):
            self.wait()
            marks = [("", self._now())]
            step(lambda stage, marks=marks: marks.append((stage, self._now())))
            self.wait()
            row = {name: self._between(before, now) for (_, before), (name, now) in pairwise(marks)}
            rows.append(row | {"total": self._between(marks[0][1], marks[-1][1])})
        return {name: float(np.median([row[name] for row in rows])) for name in rows[0]}

    def median_ms(self, step: Callable[[], Any], repetitions: int = 11) -> float:
        """Return the median time of a step by the device's events [ms]."""
        for _ in range(3):
            step()
        return float(np.median([self._one(step)[0] for _ in range(repetitions)]))

    def wait(self) -> None:
        """Wait for the device."""
        if self._on_cuda:
            torch.cuda.synchronize(self.device)

    def _one(self, step: Callable[[], Any]) -> tuple[float, float]:
        self.wait()
        began = perf_counter()
        first = self._now()
        step()
        last = self._now()
        self.wait()
        return self._between(first, last), (perf_counter() - began) * 1e3

    def _now(self) -> Any:
        if not self._on_cuda:
            return perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def _between(self, first: Any, last: Any) -> float:
        return first.elapsed_time(last) if self._on_cuda else (last - first) * 1e3
