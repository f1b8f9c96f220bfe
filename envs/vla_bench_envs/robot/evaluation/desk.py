"""Between the thread that plays and the threads that serve the page: what is shown, and what was pressed."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Word = Literal["start", "success", "failure", "undo", "recover", "estop"]

Picture = np.ndarray | bytes
"""Pixels (height, width, 3) `uint8`, or a JPEG of them."""

LONGEST_NOTE = 500
"""Characters of a note that are kept."""


@dataclass(frozen=True)
class Press:
    """A button that was pressed while it could be."""

    word: str
    note: str = ""

    milestones: tuple[str, ...] = ()
    """Of those that were shown, the ticked ones."""

    failure: str = ""
    """The chosen code of those that were shown; empty for none."""


@dataclass(frozen=True)
class View:
    """What the page shows."""

    number: int
    """Grows with every change; a press names the view that it answers."""

    facts: Mapping[str, Any]
    """Plain JSON values."""

    pictures: Mapping[str, tuple[int, Picture | None]]
    """By kind, `live` or `reference`: a number that grows with every change, and the picture, if there is one."""


class Desk:
    """One view, one press: a button counts once, and only for the view in which it could be seen."""

    def __init__(self, stop: Callable[[], None]) -> None:
        """Begin with nothing to press; `stop` stops the robot, from any thread, at any time."""
        self._stop = stop
        self._changed = threading.Condition()
        self._number = 0
        self._facts: dict[str, Any] = {"phase": "waiting", "buttons": []}
        self._pictures: dict[str, tuple[int, Picture | None]] = {}
        self._press: Press | None = None

    def show(self, phase: str, buttons: tuple[Word, ...] = (), **facts: Any) -> None:
        """Show something new; what was pressed before and not taken is void."""
        with self._changed:
            self._number += 1
            self._facts = {"phase": phase, "buttons": list(buttons)} | facts
            self._press = None
            self._changed.notify_all()

    def amend(self, **facts: Any) -> None:
        """Change what is shown, not what can be pressed."""
        with self._changed:
            self._facts = self._facts | facts
            self._changed.notify_all()

    def picture(self, kind: Literal["live", "reference"], picture: Picture | None) -> None:
        """Show another picture, or none; who serves the page encodes it, not the thread that plays."""
        with self._changed:
            number, _ = self._pictures.get(kind, (0, None))
            self._pictures[kind] = (number + 1, picture)
            self._changed.notify_all()

    def view(self) -> View:
        """Return what is shown now."""
        with self._changed:
            return View(self._number, self._facts, dict(self._pictures))

    def press(self, word: str, number: int, note: str = "", milestones: Sequence[str] = (), failure: str = "") -> None:
        """Note that a button was pressed in a view; not if that view is gone or had no such button.

        Milestones and codes that were not shown are left out.

        A stop is no matter of views: it stops.
        """
        if word == "estop":
            self._stop()
            self.amend(alarm="Stop was pressed. Look at the robot.")
            return
        with self._changed:
            if number == self._number and self._press is None and word in self._facts["buttons"]:
                reached = tuple(name for name in self._facts.get("milestones", ()) if name in milestones)
                code = failure if failure in self._facts.get("failures", ()) else ""
                self._press = Press(word, note[:LONGEST_NOTE], reached, code)
                self._facts = self._facts | {"buttons": []}
                self._changed.notify_all()

    def pressed(self) -> Press | None:
        """Return what was pressed in this view, if anything was."""
        with self._changed:
            return self._press

    def wait(self, timeout_s: float | None = None) -> Press | None:
        """Return what is pressed in this view; None if nothing is in time."""
        with self._changed:
            self._changed.wait_for(lambda: self._press is not None, timeout_s)
            return self._press
