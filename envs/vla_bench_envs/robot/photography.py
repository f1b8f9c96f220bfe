"""Cameras of a physical arm, in the endpoint: threads that always have a newest frame, so that nobody waits for one."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from vla_bench.errors import MissingPackageError
from vla_bench_envs.robot.drivers.worker import Worker
from vla_bench_envs.robot.errors import DriverError
from vla_bench_envs.robot.plugin import imported

STALE_NS = 500_000_000
"""A frame that is older is not shown: a camera that hangs must not look like a still scene."""

FIRST_S = 10.0
"""Patience for the first frame of each camera."""


class Camera(Protocol):
    """What gives frames; LeRobot's cameras do, too, once they are connected."""

    def read(self) -> np.ndarray:
        """Wait for the next frame and return it (height, width, 3) `uint8`, red first."""
        ...


@dataclass(frozen=True)
class Frame:
    """What a camera saw."""

    pixels: np.ndarray
    """(size, size, 3) `uint8`."""

    t_ns: int
    """When it had arrived, on the server's monotonic clock; exposure and the way here are before that."""


class Photography:
    """Cameras by the name under which a policy sees them."""

    def __init__(self, sources: Mapping[str, Mapping[str, Any]], size_px: int) -> None:
        """Open the cameras and wait for a frame of each.

        Raises:
            DriverError: If a camera gives none.
        """
        self._size_px = size_px
        self._frames: dict[str, Frame] = {}
        self._arrived = threading.Condition()
        self._cameras = {name: _open(source) for name, source in sources.items()}
        self._workers = {name: Worker(f"camera {name}", self._taker(name), 0.0) for name in sources}
        self.captured_ns: dict[str, int] = {}
        """When the frames that were drawn last had arrived."""
        try:
            self._await_first()
        except DriverError:
            self.close()
            raise

    @property
    def names(self) -> tuple[str, ...]:
        """Return the cameras."""
        return tuple(self._cameras)

    def draw(self, state: np.ndarray | None) -> dict[str, np.ndarray]:
        """Return the newest frame (size, size, 3) `uint8` of every camera that still gives some."""
        now_ns = time.monotonic_ns()
        fresh = {name: frame for name, frame in self._frames.items() if now_ns - frame.t_ns <= STALE_NS}
        self.captured_ns = {name: frame.t_ns for name, frame in fresh.items()}
        return {name: frame.pixels for name, frame in fresh.items()}

    def close(self) -> None:
        """Close the cameras."""
        for worker in self._workers.values():
            worker.close()
        for camera in self._cameras.values():
            for end in ("disconnect", "close"):
                if hasattr(camera, end):
                    getattr(camera, end)()
                    break

    def _await_first(self) -> None:
        deadline = time.monotonic() + FIRST_S
        for name, worker in self._workers.items():
            while name not in self._frames:
                worker.check()
                if time.monotonic() > deadline:
                    raise DriverError(f"camera {name}", f"gave no picture within {FIRST_S:.0f} s")
                with self._arrived:
                    self._arrived.wait(0.1)

    def _taker(self, name: str) -> Any:
        def take() -> None:
            pixels = np.asarray(self._cameras[name].read())
            arrived_ns = time.monotonic_ns()
            if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
                raise DriverError(f"camera {name}", f"gives {pixels.dtype} {pixels.shape}, not uint8 (h, w, 3)")
            self._frames[name] = Frame(cut(pixels, self._size_px), arrived_ns)
            with self._arrived:
                self._arrived.notify_all()

        return take


def cut(pixels: np.ndarray, size_px: int) -> np.ndarray:
    """Return the middle square of a picture (height, width, 3), at a size."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(np.ascontiguousarray(pixels[top : top + side, left : left + side]))
    return np.asarray(square.resize((size_px, size_px), Image.Resampling.BILINEAR, reducing_gap=2.0))


def _open(source: Mapping[str, Any]) -> Camera:
    options = {key: value for key, value in source.items() if key not in ("device", "make")}
    if "device" in source:
        return OpenCvCamera(source["device"], **options)
    camera = imported(source["make"])(**options)
    if hasattr(camera, "connect"):
        camera.connect()
    return camera


class OpenCvCamera:
    """A camera, or a film, that OpenCV opens."""

    def __init__(self, device: int | str, width_px: int = 640, height_px: int = 480, fps: float = 30.0) -> None:
        """Open it.

        Raises:
            MissingPackageError: If OpenCV is not installed.
            DriverError: If it cannot be opened.
        """
        try:
            import cv2
        except ImportError as caught:
            raise MissingPackageError("the camera", "opencv-python-headless", caught, "cameras") from caught
        self._capture: Any = cv2.VideoCapture(device)
        if not self._capture.isOpened():
            raise DriverError(f"camera {device}", "cannot be opened by OpenCV")
        for name, value in ((cv2.CAP_PROP_FRAME_WIDTH, width_px), (cv2.CAP_PROP_FRAME_HEIGHT, height_px)):
            self._capture.set(name, value)
        self._capture.set(cv2.CAP_PROP_FPS, fps)
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # where the backend obeys: no queue of old frames
        self._device = device

    def read(self) -> np.ndarray:
        """Wait for the next frame and return it (height, width, 3) `uint8`, red first.

        Raises:
            DriverError: If there is none.
        """
        there, pixels = self._capture.read()
        if not there:
            raise DriverError(f"camera {self._device}", "gives no more frames")
        return pixels[:, :, ::-1]

    def close(self) -> None:
        """Let go of it."""
        self._capture.release()
