"""The three tasks: what is asked, where things start, and when it is done. Positions are in the base frame."""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

N_INITIAL_STATES = 25
"""Starts of a task: the trials that the field usually plays on a robot."""

HORIZON_STEPS = 120
"""Control steps of an episode: 12 s at 10 Hz; the scripted expert takes 19 to 57."""

PARKED_M = {"bottle": (3.0, 0.6), "cube": (3.0, 0.2), "cup": (3.0, -0.2), "block": (3.0, -0.6)}
"""Where the things that a task does not use stand: behind the front camera."""

REST_M = {"bottle": 0.08, "cube": 0.02, "cup": 0.0, "block": 0.015}
"""Height of a thing's origin when it stands on the table."""

KNOCKED_RAD = math.radians(60)
"""A bottle that leans more has been knocked over: it cannot come back."""

LIFTED_M = 0.08
"""Height above its rest at which a thing is picked up."""

COVERED_M, UPRIGHT_RAD, DOWN_M = 0.02, math.radians(15), 0.01
"""A cup covers when its middle is this near to the block's, it stands this upright, and this low."""

RELEASED_M = 0.045
"""Distance between the fingers from which the knob of the cup (3 cm) is let go."""


@dataclass(frozen=True)
class Thing:
    """Where a thing is."""

    position_m: np.ndarray
    """(3,)."""

    rotation: np.ndarray
    """Matrix (3, 3)."""

    @property
    def lean_rad(self) -> float:
        """Return the angle between its own and the table's upright."""
        return float(np.arccos(np.clip(self.rotation[2, 2], -1.0, 1.0)))


Things = Mapping[str, Thing]


@dataclass(frozen=True)
class TabletopTask:
    """One task."""

    name: str
    instruction: str
    regions_m: Mapping[str, tuple[tuple[float, float], tuple[float, float]]]
    """Where each thing may start, as ranges of x and y."""

    done: Callable[[Things, float], bool]
    """Says from the things and the gripper's opening [m] whether it is done."""

    def placements(self, index: int, init_state: int) -> dict[str, np.ndarray]:
        """Return the pose (7,) of every thing at a start: position [m], quaternion (w, x, y, z)."""
        rng = np.random.default_rng([20_260_101, index, init_state])
        poses = {name: _pose(place, 0.0, REST_M[name]) for name, place in PARKED_M.items()}
        for name, ranges in self.regions_m.items():
            place, turn = [rng.uniform(*values) for values in ranges], rng.uniform(-0.4, 0.4)
            poses[name] = _pose(place, turn, REST_M[name])
        return poses


def _pose(place_m: tuple[float, ...] | list[float], turn_rad: float, height_m: float) -> np.ndarray:
    return np.array([place_m[0], place_m[1], height_m, np.cos(turn_rad / 2), 0.0, 0.0, np.sin(turn_rad / 2)])


def _is_knocked_over(things: Things, gripper_m: float) -> bool:  # noqa: ARG001 - one signature for all
    return things["bottle"].lean_rad > KNOCKED_RAD


def _is_picked(things: Things, gripper_m: float) -> bool:  # noqa: ARG001
    return bool(things["cube"].position_m[2] > REST_M["cube"] + LIFTED_M)


def _is_covered(things: Things, gripper_m: float) -> bool:
    cup, block = things["cup"], things["block"]
    near = np.linalg.norm(cup.position_m[:2] - block.position_m[:2]) < COVERED_M
    stands = cup.lean_rad < UPRIGHT_RAD and cup.position_m[2] < DOWN_M
    return bool(near and stands and gripper_m > RELEASED_M)


TASKS = (
    TabletopTask("knock_over", "knock over the bottle", {"bottle": ((0.42, 0.58), (-0.18, 0.18))}, _is_knocked_over),
    TabletopTask("pick", "pick up the red cube", {"cube": ((0.40, 0.58), (-0.18, 0.18))}, _is_picked),
    TabletopTask(
        "cover",
        "cover the blue block with the cup",
        {"cup": ((0.40, 0.50), (-0.20, -0.08)), "block": ((0.44, 0.56), (0.06, 0.18))},
        _is_covered,
    ),
)
"""In the suite's order."""


def placements_sha256(index: int, init_state: int) -> str:
    """Return the hash of where everything starts."""
    poses = TASKS[index].placements(index, init_state)
    return hashlib.sha256(b"".join(poses[name].tobytes() for name in sorted(poses))).hexdigest()


def thing(pose: np.ndarray) -> Thing:
    """Return the thing at a pose (7,): position [m], quaternion (w, x, y, z)."""
    return Thing(pose[:3].copy(), Rotation.from_quat(pose[3:], scalar_first=True).as_matrix())
