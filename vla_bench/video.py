"""Frames to H.264 in MP4 and back, by PyAV: yuv420p, as LeRobot's own datasets have it."""

from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from vla_bench.errors import MissingPackageError, OptionError

CRF = "18"
"""x264's constant rate factor; below 20 differences are hard to see (x264's documentation calls 17 to 18 visually
lossless). LeRobot's default is 30."""

KEYFRAME_EVERY = 10
"""Frames from one that is whole to the next: a frame can be read after decoding at most this many."""


def encode(path: Path, frames: np.ndarray, fps: int) -> None:
    """Write frames (n, height, width, 3) `uint8`; the same frames give the same bytes: one thread encodes.

    Raises:
        MissingPackageError: If PyAV is not installed.
        OptionError: If height or width is odd, which yuv420p cannot hold.
    """
    av = _av()
    _, height, width, _ = frames.shape
    if height % 2 or width % 2:
        raise OptionError("image_size", (height, width), "even numbers of pixels, which H.264 with yuv420p needs")
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": CRF, "g": str(KEYFRAME_EVERY), "bf": "0", "threads": "1"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode(None))


def decode(path: Path, start_s: float = 0.0, stop_s: float = float("inf")) -> np.ndarray:
    """Return the frames (n, height, width, 3) `uint8` whose time [s] is in [start, stop), half a microsecond spared.

    Where PyAV is not installed, OpenCV decodes; its colours differ where they change quickly, on average by less than
    two grey levels.

    Raises:
        MissingPackageError: If neither is installed.
    """
    times = _by_opencv(path) if find_spec("av") is None and find_spec("cv2") is not None else _by_av(path)
    return np.stack([frame for time_s, frame in times if start_s - 5e-7 <= time_s < stop_s - 5e-7])


def _by_av(path: Path) -> Iterator[tuple[float, np.ndarray]]:
    with _av().open(str(path)) as container:
        for frame in container.decode(video=0):
            yield frame.time, frame.to_ndarray(format="rgb24")


def _by_opencv(path: Path) -> Iterator[tuple[float, np.ndarray]]:
    """Yield frames at the times that a constant rate gives them."""
    cv2: Any = import_module("cv2")
    capture = cv2.VideoCapture(str(path))
    rate_hz = capture.get(cv2.CAP_PROP_FPS)
    for index in count():
        found, frame = capture.read()
        if not found:
            return
        yield index / rate_hz, frame[..., ::-1]


def _av() -> Any:
    try:
        import av
    except ImportError as caught:
        raise MissingPackageError("video", "av", caught) from caught
    return av
