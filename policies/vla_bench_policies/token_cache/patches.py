"""What raw pixels say about each visual row: the model's own patches, after crop and resize, before any network."""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8

Since = Literal["inference", "computed"]
"""What a frame is compared with: that of the last inference, as the papers do, or, against creeping change, for each
row the frame in which it was computed."""


def patches(frames: UInt8[np.ndarray, "views px px 3"], grid: int) -> Float32[np.ndarray, "rows values"]:
    """Return the pixels of each visual row's patch, view by view in raster order."""
    views, px = frames.shape[:2]
    side = px // grid
    cut = frames.reshape(views, grid, side, grid, side, 3).transpose(0, 1, 3, 2, 4, 5)
    return cut.reshape(views * grid * grid, -1).astype(np.float32)


def of_pixels(
    rows: Bool[np.ndarray, " rows"], frames: UInt8[np.ndarray, "views px px 3"], grid: int
) -> Bool[np.ndarray, "views px px 1"]:
    """Return what holds for each pixel, from what holds for the visual row of its patch."""
    views, px = frames.shape[:2]
    side = px // grid
    return rows.reshape(views, grid, grid).repeat(side, axis=1).repeat(side, axis=2)[..., None]


def difference(
    now: Float32[np.ndarray, "rows values"], then: Float32[np.ndarray, "rows values"]
) -> Float32[np.ndarray, " rows"]:
    """Return each patch's mean absolute change, in grey levels of 255."""
    return np.abs(now - then).mean(axis=1)


def cosine_similarity(
    frames: UInt8[np.ndarray, "views px px 3"], reference: UInt8[np.ndarray, "views px px 3"], grid: int
) -> Float32[np.ndarray, " rows"]:
    """Return the cosine between a patch's pixels now and then; two black patches are equal."""
    now, then = patches(frames, grid), patches(reference, grid)
    norms = np.linalg.norm(now, axis=1) * np.linalg.norm(then, axis=1)
    alike = (now * then).sum(axis=1) / np.maximum(norms, 1e-12)
    return np.where(norms > 0, alike, (now == then).all(axis=1)).astype(np.float32)


def lowest(scores: np.ndarray, count: int) -> Int[np.ndarray, " count"]:
    """Return the rows with the lowest scores, lowest first; ties go to the lower row."""
    return np.argsort(scores, kind="stable")[:count]


def highest(scores: np.ndarray, count: int) -> Int[np.ndarray, " count"]:
    """Return the rows with the highest scores, highest first; ties go to the lower row."""
    return np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable")[:count]


def chosen(rows: np.ndarray, n_rows: int) -> np.ndarray:
    """Return a mask (n_rows,) of these rows."""
    mask = np.zeros(n_rows, dtype=bool)
    mask[rows] = True
    return mask
