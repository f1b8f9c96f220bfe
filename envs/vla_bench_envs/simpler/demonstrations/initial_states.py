"""Initial states for demonstrations: official ones, moved and turned, so that none is an official one.

SIMPLER has no regions to draw from, only the 24 states of each task, on which policies are evaluated. A policy that is
cloned has to have seen the places between and around them.
"""

import zlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32
from scipy.spatial.transform import Rotation

from vla_bench.errors import VlaBenchError
from vla_bench.types import Task
from vla_bench_envs.simpler.stage import Stage

MIN_DISTANCE_M = 0.002
"""Horizontal distance from each official state by which at least one object is elsewhere."""

MAX_DRAWS = 200
"""Draws for one state, before its task counts as one that leaves no room."""


@dataclass(frozen=True)
class Spread:
    """How far objects are moved from an official state, all directions and amounts alike."""

    source_m: float = 0.03
    """Largest displacement of the source along x and along y."""
    target_m: float = 0.03
    """The same of the target."""
    turn_rad: float = 0.35
    """Largest turn of either about the vertical."""
    apart_m: float = 0.08
    """Least horizontal distance between both: nearer, an open gripper would touch the other one."""


SPREADS = {"put_eggplant_in_basket": Spread(source_m=0.015, target_m=0.0)}
"""Where a task's differs: the basket is a part of the sink, and the eggplant lies between the sink's walls."""


class NoRoomError(VlaBenchError):
    """Refuse a task none of whose draws is free and away from every official state."""

    def __init__(self, task: str, draws: int) -> None:
        super().__init__(
            f"{task!r}: none of {draws} draws is {MIN_DISTANCE_M * 1e3:g} mm away from every official initial state "
            f"with its objects apart: demonstrations of it would start where policies are evaluated; leave the task out"
        )


class InitialStates:
    """The initial states for demonstrations of one task, as many as are asked for.

    State i depends on suite, task, `seed` and i, and on nothing that was drawn before.
    """

    def __init__(self, stage: Stage, seed: int) -> None:
        """Take a task's stage, which is not touched."""
        self._task = stage.task
        self._official = stage.initial_states
        self._spread = SPREADS.get(stage.task.name, Spread())
        self._seed, self._entropy = seed, _entropy(seed, stage.task)

    def draw(self, index: int) -> Float32[np.ndarray, "2 7"]:
        """Return state `index`: position [m] and quaternion (w, x, y, z) of source and target before they come to rest.

        Raises:
            NoRoomError: If all draws are official states, or their objects too near to each other.
        """
        rng = np.random.default_rng([*self._entropy, index])
        for _ in range(MAX_DRAWS):
            state = self._moved(self._official[rng.integers(len(self._official))], rng)
            if (
                np.hypot(*(state[0, :2] - state[1, :2])) > self._spread.apart_m
                and self.distance(state) > MIN_DISTANCE_M
            ):
                return state
        raise NoRoomError(self._task.name, MAX_DRAWS)

    def generator(self, index: int, purpose: str) -> np.random.Generator:
        """Return a generator for what else is random in the episode that starts from state `index`."""
        return generator_of(self._seed, self._task, index, purpose)

    def distance(self, state: Float32[np.ndarray, "2 7"]) -> float:
        """Return how far [m] the most displaced object is from its place in the most similar official state."""
        moved = np.linalg.norm(self._official[:, :, :2] - state[:, :2], axis=2)
        return float(moved.max(axis=1).min())

    def _moved(self, official: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return a state in which both objects are displaced and turned; one that stands still is not turned either."""
        state = official.astype(np.float64)
        for one, reach_m in zip(state, (self._spread.source_m, self._spread.target_m), strict=True):
            one[:2] += rng.uniform(-reach_m, reach_m, 2)
            turn = Rotation.from_euler("z", rng.uniform(-1.0, 1.0) * self._spread.turn_rad * (reach_m > 0))
            one[3:] = (turn * Rotation.from_quat(one[3:], scalar_first=True)).as_quat(scalar_first=True)
        return state.astype(np.float32)


def generator_of(seed: int, task: Task, index: int, purpose: str) -> np.random.Generator:
    """Return the generator of `InitialStates.generator`, which needs no stage."""
    return np.random.default_rng([*_entropy(seed, task), index, zlib.crc32(purpose.encode())])


def _entropy(seed: int, task: Task) -> list[int]:
    return [seed, zlib.crc32(task.suite.encode()), task.index]
