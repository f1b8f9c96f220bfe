"""What kind of value stands where: JSON says nothing of it, and the rules of honest runs suppose it."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from math import isfinite
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

LARGEST = 1e15
"""Above every number of a run (milliseconds, metres, seconds), and far below where sums overflow."""

LARGEST_INT = 2**63
"""Above every count and seed."""

PLAN: dict[str, Any] = {
    "suite": str,
    "protocol": dict[str, Any],
    "tasks": list[int],
    "policy": str,
    "methods": list[str],
    "episodes": int,
    "seed": int,
}
PROTOCOL: dict[str, Any] = {"name": str, "hash": str}
CONDITIONS: dict[str, Any] = {"protocol": str, "policy": str, "processor": str, "accelerator": str}
SESSION: dict[str, Any] = {
    "started": str,
    "commit": str,
    "packages": dict[str, str],
    "machine": dict[str, Any],
}
MACHINE: dict[str, Any] = {"processor": str, "accelerator": str}


def misfits(values: Mapping[str, Any], shape: Mapping[str, Any]) -> list[str]:
    """Return one phrase for every name of `shape` that is missing, or holds another kind of value."""
    missing = [f"{name!r} is missing" for name in shape if name not in values]
    wrong = [name for name in shape if name in values and not fits(values[name], shape[name])]
    return [*missing, *(f"{name!r} is {short(values[name])}; expected {_said(shape[name])}" for name in wrong)]


@cache
def shape_of(kind: type) -> dict[str, Any]:
    """Return the fields of a dataclass with their types."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def fits(value: object, kind: Any) -> bool:
    """Return whether a value is of a type as dataclasses write it; a number is finite and of a size that is possible.

    Text that cannot be encoded (lone surrogates, which JSON can hold) does not fit.
    """
    if kind is Any:
        return True
    if kind is float or kind is int:
        return _is_number(value, kind)
    if kind is str:
        return isinstance(value, str) and (value.isascii() or _is_encodable(value))
    if get_origin(kind) is UnionType:
        return any(fits(value, one) for one in get_args(kind))
    if get_origin(kind) in (list, tuple):
        return isinstance(value, (list, tuple)) and all(fits(one, get_args(kind)[0]) for one in value)
    if get_origin(kind) is dict:
        of_key, of_value = get_args(kind)
        return isinstance(value, dict) and all(fits(key, of_key) and fits(one, of_value) for key, one in value.items())
    if not isinstance(value, kind):
        return False
    return not is_dataclass(kind) or all(fits(getattr(value, name), own) for name, own in shape_of(kind).items())


def short(value: object) -> str:
    """Return a value as it stands in a message."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_number(value: object, kind: type) -> bool:
    if isinstance(value, bool) or not isinstance(value, int if kind is int else (int, float)):
        return False
    return abs(value) < (LARGEST_INT if kind is int else LARGEST) and isfinite(value)


def _is_encodable(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _said(kind: Any) -> str:
    if kind is float:
        return "a finite number"
    return getattr(kind, "__name__", str(kind)) if get_origin(kind) is None else str(kind)
