"""An observation in shared memory: pictures pass from process to process without being pickled."""

from collections.abc import Iterable
from ctypes import c_byte
from math import prod
from multiprocessing.context import SpawnContext
from typing import Any

import numpy as np

from vla_bench.protocol import Protocol
from vla_bench.types import Observation

ROOM_BYTES = 4096
"""For what is no picture."""


class Exchange:
    """Holds one observation at a time: its worker writes, the desk reads."""

    def __init__(self, context: SpawnContext, protocol: Protocol) -> None:
        """Allocate room for the protocol's RGB pictures; both processes get it when they are started."""
        n_bytes = len(protocol.cameras) * 3 * prod(protocol.picture_px)
        self._room = context.RawArray(c_byte, n_bytes + ROOM_BYTES)

    def write(self, obs: Observation, keys: Iterable[str]) -> dict[str, Any]:
        """Put in the arrays of some entries, and return what `read` needs: where they are, and the other entries."""
        memory = np.ctypeslib.as_array(self._room).view(np.uint8)
        label: dict[str, Any] = {}
        begin = 0
        for key in keys:
            value = obs[key]
            if not isinstance(value, np.ndarray):
                label[key] = value
                continue
            end = begin + value.nbytes
            if end > len(memory):
                label[key] = value  # more than the protocol's pictures: it goes through the pipe
                continue
            memory[begin:end] = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
            label[key] = _Place(begin, value.shape, value.dtype.str)
            begin = -(-end // 8) * 8
        return label

    def read(self, label: dict[str, Any]) -> Observation:
        """Return the observation, with arrays of its own."""
        memory = np.ctypeslib.as_array(self._room).view(np.uint8)
        return {key: value.of(memory) if isinstance(value, _Place) else value for key, value in label.items()}


class _Place:
    """Where an array lies."""

    def __init__(self, begin: int, shape: tuple[int, ...], dtype: str) -> None:
        self._begin, self._shape, self._dtype = begin, shape, dtype

    def of(self, memory: np.ndarray) -> np.ndarray:
        dtype = np.dtype(self._dtype)
        end = self._begin + int(np.prod(self._shape)) * dtype.itemsize
        return memory[self._begin : end].copy().view(dtype).reshape(self._shape)
