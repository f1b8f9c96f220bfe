"""A thread that does one thing again and again, beside the servo loop, for devices that make their caller wait."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from vla_bench_envs.robot.errors import DriverError

END_S = 5.0
"""Patience for a turn that is under way."""


class Worker:
    """Take turns until it is closed, or one raises; then whoever checks is told."""

    def __init__(self, driver: str, turn: Callable[[], None], period_s: float) -> None:
        """Begin; a turn starts `period_s` after the one before has ended."""
        self._driver, self._turn, self._period_s = driver, turn, period_s
        self._ends = threading.Event()
        self._thread = ThreadPoolExecutor(1, driver)
        self._loop: Future[None] = self._thread.submit(self._run)

    def check(self) -> None:
        """Return if it still takes turns.

        Raises:
            DriverError: With what ended it.
        """
        if self._loop.done():
            caught = self._loop.exception()
            raise DriverError(self._driver, f"has lost its device ({type(caught).__name__}: {caught})") from caught

    def close(self) -> None:
        """End after the turn that is under way; safe to call twice."""
        self._ends.set()
        self._thread.shutdown(wait=False)
        try:
            self._loop.exception(END_S)
        except TimeoutError:
            return  # it waits for its device; nothing more is asked of it

    def _run(self) -> None:
        while not self._ends.wait(self._period_s):
            self._turn()
