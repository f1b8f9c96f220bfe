"""Released runs met the same starts again, days apart: the same checkpoint, seed and state were the same episode."""

from pathlib import Path

import pandas as pd

from vla_bench import tables

RELEASED = Path(__file__).parent.parent / "results" / "released"
CONDITIONS = ["policy", "processor", "accelerator", "environment mujoco", "environment gl_renderer"]
PLATFORM = ["environment state_sha256", "environment image_sha256"]
"""What the harness finds by itself: a machine that rounds otherwise has another one."""

CELL = ["suite", "protocol", "policy", "method", "task", "init_state", "seed"]
FACTS = ["init_state_sha256", "outcome", "n_steps", "path_m", "jerk"]
"""Path and jerk are sums over all applied actions, kept to the last bit."""


def test_released_runs_played_the_same_start_alike_to_the_last_bit() -> None:
    frames = []
    for directory in sorted(path.parent for path in RELEASED.glob("*/episodes.parquet")):
        found = tables.read_exported(directory)
        known = found.runs.reindex(columns=["run", *CONDITIONS, *PLATFORM])  # a robot draws with no OpenGL of its own
        conditions = known.rename(columns={"policy": "weights"})
        frames.append(found.episodes.merge(conditions, on="run"))
    episodes = pd.concat(frames)
    episodes = episodes[episodes["outcome"] != "error"]
    key = [*CELL, "weights", *CONDITIONS[1:], *PLATFORM]
    again = episodes.groupby(key, dropna=False).filter(lambda same: same["run"].nunique() > 1)
    starts = again.groupby(key, dropna=False)
    assert starts.ngroups > 100
    assert (starts[FACTS].nunique() == 1).all(axis=None)
    assert again["path_m"].nunique() > 0.9 * starts.ngroups  # and different starts were different episodes
