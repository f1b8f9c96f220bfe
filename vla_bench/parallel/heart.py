"""A sign of life that another process can read, and the stack of a process that shows none."""

import faulthandler
import os
import signal
import time
from ctypes import c_double
from multiprocessing.context import SpawnContext
from pathlib import Path

DUMP_SIGNAL = signal.SIGUSR1
"""Makes a process write the stacks of its threads; it works while native code hangs, too."""

DUMP_S = 0.5
"""Time that writing them may take."""


class Heart:
    """The time of the last beat, in shared memory; 0 while nothing is due."""

    def __init__(self, context: SpawnContext, stacks: Path) -> None:
        """Show no life yet.

        Args:
            context: Starts the process that beats.
            stacks: File for the stacks of that process.
        """
        self._beat = context.RawValue(c_double, 0.0)
        self._stacks = str(stacks)

    def listen(self) -> None:
        """Let this process write its stacks when it is asked to; an interrupt is left to its parent."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        stream = Path(self._stacks).open("w")  # noqa: SIM115 - it is written to when nothing else works any more
        faulthandler.register(DUMP_SIGNAL, stream, all_threads=True)

    def beat(self) -> None:
        """Show life, and promise to do so again."""
        self._beat.value = time.monotonic()

    def rest(self) -> None:
        """Promise nothing."""
        self._beat.value = 0.0

    @property
    def silent_s(self) -> float:
        """Return for how long life is due; 0 while nothing is."""
        beat = self._beat.value
        return time.monotonic() - beat if beat else 0.0

    def stacks(self, pid: int) -> str:
        """Return the stacks of a living process that listens."""
        try:
            os.kill(pid, DUMP_SIGNAL)
            time.sleep(DUMP_S)
            return Path(self._stacks).read_text()
        except OSError as caught:
            return f"no stack could be had ({caught})"
