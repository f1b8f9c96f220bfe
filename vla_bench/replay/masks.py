"""Films of what happens to each patch: the cameras side by side, under a tint for each fate."""

from pathlib import Path

import matplotlib.image
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from vla_bench import film, video
from vla_bench.errors import ResultsWriteError
from vla_bench.policy import Fate
from vla_bench.replay.recording import Recording

SCALE = 2
"""Pixels of the film a pixel of the recording, along each side."""

TINTS = {Fate.REFRESHED: (0, 158, 115), Fate.REUSED: (0, 114, 178), Fate.DELETED: (0, 0, 0)}
"""Colours of Okabe and Ito 2008; what is computed stays as it is."""

OPACITY = {Fate.REFRESHED: 0.45, Fate.REUSED: 0.5, Fate.DELETED: 0.8}
WORDS = {Fate.REFRESHED: "refreshed", Fate.REUSED: "reused", Fate.DELETED: "deleted"}
CAPTION_PX = 36


class MaskFilms:
    """Writes the first recordings under every method that says what happened to its patches."""

    def __init__(self, directory: Path, recordings: tuple[int, ...]) -> None:
        """Film these recordings, into a directory."""
        self._directory, self._recordings = directory, recordings
        self.paths: list[Path] = []
        """What was written."""

    def __call__(self, shown: Recording, method: str, fates: list[dict[str, np.ndarray]]) -> None:
        """Write a film and a sheet of eight of its moments.

        Raises:
            ResultsWriteError: If they cannot be written.
        """
        if shown.index not in self._recordings or not any(fates):
            return
        frames = np.stack([painted(shown, step, method, fates[step]) for step in range(len(fates))])
        letters = "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in method)
        path = self._directory / f"{shown.index:04d}_{letters}.mp4"
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            video.encode(path, frames, round(shown.control_hz))
            matplotlib.image.imsave(path.with_suffix(".png"), film.moments(frames))
        except OSError as caught:
            raise ResultsWriteError(path, caught) from caught
        self.paths.append(path)


def painted(
    shown: Recording, step: int, method: str, fates: dict[str, UInt8[np.ndarray, "rows columns"]]
) -> UInt8[np.ndarray, "height width 3"]:
    """Return the pictures of a step, tinted, below a caption."""
    views = np.concatenate([tinted(shown.images[camera][step], fates[camera]) for camera in fates], axis=1)
    canvas = Image.new("RGB", (views.shape[1], CAPTION_PX), "white")
    draw = ImageDraw.Draw(canvas)
    draw.text((4, 2), f"{method}: {shown.sentence}, step {step}", fill="black")
    left, n_patches = 4, sum(fate.size for fate in fates.values())
    for fate, colour in TINTS.items():
        count = sum(int((found == fate).sum()) for found in fates.values())
        draw.rectangle((left, 21, left + 10, 31), fill=colour)
        words = f"{WORDS[fate]} {100 * count / n_patches:.0f} %"
        draw.text((left + 15, 20), words, fill="black")
        left += 110
    whole = np.concatenate((np.asarray(canvas), views))
    return whole[: len(whole) // 2 * 2, : whole.shape[1] // 2 * 2]  # H.264 with yuv420p has even sides


def tinted(
    picture: UInt8[np.ndarray, "height width 3"], fates: UInt8[np.ndarray, "rows columns"]
) -> UInt8[np.ndarray, "tall wide 3"]:
    """Return a picture, `SCALE` times as large, with each patch in the tint of its fate."""
    large = picture.repeat(SCALE, axis=0).repeat(SCALE, axis=1).astype(np.float32)
    row, column = (
        np.arange(length) * patches // length for length, patches in zip(large.shape[:2], fates.shape, strict=True)
    )
    fate = fates[row[:, None], column[None]]
    for which, colour in TINTS.items():
        where = fate == which
        large[where] += OPACITY[which] * (np.array(colour, dtype=np.float32) - large[where])
    return large.round().astype(np.uint8)
