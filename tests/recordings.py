"""Recordings of a bright square for fast tests of what reads demonstrations: never a benchmark."""

from dataclasses import asdict
from pathlib import Path

import numpy as np

from vla_bench import provenance, video
from vla_bench.demonstrations import statistics
from vla_bench.demonstrations.layout import Layout
from vla_bench.demonstrations.writer import DatasetWriter, Episode
from vla_bench.types import ActionSpec

CAMERAS = ("agentview", "robot0_eye_in_hand")


def write_dataset(
    directory: Path, n_episodes: int = 20, cameras=CAMERAS, px: int = 32, spec: ActionSpec | None = None,
    reach: float = 1.0,
) -> Path:  # fmt: skip
    """Two sentences in turn; the action is where the bright square is, so there is something to learn."""
    if spec is not None:
        plan = {"suite": "x@1", "protocol": {"name": "x"}, "episodes": 10, "seed": 0, "pushes_hz": 0.0, "out": "x"}
        directory.mkdir(parents=True)
        provenance.write(directory, plan | {"action_spec": asdict(spec)}, {})
    names = tuple(f"n{index}" for index in range(8))
    form = Layout(cameras, px, 20, names, names[:7], "panda")
    sentences = ["open the drawer", "close the drawer"]
    writer = DatasetWriter(directory, form, sentences)
    rng = np.random.default_rng(5)
    for index in range(n_episodes):
        n = 6 + index % 3
        where = rng.integers(0, px - 8, (n, 2))
        pictures = np.zeros((n, px, px, 3), np.uint8)
        for frame, (row, column) in zip(pictures, where, strict=True):
            frame[row : row + 8, column : column + 8] = 255
        videos = {}
        for camera in cameras:
            videos[camera] = directory.parent / f"{camera}.mp4"
            video.encode(videos[camera], pictures, 20)
        actions = np.zeros((n, 7), np.float32)
        actions[:, :2] = (where / px * 2 - 1) * reach
        actions[:, 6] = 1 if index % 2 else -1
        states = np.full((n, 8), index, np.float32)
        shown = {camera: statistics.of_frames(pictures) for camera in cameras}
        writer.append(Episode(sentences[index % 2], states, actions, videos, shown))
    return directory
