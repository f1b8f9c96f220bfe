"""Energy of a repeated step, by the counter of an NVIDIA card."""

from collections.abc import Callable
from importlib import import_module
from time import perf_counter, sleep
from typing import Any

import torch


class EnergyMeter:
    """Reads the card's counter of energy since the driver was loaded; it moves every 20 to 100 ms."""

    def __init__(self, device: torch.device) -> None:
        """Find the counter.

        Raises:
            ImportError: If the package `nvidia-ml-py` is not there.
            pynvml.NVMLError: If the card has no such counter.
        """
        pynvml = import_module("pynvml")

        pynvml.nvmlInit()
        self._library: Any = pynvml
        self._device = device
        self._card = pynvml.nvmlDeviceGetHandleByIndex(device.index or 0)
        self._read_j()

    def idle_w(self, seconds: float = 1.0) -> float:
        """Return the power while nothing is computed [W]."""
        torch.cuda.synchronize(self._device)
        began, before = perf_counter(), self._read_j()
        sleep(seconds)
        return (self._read_j() - before) / (perf_counter() - began)

    def of(self, step: Callable[[], Any], seconds: float = 2.0) -> dict[str, float]:
        """Return energy [J] and time [ms] of a step, and the mean power [W], over some seconds of nothing else."""
        for _ in range(5):
            step()
        torch.cuda.synchronize(self._device)
        began, before, count = perf_counter(), self._read_j(), 0
        while perf_counter() - began < seconds:
            step()
            torch.cuda.synchronize(self._device)
            count += 1
        took, used = perf_counter() - began, self._read_j() - before
        return {"joule": used / count, "watt": used / took, "ms": took / count * 1e3, "steps": count}

    def _read_j(self) -> float:
        return self._library.nvmlDeviceGetTotalEnergyConsumption(self._card) / 1e3
