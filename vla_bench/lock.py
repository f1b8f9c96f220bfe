"""One writer at a time: a lock file that the system releases when its holder dies, however it dies."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vla_bench.errors import RunLockedError


@contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Hold the lock file at `path` while inside; it says who holds it and stays when it is free.

    Raises:
        RunLockedError: If another process holds it.
        OSError: If it cannot be made.
    """
    with path.open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as caught:
            stream.seek(0)
            raise RunLockedError(path.parent, stream.read().strip() or "its name is not known") from caught
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {os.uname().nodename}")
        stream.flush()
        yield
