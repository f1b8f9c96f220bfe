"""Pictures of a trial, for raters that come later: an MCAP log of the first camera, which Foxglove plays, too."""

import base64
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vla_bench.errors import ResultsWriteError
from vla_bench_envs.robot.errors import LogError
from vla_bench_envs.robot.log import Log, read

TOPIC = "/image/"


def write(path: Path, camera: str, pictures: Sequence[np.ndarray], period_ms: float) -> None:
    """Write pictures (height, width, 3) `uint8`, one a control period; nothing in the file says who played.

    Raises:
        ResultsWriteError: If the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)  # of an attempt whose record a crash has lost
        log = Log(path)
        for index, pixels in enumerate(pictures):
            log.picture(camera, pixels, round(index * period_ms * 1e6))
        log.close()
    except OSError as caught:
        raise ResultsWriteError(path, caught) from caught


def read_jpegs(path: Path) -> list[bytes]:
    """Return the pictures of a film as JPEG.

    Raises:
        LogError: If it cannot be read, or holds none.
    """
    pictures = [base64.b64decode(said["data"]) for topic, _, said in read(path) if topic.startswith(TOPIC)]
    if not pictures:
        raise LogError(path, "holds no picture")
    return pictures
