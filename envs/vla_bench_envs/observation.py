"""An observation whose images are drawn when they are read."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from vla_bench.errors import StaleImageError


class LazyObservation(dict[str, Any]):
    """A dict whose images are drawn at first access and kept; everything that reads a value draws it.

    Copies (`dict(obs)`, `{**obs}`, `copy`, pickle) are plain dicts of arrays. Asking for keys or the length draws
    nothing. An image that was never read is gone when the environment takes its next step.
    """

    def __init__(self, draw: Callable[[str], np.ndarray], cameras: tuple[str, ...], rest: dict[str, Any]) -> None:
        """Promise an image of every camera; `rest` is what need not be drawn."""
        super().__init__(dict.fromkeys(cameras) | rest)
        self._draw: Callable[[str], np.ndarray] | None = draw
        self._undrawn = set(cameras)

    def expire(self) -> None:
        """Say that the moment has passed: images that were not read cannot be drawn any more."""
        self._draw = None

    def __getitem__(self, key: str) -> Any:
        if key in self._undrawn:
            if self._draw is None:
                raise StaleImageError(key)
            super().__setitem__(key, self._draw(key))
            self._undrawn.discard(key)
        return super().__getitem__(key)

    def __setitem__(self, key: str, value: Any) -> None:
        self._undrawn.discard(key)
        super().__setitem__(key, value)

    def __iter__(self) -> Iterator[str]:  # overridden so that dict(obs) and {**obs} go through __getitem__
        return super().__iter__()

    def drawn(self) -> dict[str, Any]:
        """Return a plain dict with every image drawn."""
        return {key: self[key] for key in self}

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value, drawn, or the default."""
        return self[key] if key in self else default  # noqa: SIM401 - this is `get`

    def pop(self, key: str, *default: Any) -> Any:
        """Remove a key and return its value, drawn."""
        if key in self:
            self[key]
        return super().pop(key, *default)

    def setdefault(self, key: str, default: Any = None) -> Any:
        """Return a value, drawn, after setting it to the default if there is none."""
        if key not in self:
            self[key] = default
        return self[key]

    def items(self) -> Any:
        """Return the items, drawn."""
        return self.drawn().items()

    def values(self) -> Any:
        """Return the values, drawn."""
        return self.drawn().values()

    def copy(self) -> dict[str, Any]:
        """Return a plain dict, drawn."""
        return self.drawn()

    def __or__(self, other: Any) -> dict[str, Any]:
        return self.drawn() | dict(other)

    def __ror__(self, other: Any) -> dict[str, Any]:
        return dict(other) | self.drawn()

    def __eq__(self, other: object) -> bool:
        return self.drawn() == other

    __hash__ = None  # type: ignore[assignment]  # as for dict

    def __reduce__(self) -> Any:
        return dict, (self.drawn(),)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.__reduce__()

    def __copy__(self) -> dict[str, Any]:
        return self.drawn()

    def __repr__(self) -> str:
        shown = {key: "<not drawn>" if key in self._undrawn else dict.__getitem__(self, key) for key in self}
        return f"LazyObservation({shown})"
