"""Messages as bytes: msgpack with arrays, as openpi writes them.

An array is a map of four entries, `__ndarray__: true`, `data` (its bytes in C order), `dtype` (NumPy's string) and
`shape`; a scalar is `__npgeneric__: true`, `data`, `dtype`. Source: openpi at 15a9616,
`packages/openpi-client/src/openpi_client/msgpack_numpy.py`. Nothing is ever unpickled.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

from vla_bench.link.errors import WireError

KINDS = "biufU"
"""Kinds of NumPy types that travel: bool, signed, unsigned, float, text. Objects would be pickles, void hides them."""

MOST_BYTES = 32 * 2**20
"""Largest message that either end takes: ten times two pictures of 1024 px would fit, garbage that never ends not."""


@dataclass(frozen=True)
class Marks:
    """The keys that make a map an array."""

    array: Any
    scalar: Any
    data: Any
    dtype: Any
    shape: Any


OPENPI = Marks(b"__ndarray__", b"__npgeneric__", b"data", b"dtype", b"shape")
"""openpi's keys, which are bytes."""

TEXT = Marks("__ndarray__", "__npgeneric__", "data", "dtype", "shape")
"""The same keys as text. Source: allenai/vla-evaluation-harness, `docs/rfcs/0002-communication-protocol.md`."""


def packed(message: Mapping[str, Any], marks: Marks = OPENPI) -> bytes:
    """Return a message as bytes.

    Raises:
        WireError: If something in it cannot travel.
    """
    try:
        data: Any = msgpack.packb(message, default=lambda value: _marked(value, marks))
        return data
    except (TypeError, ValueError, OverflowError) as caught:
        raise WireError(f"cannot be packed ({caught})", "numbers, text, bytes, lists, maps and arrays") from caught


def unpacked(data: bytes | str) -> dict[str, Any]:
    """Return the message in some bytes; its arrays are new and writable, marked in either way.

    Raises:
        WireError: If these are no such bytes.
    """
    if isinstance(data, str):
        raise WireError(f"is text ({data[:60]!r})", "a binary frame")
    try:
        message = msgpack.unpackb(data, object_hook=_restored)
    except WireError:
        raise
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as caught:
        raise WireError(
            f"of {len(data)} bytes is no msgpack ({type(caught).__name__}: {caught})", "one map"
        ) from caught
    if not isinstance(message, dict):
        raise WireError(f"is a {type(message).__name__}", "a map")
    return message


def _marked(value: Any, marks: Marks) -> dict[Any, Any]:
    if not isinstance(value, np.ndarray | np.generic):
        raise TypeError(f"{type(value).__name__} {value!r:.60}")
    if value.dtype.kind not in KINDS:
        raise TypeError(f"an array of {value.dtype}")
    if isinstance(value, np.ndarray):
        return {marks.array: True, marks.data: value.tobytes(), marks.dtype: value.dtype.str, marks.shape: value.shape}
    return {marks.scalar: True, marks.data: value.item(), marks.dtype: value.dtype.str}


def _restored(found: dict[Any, Any]) -> Any:
    for marks in (OPENPI, TEXT):
        if marks.array in found:
            return _array(found, marks)
        if marks.scalar in found:
            return _type(found.get(marks.dtype)).type(found.get(marks.data))
    return found


def _array(found: dict[Any, Any], marks: Marks) -> np.ndarray:
    data, shape, dtype = found.get(marks.data), found.get(marks.shape), _type(found.get(marks.dtype))
    if not isinstance(data, bytes) or not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise WireError(f"has an array of shape {shape!r} with {type(data).__name__} for its data", "sizes and bytes")
    if math.prod(shape) * dtype.itemsize != len(data):
        raise WireError(f"has {len(data)} bytes for an array of {dtype} {tuple(shape)}", "as many as the shape needs")
    return np.frombuffer(data, dtype).reshape(shape).copy()


def _type(name: Any) -> np.dtype:
    try:
        dtype = np.dtype(name) if isinstance(name, str) else None
    except (TypeError, ValueError, SyntaxError):
        dtype = None
    if dtype is None or dtype.kind not in KINDS or dtype.shape:
        raise WireError(f"has an array of type {name!r:.60}", f"a plain NumPy type of the kinds {', '.join(KINDS)}")
    return dtype
