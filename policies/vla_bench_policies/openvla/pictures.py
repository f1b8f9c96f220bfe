"""From a rendered picture to what the towers are shown, as the published evaluations do it.

For LIBERO (openvla/openvla, `experiments/robot/libero/libero_utils.py` and `experiments/robot/openvla_utils.py`; the
same in moojink/openvla-oft): a JPEG round trip, Lanczos-3 to 224 px with antialiasing, a centre crop of 0.9 of the area
that is sampled bilinearly back to 224 px. The two TensorFlow operations are written here after what their kernels do
(`scale_and_translate_op.cc`, `crop_and_resize_op.cc`), in float32 and in the same order. A test holds the result
against hashes of what TensorFlow 2.21 has made of the same pictures.
"""

from collections.abc import Iterable
from functools import cache, reduce

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from PIL import Image
from torch import Tensor

from vla_bench_policies.openvla.jpeg import round_trip

Colours = tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]
"""Mean and deviation of red, green and blue in [0, 1], by tower."""

CROP_AREA = 0.9
"""Part of the picture's area that is left by the centre crop; a side keeps its square root."""

LANCZOS = 3
"""Lobes of the filter on each side."""

NEAR = 1e-3
"""Distance up to which the filter counts as 1."""


def libero_picture(picture: UInt8[np.ndarray, "height width 3"], px: int, crop: bool) -> UInt8[np.ndarray, "px px 3"]:
    """Return a rendered picture as OpenVLA's LIBERO evaluation shows it to the model, before normalisation."""
    shown = lanczos(round_trip(picture), px)
    return centre_crop(shown, px) if crop else shown


def lanczos(picture: UInt8[np.ndarray, "h w 3"], px: int) -> UInt8[np.ndarray, "px px 3"]:
    """Return the picture resized by `tf.image.resize(method="lanczos3", antialias=True)`, rounded half to even.

    Rows are resampled first, then columns, without rounding in between, which Pillow's own filter does. TensorFlow's
    answer, but for about one value in 700 000 that is a grey level off: the sine of a C library is rounded otherwise.
    """
    shown = picture.astype(np.float32)
    places, weights = _lanczos_taps(picture.shape[0], px)
    tall = _in_order(weights[:, tap, None, None] * shown[places[:, tap]] for tap in range(weights.shape[1]))
    places, weights = _lanczos_taps(picture.shape[1], px)
    fit = _in_order(weights[:, tap, None] * tall[:, places[:, tap]] for tap in range(weights.shape[1]))
    return np.clip(np.rint(fit), 0, 255).astype(np.uint8)


def centre_crop(picture: UInt8[np.ndarray, "h w 3"], px: int, area: float = CROP_AREA) -> UInt8[np.ndarray, "px px 3"]:
    """Return the middle of the picture, sampled to px x px as `tf.image.crop_and_resize` does.

    Corners are pixel centres, four neighbours are mixed, and nothing is smoothed. Back in 8 bits, the brightness is
    cut off, not rounded: `tf.image.convert_image_dtype` multiplies by 255.5 first.
    """
    side = np.sqrt(np.float32(area))
    begin = (np.float32(1) - side) / np.float32(2)
    whole = picture.astype(np.float32) * np.float32(1 / 255)
    (top, bottom, down), (left, right, across) = (_neighbours(length, px, begin, side) for length in picture.shape[:2])
    mixed_rows = whole[:, left] + (whole[:, right] - whole[:, left]) * across[:, None]
    mixed = mixed_rows[top] + (mixed_rows[bottom] - mixed_rows[top]) * down[:, None, None]
    mixed = np.clip(mixed, 0, 1)
    return np.minimum(mixed * np.float32(255.5), 255).astype(np.uint8)


def fitted(picture: UInt8[np.ndarray, "h w 3"], px: int) -> UInt8[np.ndarray, "px px 3"]:
    """Return the picture squeezed to a square by Pillow's bicubic filter: `resize-naive`; as it is if it fits."""
    return np.asarray(Image.fromarray(picture).resize((px, px), Image.Resampling.BICUBIC))


def normalised(
    frames: UInt8[np.ndarray, "n px px 3"] | Float32[Tensor, "n px px 3"], colours: Colours
) -> Float32[Tensor, "n 6 px px"]:
    """Return each picture, of 0 to 255, twice, with the mean and deviation of each tower's colours."""
    pixels = torch.as_tensor(frames).permute(0, 3, 1, 2).float() / 255
    parts = [
        (pixels - pixels.new_tensor(mean).view(3, 1, 1)) / pixels.new_tensor(deviation).view(3, 1, 1)
        for mean, deviation in colours
    ]
    return torch.cat(parts, dim=1)


def _neighbours(length: int, px: int, begin: np.float32, side: np.float32) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, for each sample along a side, the pixels before and behind it and how far it is on its way."""
    last = np.float32(length - 1)
    step = side * last / np.float32(px - 1)
    place = begin * last + np.arange(px, dtype=np.float32) * step
    before = np.floor(place).astype(np.int64)
    return before, np.ceil(place).astype(np.int64), place - before.astype(np.float32)


@cache
def _lanczos_taps(size: int, px: int) -> tuple[Int64[np.ndarray, "px taps"], Float32[np.ndarray, "px taps"]]:
    """Return the pixels that each of `px` samples takes of `size`, and how much of them.

    The filter is widened where the picture shrinks. All is rounded to float32 step by step, as in the kernel.
    """
    single = np.float32
    step = single(1 / np.float64(single(px) / single(size)))
    widened = max(step, single(1))
    centre = (np.arange(px, dtype=single) + single(0.5)) * step
    first = np.maximum(np.ceil(centre - LANCZOS * widened - single(0.5)), 0).astype(np.int64)
    last = np.minimum(np.floor(centre + LANCZOS * widened - single(0.5)), size - 1).astype(np.int64)
    places = first[:, None] + np.arange((last - first).max() + 1)
    away = np.abs((places.astype(single) + single(0.5) - centre[:, None]) * (single(1) / widened))
    weights = np.where(places <= last[:, None], _lanczos(away), single(0))
    total = _in_order(weights.T)
    return np.minimum(places, size - 1), weights * (single(1) / total)[:, None]


def _in_order(parts: Iterable[np.ndarray]) -> np.ndarray:
    """Return the sum, added up one after the other."""
    return reduce(np.add, parts)


def _lanczos(away: Float32[np.ndarray, "px taps"]) -> Float32[np.ndarray, "px taps"]:
    """Return the windowed sinc of distances that are not negative."""
    single = np.float32
    apart = np.maximum(away, single(NEAR))
    angle = single(np.pi) * apart

    def sine(of: np.ndarray) -> np.ndarray:
        return np.sin(of.astype(np.float64)).astype(single)

    squared = single(np.pi) * single(np.pi) * apart * apart
    values = single(LANCZOS) * sine(angle) * sine(angle / single(LANCZOS)) / squared
    return np.where(away <= single(NEAR), single(1), np.where(away > LANCZOS, single(0), values))
