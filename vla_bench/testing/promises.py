"""How a promise is held: a function that returns what was found instead, or None."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from vla_bench.errors import ContractError, VlaBenchError

WRONG = (
    ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError,
    Warning, gymnasium.error.Error, VlaBenchError,
)  # fmt: skip
"""What broken code raises; anything else passes through."""


def hold(subject: str, case: Any, *promises: Callable[[Any], str | None]) -> None:
    """Ask for every promise in turn.

    Raises:
        ContractError: Naming the first promise that is broken, and what was found.
    """
    for promise in promises:
        name = promise.__name__.replace("_", " ").strip()
        try:
            found = promise(case)
        except WRONG as caught:
            raise ContractError(subject, name, f"{type(caught).__name__}: {caught}") from caught
        if found is not None:
            raise ContractError(subject, name, found)


def accepted(call: Callable[[], object]) -> str | None:
    """Return what happened instead of a `VlaBenchError`."""
    try:
        call()
    except VlaBenchError:
        return None
    except WRONG as caught:
        return f"{type(caught).__name__} instead of a VlaBenchError: {caught}"
    return "it was accepted"


def same(one: Any, other: Any) -> bool:
    """Tell whether two entries of an observation are equal to the last bit."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes()
    return type(one) is type(other) and bool(one == other)
