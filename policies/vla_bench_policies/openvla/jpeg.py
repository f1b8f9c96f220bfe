"""A JPEG round trip to the bit, as TensorFlow does it: encoded accurately, decoded with the fast integer transform.

`tf.io.decode_image` asks libjpeg-turbo for `JDCT_IFAST` (`tensorflow/core/kernels/image/decode_image_op.cc`), which no
image library that we depend on offers. It cuts where the accurate transform rounds: two thirds of the pixels differ, by
one grey level on average. Entropy coding loses nothing, so it is left out; the rest is here, in the integers of
libjpeg-turbo (`jccolor.c`, `jcsample.c`, `jfdctint.c`, `jcdctmgr.c`, `jddctmgr.c`, `jidctfst.c`, `jdsample.c`,
`jdcolor.c`) and of ITU-T T.81, annex K. A test compares the result with that of the library itself.
"""

from functools import cache

import numpy as np
from jaxtyping import Int32, UInt8

QUALITY = 95
"""TensorFlow's `encode_jpeg`; it also halves the colours' resolution in both directions."""

LUMINANCE = """16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62
18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"""
COLOUR = """17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66 99 99 99 99 99 99
99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99 99"""
"""Divisors at quality 50. Source: T.81, tables K.1 and K.2."""


def round_trip(picture: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Return the picture after JPEG at `QUALITY`."""
    height, width, _ = picture.shape
    whole = _filled(picture.astype(np.int32), 16)
    red, green, blue = np.moveaxis(whole, 2, 0)
    bright = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    bluish = (-11059 * red - 21709 * green + 32768 * blue + (128 << 16) + 32767) >> 16
    reddish = (32768 * red - 27439 * green - 5329 * blue + (128 << 16) + 32767) >> 16
    bright = _coded(bright, LUMINANCE)
    rows, columns = -(-height // 2), -(-width // 2)
    halved = (_filled(_halved(one)[:rows], 8) for one in (bluish, reddish))  # filled up a second time, below
    bluish, reddish = (_doubled(_coded(one, COLOUR)[:rows, :columns]) for one in halved)
    y, cb, cr = bright[:height, :width], bluish[:height, :width] - 128, reddish[:height, :width] - 128
    colours = (
        y + ((91881 * cr + 32768) >> 16),
        y + ((-22554 * cb - 46802 * cr + 32768) >> 16),
        y + ((116130 * cb + 32768) >> 16),
    )
    return np.clip(np.stack(colours, axis=2), 0, 255).astype(np.uint8)


def _filled(plane: np.ndarray, multiple: int) -> np.ndarray:
    """Return the plane with its last row and column repeated up to whole blocks."""
    missing = [(0, -size % multiple) for size in plane.shape[:2]]
    return np.pad(plane, missing + [(0, 0)] * (plane.ndim - 2), mode="edge")


def _halved(plane: Int32[np.ndarray, "h w"]) -> Int32[np.ndarray, "h2 w2"]:
    """Return the mean of every four pixels; halves go down and up in turn."""
    total = plane[::2, ::2] + plane[::2, 1::2] + plane[1::2, ::2] + plane[1::2, 1::2]
    return (total + 1 + np.arange(total.shape[1]) % 2) >> 2


def _doubled(plane: Int32[np.ndarray, "h w"]) -> Int32[np.ndarray, "h2 w2"]:
    """Return four pixels for each, three quarters of the nearer and a quarter of the farther neighbour each way."""
    above, below = np.vstack((plane[:1], plane[:-1])), np.vstack((plane[1:], plane[-1:]))
    tall = np.empty((2 * plane.shape[0], plane.shape[1]), np.int32)
    tall[::2], tall[1::2] = 3 * plane + above, 3 * plane + below
    before, behind = np.hstack((tall[:, :1], tall[:, :-1])), np.hstack((tall[:, 1:], tall[:, -1:]))
    wide = np.empty((tall.shape[0], 2 * tall.shape[1]), np.int32)
    wide[:, ::2], wide[:, 1::2] = (3 * tall + before + 8) >> 4, (3 * tall + behind + 7) >> 4
    return wide


def _coded(plane: Int32[np.ndarray, "h w"], table: str) -> Int32[np.ndarray, "h w"]:
    """Return the plane after transform, quantisation and transform back, in blocks of 8 by 8."""
    height, width = plane.shape
    blocks = (plane - 128).reshape(height // 8, 8, width // 8, 8).transpose(1, 3, 0, 2)  # (row, column, block, block)
    divisors, factors = _tables(table)
    scaled = _forward(_forward(blocks.swapaxes(0, 1), last=False).swapaxes(0, 1), last=True)
    levels = np.sign(scaled) * ((np.abs(scaled) + (divisors >> 1)) // divisors)
    back = _backward(_backward(levels * factors).swapaxes(0, 1)).swapaxes(0, 1) >> 5
    return np.clip(back + 128, 0, 255).transpose(2, 0, 3, 1).reshape(height, width).astype(np.int32)


@cache
def _tables(table: str) -> tuple[Int32[np.ndarray, "8 8 1 1"], Int32[np.ndarray, "8 8 1 1"]]:
    """Return what coefficients are divided by, times 8, and what they are multiplied with on their way back."""
    base = np.array(table.split(), dtype=np.int64).reshape(8, 8)
    divisors = np.clip((base * (200 - 2 * QUALITY) + 50) // 100, 1, 255)
    scale = np.sqrt(2) * np.cos(np.arange(8) * np.pi / 16)
    scale[0] = 1.0
    exact = np.rint(16384 * np.outer(scale, scale)).astype(np.int64)
    factors = (divisors * exact + 2048) >> 12
    return (8 * divisors).astype(np.int32)[..., None, None], factors.astype(np.int32)[..., None, None]


def _forward(x: Int32[np.ndarray, "8 n h w"], last: bool) -> Int32[np.ndarray, "8 n h w"]:
    """Return the accurate integer cosine transform along the first axis (`jpeg_fdct_islow`), one of two passes."""
    sums, gaps = x[:4] + x[7:3:-1], x[:4] - x[7:3:-1]
    outer, inner = sums[0] + sums[3], sums[1] + sums[2]
    far, near = sums[0] - sums[3], sums[1] - sums[2]
    shift = 15 if last else 11

    def cut(value: np.ndarray, bits: int) -> np.ndarray:
        return (value + (1 << (bits - 1))) >> bits

    out = np.empty_like(x)
    ends = outer + inner, outer - inner
    out[0], out[4] = (cut(end, 2) if last else end << 2 for end in ends)
    even = (near + far) * 4433
    out[2], out[6] = cut(even + far * 6270, shift), cut(even - near * 15137, shift)
    a, b, c, d = gaps[3], gaps[2], gaps[1], gaps[0]
    odd = (a + c + b + d) * 9633
    z1, z2, z3, z4 = -7373 * (a + d), -20995 * (b + c), -16069 * (a + c) + odd, -3196 * (b + d) + odd
    out[7], out[5] = cut(2446 * a + z1 + z3, shift), cut(16819 * b + z2 + z4, shift)
    out[3], out[1] = cut(25172 * c + z2 + z3, shift), cut(12299 * d + z1 + z4, shift)
    return out


def _backward(x: Int32[np.ndarray, "8 n h w"]) -> Int32[np.ndarray, "8 n h w"]:
    """Return the fast transform back along the first axis (`jpeg_idct_ifast`): products are cut, not rounded."""
    whole, half = x[0] + x[4], x[0] - x[4]
    low = x[2] + x[6]
    high = ((x[2] - x[6]) * 362 >> 8) - low
    even = (whole + low, half + high, half - high, whole - low)
    z13, z10, z11, z12 = x[5] + x[3], x[5] - x[3], x[1] + x[7], x[1] - x[7]
    z5 = (z10 + z12) * 473 >> 8
    t7 = z11 + z13
    t6 = (z10 * -669 >> 8) + z5 - t7
    t5 = ((z11 - z13) * 362 >> 8) - t6
    t4 = (z12 * 277 >> 8) - z5 + t5
    odd = (t7, t6, t5, -t4)
    front = [one + other for one, other in zip(even, odd, strict=True)]
    return np.stack(front + [one - other for one, other in zip(even[::-1], odd[::-1], strict=True)])
