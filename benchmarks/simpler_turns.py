"""Count by how much demonstrations of SIMPLER turn the hand before they first close it.

    python benchmarks/simpler_turns.py demonstrations/simpler-widowx-fast-commanded

Where both ends of a histogram are full, two answers are shown to one picture: what is cloned gives neither.
"""

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from vla_bench.demonstrations.dataset import Dataset

ROTATION, GRIPPER = slice(3, 6), 6
EDGES_DEG = (-100, -70, -45, -20, 20, 45, 70, 100)


def main(directory: Path) -> None:
    """Print a histogram a sentence [degrees about the vertical]."""
    dataset = Dataset(directory)
    turns_deg: dict[str, list[float]] = defaultdict(list)
    for index in range(len(dataset)):
        episode = dataset.load(index, cameras=())
        at = int(np.argmax(episode.actions[:, GRIPPER] < 0))
        begun, closed = (Rotation.from_rotvec(episode.states[frame, ROTATION]) for frame in (0, at))
        turns_deg[episode.sentence].append(float(np.rad2deg((closed * begun.inv()).as_rotvec()[2])))
    print("degrees from", *EDGES_DEG[:-1], "to", EDGES_DEG[-1])
    for sentence, turns in turns_deg.items():
        print(sentence, *np.histogram(turns, EDGES_DEG)[0], "of", len(turns))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
