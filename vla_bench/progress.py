"""A bar for a person who watches, and a line a minute for a log that is read later."""

import sys
import time
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

LINE_EVERY_S = 60.0
"""Seconds between two lines in a log; what takes less leaves none."""


class Progress(tqdm):
    """tqdm's bar on a terminal; elsewhere, as in a file or the log of a batch job, its text as lines."""

    def __init__(self, iterable: Iterable[Any] | None = None, *, show: bool | None = None, **options: Any) -> None:
        """Begin to count.

        Args:
            iterable: What to count while it is gone through; None where `update` counts.
            show: True draws the bar wherever stderr goes, False shows nothing, None what fits where it goes.
            options: tqdm's own.
        """
        self._as_lines = show is None and not sys.stderr.isatty()
        self._next_line = time.monotonic() + LINE_EVERY_S
        if self._as_lines:
            options |= {"file": _Lines(), "ncols": 0, "mininterval": LINE_EVERY_S, "maxinterval": LINE_EVERY_S,
                        "miniters": 1, "delay": LINE_EVERY_S, "leave": True, "position": 0}  # fmt: skip
        super().__init__(iterable, disable=show is False, **options)

    def refresh(self, *args: Any, **kwargs: Any) -> None:
        """Draw the bar, or write a line where the last one is old enough."""
        if self._as_lines:
            if time.monotonic() < self._next_line:
                return
            self._next_line = time.monotonic() + LINE_EVERY_S
        super().refresh(*args, **kwargs)


class _Lines:
    """stderr for a bar that draws itself over and over: every drawing is a line of its own."""

    def write(self, text: str) -> None:
        line = text.strip()
        if line:
            sys.stderr.write(line + "\n")

    def flush(self) -> None:
        sys.stderr.flush()
