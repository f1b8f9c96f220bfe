"""The worker's script as a process of another interpreter: questions, answers, deadlines, its end."""

import os
import select
import shutil
import signal
import subprocess
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from vla_bench_envs.simpler_google import worker
from vla_bench_envs.simpler_google.errors import (
    VARIABLE,
    InterpreterError,
    MissingInterpreterError,
    WorkerDiedError,
    WorkerTimeoutError,
)

END_S = 10.0
"""How long a process may take to end once its stdin has."""

OURS = ("PYTHONPATH", "PYTHONHOME")
"""Environment variables that are about this interpreter and would mislead the other one."""

LAST_WORDS_BYTES = 1500


def interpreter(named: str = "") -> str:
    """Return the path of the interpreter that is named, or that the environment variable names.

    Raises:
        MissingInterpreterError: If neither names one.
        InterpreterError: If there is no such program.
    """
    named = named or os.environ.get(VARIABLE, "")
    if not named:
        raise MissingInterpreterError
    found = shutil.which(Path(named).expanduser())
    if found is None:
        raise InterpreterError(named, "is no program that can be run")
    return str(found)


class Process:
    """A running worker. It ends at `close`, when this process ends however it does, and after any failure."""

    def __init__(self, python: str = "", timeout_s: float = 300.0) -> None:
        """Start the worker; nothing is imported by it yet.

        Args:
            python: Path of the interpreter; by default what the environment variable names.
            timeout_s: How long an answer may take.

        Raises:
            MissingInterpreterError: If no interpreter is named.
            InterpreterError: If it cannot be run.
        """
        self.python = interpreter(python)
        self.timeout_s = timeout_s
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        environment = {name: value for name, value in os.environ.items() if name not in OURS}
        try:
            self._popen = subprocess.Popen(
                [self.python, "-u", worker.__file__],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, env=environment,
                start_new_session=True,  # Ctrl-C is for the benchmark, which then closes this
            )  # fmt: skip
        except OSError as caught:
            self._said.close()
            raise InterpreterError(self.python, f"cannot be run ({caught.strerror})") from caught
        self._finalizer = weakref.finalize(self, _end, self._popen, self._said, 0.0)

    @property
    def pid(self) -> int:
        """Return the number of the process."""
        return self._popen.pid

    @property
    def alive(self) -> bool:
        """Return whether it can be asked something."""
        return self._finalizer.alive and self._popen.poll() is None

    def ask(
        self, what: str, header: dict[str, Any] | None = None, arrays: dict[str, np.ndarray] | None = None
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return header and arrays of the answer; after an error the process is gone.

        Raises:
            WorkerDiedError: If it ends instead of answering.
            WorkerTimeoutError: If it does not answer in time.
            InterpreterError: If what answers is not the worker.
        """
        assert self._popen.stdin is not None
        if not self._finalizer.alive:
            raise WorkerDiedError(what, "is gone", "")
        try:
            with suppress(BrokenPipeError):  # what it said before it went is still to be read
                self._popen.stdin.write(worker.encode({**(header or {}), "ask": what}, arrays))
                self._popen.stdin.flush()
            return worker.decode(self._reader())
        except (EOFError, OSError) as caught:
            end, said = self._end(), self._last_words()
            self.close()
            if isinstance(caught, TimeoutError):
                raise WorkerTimeoutError(what, self.timeout_s, said) from caught
            raise WorkerDiedError(what, end, said) from caught
        except ValueError as caught:  # no frame, or no JSON in it
            self._stop()
            raise InterpreterError(self.python, f"does not run the worker, it answers {caught}") from caught
        except BaseException:  # Ctrl-C: the answer to come would be taken for the next one's
            self._stop()
            raise

    def close(self) -> None:
        """End the process; kill it if it does not end by itself."""
        if self._finalizer.detach() is not None:
            _end(self._popen, self._said, END_S)

    def _stop(self) -> None:
        self._popen.kill()
        self.close()

    def _reader(self) -> Any:
        """Return a function that reads so many bytes, fewer at the end, until the deadline."""
        assert self._popen.stdout is not None
        source, deadline = self._popen.stdout.fileno(), monotonic() + self.timeout_s
        ready = select.poll()
        ready.register(source, select.POLLIN)

        def read(n_bytes: int) -> bytes:
            parts: list[bytes] = []
            while n_bytes:
                if not ready.poll(max(0.0, deadline - monotonic()) * 1000):
                    self._popen.kill()
                    raise TimeoutError
                part = os.read(source, n_bytes)
                if not part:
                    break
                parts.append(part)
                n_bytes -= len(part)
            return b"".join(parts)

        return read

    def _end(self) -> str:
        """Return in words how the process has ended."""
        try:
            status = self._popen.wait(END_S)
        except subprocess.TimeoutExpired:
            return "has closed its output"
        return f"ended with status {status}" if status >= 0 else f"was ended by {signal.Signals(-status).name}"

    def _last_words(self) -> str:
        source = self._said.fileno()
        begin = max(0, os.fstat(source).st_size - LAST_WORDS_BYTES)
        return os.pread(source, LAST_WORDS_BYTES, begin).decode(errors="replace").strip()


def _end(popen: "subprocess.Popen[bytes]", said: Any, wait_s: float) -> None:
    """End a process by the end of its stdin, or by force; free what belongs to it."""
    assert popen.stdin is not None
    assert popen.stdout is not None
    with suppress(BrokenPipeError):  # it was gone with something unread
        popen.stdin.close()
    try:
        popen.wait(wait_s)
    except subprocess.TimeoutExpired:
        popen.kill()
        popen.wait()
    popen.stdout.close()
    said.close()
