"""Time by stage, as a device spends it: every stage is closed by an event, and all are read after one wait."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class StageClock:
    """Adds up the time of stages, which may lie within each other; what an inner one takes is not the outer one's."""

    def __init__(self, device: torch.device) -> None:
        self._on_cuda = device.type == "cuda"
        self._spans: list[tuple[str, str | None, Any, Any]] = []
        """Stage, the stage around it, begin and end."""
        self._around: list[str] = []
        self._names: list[str] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count what happens within as this stage's."""
        around = self._around[-1] if self._around else None
        self._around.append(name)
        self._names.append(name)
        began = self._now()
        try:
            yield
        finally:
            self._around.pop()
            self._spans.append((name, around, began, self._now()))

    def laps_ms(self) -> dict[str, float]:
        """Return the time of each stage [ms], in the order in which they began; waits for the device, once."""
        if self._on_cuda:
            torch.cuda.synchronize()
        laps = dict.fromkeys(self._names, 0.0)
        for name, around, began, ended in self._spans:
            took = began.elapsed_time(ended) if self._on_cuda else (ended - began) / 1e6
            laps[name] += took
            if around is not None:
                laps[around] -= took
        return laps

    def _now(self) -> Any:
        if not self._on_cuda:
            return time.perf_counter_ns()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
