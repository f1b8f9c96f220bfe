"""Demonstrations again, with the pose that the arm was sent to in the place of the one that was measured.

    python -m vla_bench_envs.simpler.demonstrations.commanded demonstrations/simpler-widowx-fast

An action counts from the pose that the controller was sent to, and the arm follows by 12 mm in the median, 25 mm while
it moves. Where the arm is measured to be does therefore not say what is still to be done: a hand that stands 28 mm over
an object, and one that passes there on its way down, look alike, and the one needs an action and the other none. Where
it was sent to does say it. A policy knows that without being told: it is where the hand was in the beginning, and the
sum of what was answered since.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64
from scipy.spatial.transform import Rotation

from vla_bench import provenance, registry
from vla_bench.demonstrations.dataset import Dataset
from vla_bench.demonstrations.layout import Layout, place, video_key
from vla_bench.demonstrations.writer import DatasetWriter, Episode
from vla_bench.errors import OptionError, VlaBenchError
from vla_bench_envs.demonstrations.pushes import Pushes
from vla_bench_envs.demonstrations.source import DELTA_POSE
from vla_bench_envs.simpler.demonstrations.initial_states import generator_of
from vla_bench_envs.simpler.demonstrations.source import SimplerSource
from vla_bench_envs.simpler.suites import NAME, SUITES

COMMANDED = "commanded_"
"""Before the names of a state's entries that are the pose that the arm was sent to."""

ENTRIES = 6
"""Of a state: position [m] and rotation vector [rad]."""

STILL_M = 0.003
"""After two applied actions shorter than this the arm is where it was sent to: within 0.5 mm in the median."""


def commanded(
    states: Float32[np.ndarray, "n 8"], applied: Float64[np.ndarray, "n 7"], anchor: int
) -> Float32[np.ndarray, "n 8"]:
    """Return the states with the pose that the arm was sent to.

    Args:
        states: As measured.
        applied: Every action with its push.
        anchor: Frame at which the arm was where it was sent to.
    """
    moved = np.vstack([np.zeros(3), np.cumsum(applied[:-1, :3], axis=0)])
    turned = [Rotation.identity()]
    for action in applied[:-1]:
        turned.append(Rotation.from_rotvec(action[3:6]) * turned[-1])
    begun = turned[anchor].inv() * Rotation.from_rotvec(states[anchor, 3:6])
    sent = states.astype(np.float64)
    sent[:, :3] = moved + (states[anchor, :3] - moved[anchor])
    sent[:, 3:6] = [(turn * begun).as_rotvec() for turn in turned]
    return sent.astype(np.float32)


def main(directory: Path) -> None:
    """Write the dataset beside it.

    Raises:
        OptionError: If it was not collected, or not from these tasks: their pushes could not be drawn again.
    """
    dataset, made = Dataset(directory), provenance.read(directory)
    if made is None or made["plan"]["suite"] not in SUITES:
        raise OptionError("dataset", str(directory), f"what `vla-bench collect --suite {NAME}` wrote")
    plan = made["plan"]
    suite, push = registry.suite(plan["suite"]), SimplerSource.push
    names = tuple(COMMANDED * (index < ENTRIES) + name for index, name in enumerate(dataset.state_names))
    size = dataset.info["features"][f"observation.images.{dataset.cameras[0]}"]["shape"][0]
    out = directory.with_name(f"{directory.name}-commanded")
    form = Layout(dataset.cameras, size, round(dataset.info["fps"]), names, DELTA_POSE, SimplerSource.robot)
    writer = DatasetWriter(out, form, [task.instruction for task in suite.tasks()])
    module = f"python -m {__spec__.name} {directory.name}" if __spec__ else ""
    provenance.write(out, {**plan, "then": module}, made["conditions"])
    for index in range(len(writer.rows), len(dataset)):
        episode, row = dataset.load(index, cameras=()), dataset.episodes[index]
        task, attempt = row["vla_bench/task"], row["vla_bench/attempt"]
        rng = generator_of(plan["seed"], suite.tasks()[task], attempt, "pushes")
        pushes = Pushes(plan["pushes_hz"], suite.tasks()[task].control_hz, rng, push)
        applied = np.array([pushes.disturb(action) for action in episode.actions])
        anchor = 0 if not plan.get("lead") else _stood(applied)
        writer.append(
            Episode(
                sentence=episode.sentence,
                states=commanded(episode.states, applied, anchor),
                actions=episode.actions,
                videos={camera: _video(dataset, row, camera) for camera in dataset.cameras},
                image_statistics={camera: _statistics(row, camera) for camera in dataset.cameras},
                notes={
                    key.removeprefix("vla_bench/"): value for key, value in row.items() if key.startswith("vla_bench/")
                },
            )
        )
    print(f"{out}: {len(dataset)} demonstrations")


def _stood(applied: np.ndarray) -> int:
    """Return the first frame at which the arm has not been sent anywhere for two actions."""
    still = np.linalg.norm(applied[:, :3], axis=1) < STILL_M
    return int(np.argmax(still[1:-1] & still[:-2])) + 2


def _video(dataset: Dataset, row: dict[str, Any], camera: str) -> Path:
    key = video_key(camera)
    at = {name: row[f"videos/{key}/{name}"] for name in place(0)}
    return dataset.directory / dataset.info["video_path"].format(video_key=key, **at)


def _statistics(row: dict[str, Any], camera: str) -> dict[str, Any]:
    prefix = f"stats/{video_key(camera)}/"
    return {key.removeprefix(prefix): value for key, value in row.items() if key.startswith(prefix)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path, help="directory that vla-bench collect wrote")
    try:
        main(parser.parse_args().dataset)
    except VlaBenchError as caught:
        sys.exit(f"vla-bench: {caught}")
