"""Which file of a LeRobotDataset v3.0 holds what. Source: lerobot 0.4.4, `lerobot/datasets` (`CODEBASE_VERSION`).

    meta/info.json                                 features, counts, where the files are
    meta/stats.json                                statistics of every feature, over all episodes
    meta/tasks.parquet                             sentence (index) -> task_index
    meta/episodes/chunk-000/file-000.parquet       a row an episode: where its data are, its statistics
    data/chunk-000/file-007.parquet                a row a frame; here a file an episode
    videos/<key>/chunk-000/file-007.mp4            here a file an episode and camera

The layout packs as many episodes into a file as one likes, and names file and range of each in the episode's row.
One each is what makes a dataset that can be cut off at any moment.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

CODEBASE_VERSION = "v3.0"
FILES_PER_CHUNK = 1000
"""LeRobot's default."""

INFO = Path("meta/info.json")
STATISTICS = Path("meta/stats.json")
TASKS = Path("meta/tasks.parquet")
EPISODES = Path("meta/episodes/chunk-000/file-000.parquet")
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"

STATE, ACTION = "observation.state", "action"
SCALARS = {"timestamp": "float32"} | dict.fromkeys(("frame_index", "episode_index", "index", "task_index"), "int64")
"""The features that LeRobot adds to every dataset, by type."""


def video_key(camera: str) -> str:
    """Return the feature that holds a camera's images."""
    return f"observation.images.{camera}"


def place(episode: int) -> dict[str, int]:
    """Return `chunk_index` and `file_index` of an episode's files."""
    chunk, file = divmod(episode, FILES_PER_CHUNK)
    return {"chunk_index": chunk, "file_index": file}


def files(row: dict[str, Any]) -> list[str]:
    """Return the data file and the video files of an episode's row of `meta/episodes`, relative to the dataset."""
    keys = [name.split("/")[1] for name in row if name.startswith("videos/") and name.endswith("/file_index")]
    at = {key: {name: row[f"videos/{key}/{name}"] for name in place(0)} for key in keys}
    data = DATA_PATH.format(**{name: row[f"data/{name}"] for name in place(0)})
    return [data, *(VIDEO_PATH.format(video_key=key, **at[key]) for key in keys)]


@dataclass(frozen=True)
class Layout:
    """What every episode of a dataset has."""

    cameras: tuple[str, ...]
    """By the name under which a policy sees them."""

    image_size: int
    """Height and width [px]."""

    fps: int
    """Frames a second; a frame a control step."""

    state_names: tuple[str, ...]
    """Entries of `observation.state`."""

    action_names: tuple[str, ...]
    """Entries of `action`."""

    robot: str
    """LeRobot's `robot_type`."""

    def features(self) -> dict[str, dict[str, Any]]:
        """Return `features` of `info.json`."""
        size = self.image_size
        stream = {"height": size, "width": size, "codec": "h264", "pix_fmt": "yuv420p", "fps": self.fps, "channels": 3}
        video = {f"video.{key}": value for key, value in stream.items()}
        return {
            **{
                video_key(camera): {
                    "dtype": "video",
                    "shape": [size, size, 3],
                    "names": ["height", "width", "channels"],
                    "info": {**video, "video.is_depth_map": False, "has_audio": False},
                }
                for camera in self.cameras
            },
            STATE: {"dtype": "float32", "shape": [len(self.state_names)], "names": list(self.state_names)},
            ACTION: {"dtype": "float32", "shape": [len(self.action_names)], "names": list(self.action_names)},
            **{key: {"dtype": dtype, "shape": [1], "names": None} for key, dtype in SCALARS.items()},
        }

    def info(self, n_episodes: int, n_frames: int, n_tasks: int) -> dict[str, Any]:
        """Return the content of `info.json`."""
        return {
            "codebase_version": CODEBASE_VERSION,
            "robot_type": self.robot,
            "total_episodes": n_episodes,
            "total_frames": n_frames,
            "total_tasks": n_tasks,
            "chunks_size": FILES_PER_CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": self.fps,
            "splits": {"train": f"0:{n_episodes}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH,
            "features": self.features(),
        }

    def schema(self) -> pa.Schema:
        """Return the columns of a data file."""
        return pa.schema(
            [
                (STATE, pa.list_(pa.float32(), len(self.state_names))),
                (ACTION, pa.list_(pa.float32(), len(self.action_names))),
                *((key, pa.type_for_alias(dtype)) for key, dtype in SCALARS.items()),
            ]
        )
