"""Messages, version 1: msgpack maps whose `t` is the type, checked field by field before anything acts on them.

Nothing is ever unpickled. An array is `{"nd": dtype, "shape": [...], "data": bytes}` with a numeric dtype; object and
void are refused. Unknown keys are ignored, unknown types refused. Numbers must be finite, but for an action's chunk:
whether that is finite is for the gate to say, which then holds the robot.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np

from vla_bench_envs.robot.errors import MessageError

PROTOCOL = 1
MAX_BYTES = 8 << 20
"""Of a message; a longer one is refused before it is read."""

DTYPES = frozenset({"|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f4", "<f8"})
"""Of arrays: numeric, little endian, no objects."""

ROLES = ("control", "observe", "operator")
COMMANDS = ("acquire", "release", "arm", "hold", "home", "reset", "recover", "trial_begin", "trial_end")


@dataclass(frozen=True)
class _Field:
    expected: str
    accepts: Callable[[Any], bool]
    default: Any = None
    required: bool = True


def _integer(found: Any) -> bool:
    return isinstance(found, int) and not isinstance(found, bool) and 0 <= found < 1 << 62


def _within(low: float, high: float) -> Callable[[Any], bool]:
    def accepts(found: Any) -> bool:
        number = isinstance(found, int | float) and not isinstance(found, bool)
        return number and math.isfinite(found) and low <= found <= high

    return accepts


def _text(longest: int) -> Callable[[Any], bool]:
    return lambda found: isinstance(found, str) and len(found) <= longest


def _one_of(*words: str) -> Callable[[Any], bool]:
    return lambda found: isinstance(found, str) and found in words


_INTEGER = _Field("an integer from 0 to 2^62", _integer)
_SESSION_TEXT = _Field("at most 128 characters", _text(128))
SCHEMA: dict[str, dict[str, _Field]] = {
    "hello": {
        "proto": _INTEGER,
        "client": _SESSION_TEXT,
        "role": _Field(f"one of {', '.join(ROLES)}", _one_of(*ROLES)),
        "token": _Field("at most 512 characters", _text(512), "", required=False),
    },
    "hb": {"lease": _Field("at most 128 characters", _text(128), "", required=False)},
    "cmd": {
        "op": _Field(f"one of {', '.join(COMMANDS)}", _one_of(*COMMANDS)),
        "lease": _Field("at most 128 characters", _text(128), "", required=False),
        "period_ms": _Field("a number from 1 to 10000", _within(1, 10_000), 100.0, required=False),
        "task": _Field("an integer", _integer, 0, required=False),
        "init_state": _Field("an integer", _integer, 0, required=False),
    },
    "estop": {},
    "get_obs": {},
    "act": {
        "lease": _SESSION_TEXT,
        "seq": _INTEGER,
        "obs_seq": _INTEGER,
        "mode": _Field("at most 32 characters", _text(32)),
        "chunk": _Field("an array", lambda found: isinstance(found, np.ndarray)),
        "dt_ms": _Field("a number from 1 to 10000", _within(1, 10_000), 100.0, required=False),
        "ttl_ms": _Field("a number from 1 to 10000", _within(1, 10_000), 1000.0, required=False),
        "policy": _Field("at most 256 characters", _text(256), "", required=False),
    },
}
"""What a client may send, and the fields that are read of it."""


def pack(message: Mapping[str, Any]) -> bytes:
    """Return the bytes of a message; NumPy arrays become maps of dtype, shape and data."""
    packed = msgpack.packb(message, default=_plain)
    assert packed is not None  # for the type checker; a packer without a stream returns bytes
    return packed


def unpack(raw: bytes) -> dict[str, Any]:
    """Return the map that bytes hold.

    Raises:
        MessageError: If they are no msgpack map with text keys, too long, or hold an array that is no numbers.
    """
    if not isinstance(raw, bytes | bytearray | memoryview):
        raise MessageError(f"the type {type(raw).__name__}", "binary frames of msgpack")
    if len(raw) > MAX_BYTES:
        raise MessageError(f"{len(raw)} bytes", f"at most {MAX_BYTES}")
    try:
        found = msgpack.unpackb(raw, object_hook=_array, max_ext_len=0, strict_map_key=True)
    except MessageError:
        raise
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as caught:
        raise MessageError(f"bytes that are no msgpack ({type(caught).__name__})", "a msgpack map") from caught
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise MessageError(f"a {type(found).__name__} at its top", "a map with text keys")
    return found


def checked(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a client's message that its type has, defaults filled in.

    Raises:
        MessageError: If the type is unknown, or a field missing or wrong.
    """
    kind = message.get("t")
    if not isinstance(kind, str) or kind not in SCHEMA:
        raise MessageError(f"the type {str(kind)[:40]!r}", f"one of {', '.join(SCHEMA)}")
    known: dict[str, Any] = {"t": kind}
    for name, own in SCHEMA[kind].items():
        if name not in message and not own.required:
            known[name] = own.default
        elif name not in message:
            raise MessageError(f"no {name!r} in its {kind!r}", own.expected)
        elif not own.accepts(message[name]):
            raise MessageError(f"{name}={repr(message[name])[:40]} in its {kind!r}", own.expected)
        else:
            known[name] = message[name]
    return known


def _plain(found: Any) -> Any:
    if isinstance(found, np.ndarray):
        array = np.ascontiguousarray(found)
        if array.dtype.str not in DTYPES:
            raise MessageError(f"an array of {array.dtype}", f"one of {', '.join(sorted(DTYPES))}")
        return {"nd": array.dtype.str, "shape": list(found.shape), "data": array.tobytes()}
    if isinstance(found, np.generic):
        return found.item()
    raise MessageError(f"a {type(found).__name__}", "plain values and arrays")


def _array(found: dict[Any, Any]) -> Any:
    if "nd" not in found:
        return found
    dtype, shape, data = found["nd"], found.get("shape"), found.get("data")
    if dtype not in DTYPES:
        raise MessageError(f"an array of {str(dtype)[:20]!r}", f"one of {', '.join(sorted(DTYPES))}")
    if not isinstance(shape, list) or len(shape) > 4 or not all(_integer(size) for size in shape):
        raise MessageError(f"an array of shape {str(shape)[:40]}", "up to four sizes")
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if not isinstance(data, bytes) or len(data) != n_bytes:
        raise MessageError("an array whose bytes do not fit its shape", f"{min(n_bytes, MAX_BYTES)} bytes")
    return np.frombuffer(data, dtype).reshape(shape)
