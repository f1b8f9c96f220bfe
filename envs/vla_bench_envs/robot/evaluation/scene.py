"""Reference images of starts, and how well a scene was reset to one."""

import io
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from vla_bench.errors import ResultsWriteError
from vla_bench.types import Cell

WIDTH_PX = 112
"""Pictures are compared at this width: averaging over pixels takes most of a camera's noise away."""

WINDOW_PX = 1.5
"""Standard deviation of the window. Source: Wang et al. 2004, section III.B."""

LUMINANCE, CONTRAST = (0.01 * 255) ** 2, (0.03 * 255) ** 2
"""Constants C1 and C2. Source: Wang et al. 2004, section III.C (K1 = 0.01, K2 = 0.03)."""

WORST = 0.02
"""Share of the picture, the least similar one, that the score is the mean of: a thing covers some percent of it."""


def reset_score(reference: np.ndarray, live: np.ndarray) -> float:
    """Return how similar two pictures (height, width, 3) `uint8` are where they differ most; 1 if nowhere.

    The mean of structural similarity (Wang, Bovik, Sheikh and Simoncelli 2004, IEEE Trans. Image Processing 13:600,
    equation 13) over the worst `WORST` of the picture, in grey, at `WIDTH_PX`. The mean over the whole picture would
    hardly see a thing that stands wrong. It falls with light, too: compare scores of one day with each other.

    Raises:
        ValueError: If the pictures differ in shape.
    """
    if reference.shape != live.shape:
        raise ValueError(f"pictures of {reference.shape} and {live.shape}")
    one, other = _grey(reference), _grey(live)
    mean_one, mean_other = _smooth(one), _smooth(other)
    variance_one, variance_other = _smooth(one * one) - mean_one**2, _smooth(other * other) - mean_other**2
    covariance = _smooth(one * other) - mean_one * mean_other
    luminance = (2 * mean_one * mean_other + LUMINANCE) / (mean_one**2 + mean_other**2 + LUMINANCE)
    structure = (2 * covariance + CONTRAST) / (variance_one + variance_other + CONTRAST)
    similarity = np.sort((luminance * structure).ravel())
    return float(min(1.0, similarity[: max(1, round(WORST * similarity.size))].mean()))


def jpeg(pixels: np.ndarray) -> bytes:
    """Return a picture (height, width, 3) `uint8` as JPEG."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "JPEG", quality=85)
    return stream.getvalue()


class Starts:
    """Reference images, one a start: the first picture of its first trial, or what was put there before."""

    def __init__(self, directory: Path) -> None:
        """Keep them in a directory, which is made."""
        self._directory = directory

    def get(self, cell: Cell) -> np.ndarray | None:
        """Return the reference (height, width, 3) `uint8` of a start; None if there is none yet."""
        path = self._path(cell)
        return np.asarray(Image.open(path).convert("RGB")) if path.exists() else None

    def keep(self, cell: Cell, pixels: np.ndarray) -> None:
        """Make a picture the reference of a start.

        Raises:
            ResultsWriteError: If it cannot be written.
        """
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(self._path(cell))
        except OSError as caught:
            raise ResultsWriteError(self._path(cell), caught) from caught

    def _path(self, cell: Cell) -> Path:
        return self._directory / f"task-{cell.task}-start-{cell.init_state}.png"


def _grey(pixels: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    size = WIDTH_PX, round(WIDTH_PX * height / width)
    return np.asarray(Image.fromarray(pixels).convert("L").resize(size, Image.Resampling.BOX), dtype=float)


def _smooth(values: np.ndarray) -> np.ndarray:
    return gaussian_filter(values, WINDOW_PX)
