"""Initial states for demonstrations: the task's own placement regions, never an official evaluation state.

A state is drawn by LIBERO's placement initializer, on the stage that the protocol's `scene_seed` furnishes. Two traps
of a soft reset are avoided, both found by comparing drawn with official poses:

* It would place the fixtures anew, while `LiberoEnv.reset` puts them back: objects in a drawer would hang beside it.
  So the fixtures' own samplers answer with the poses that the fixtures have.
* LIBERO adds the pose of a fixture to the world position of its site, which is right only while the compiled model
  still has the fixture at the origin; in a soft reset the offset would count twice (a bowl 0.9 m above its drawer).
  So fixtures stand at the origin while objects are drawn.
"""

import bdb
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from vla_bench.errors import VlaBenchError
from vla_bench_envs.libero.stage import Stage
from vla_bench_envs.libero.startup import global_seed

MIN_DISTANCE_M = 0.002
"""Distance from each official state by which at least one object is elsewhere. LIBERO's regions are as narrow as
10 mm: of 100 draws of each of the 40 standard tasks, 3 were nearer, and such are drawn again; the rest of a task's
draws come as near as 3 mm in libero-object and 7 mm in most others."""

JOINT_NOISE_RAD = 0.02
"""Standard deviation of the arm's joints. Source: robosuite 1.4, `Robot`, `initialization_noise="default"`, with which
the official states were made (their joints deviate by 0.018 to 0.021 rad)."""

MAX_DRAWS = 200
"""Draws for one state, before its task counts as one whose regions leave no room."""


class NoRoomError(VlaBenchError):
    """Refuse a task whose regions are so narrow that every draw is an official state."""

    def __init__(self, task: str, draws: int) -> None:
        super().__init__(
            f"{task!r}: none of {draws} draws from its regions is {MIN_DISTANCE_M * 1e3:g} mm away from every official "
            f"initial state: demonstrations of it would start where policies are evaluated; leave the task out"
        )


class InitialStates:
    """The initial states for demonstrations of one task, as many as are asked for.

    State i depends on suite, task, protocol's `scene_seed`, `seed` and i, and on nothing that was drawn before. In
    comparison with every official state at least one movable object is more than `MIN_DISTANCE_M` away.
    """

    def __init__(self, stage: Stage, seed: int) -> None:
        """Take a stage whose fixtures stand as the protocol wants them: one that has been reset."""
        self._stage = stage
        self._simulator = stage.simulator
        self._entropy = [seed, zlib.crc32(stage.task.suite.encode()), stage.task.index]
        self._placed = {
            name: self._body_pose(fixture.root_body) for name, fixture in self._simulator.fixtures_dict.items()
        }
        model = self._simulator.sim.model
        self._objects = [
            model.get_joint_qpos_addr(item.joints[-1])[0] for item in self._simulator.objects_dict.values()
        ]
        self._arm = np.asarray(self._simulator.robots[0]._ref_joint_pos_indexes)
        self._official = self.positions(stage.initial_states)

    def draw(self, index: int) -> np.ndarray:
        """Return state `index` (1 + nq + nv,): time [s], positions and velocities, for `options["init_state"]`.

        The simulator is left in that state; reset the environment before going on.

        Raises:
            NoRoomError: If all draws are official states.
        """
        rng = np.random.default_rng([*self._entropy, index])
        for _ in range(MAX_DRAWS):
            state = self._place(int(rng.integers(2**32)))
            if state is None:
                continue
            state[1 + self._arm] += rng.normal(0.0, JOINT_NOISE_RAD, len(self._arm))
            if self.distance(state) > MIN_DISTANCE_M:
                return state
        raise NoRoomError(self._stage.task.name, MAX_DRAWS)

    def generator(self, index: int, purpose: str) -> np.random.Generator:
        """Return a generator for what else is random in the episode that starts from state `index`."""
        return np.random.default_rng([*self._entropy, index, zlib.crc32(purpose.encode())])

    def positions(self, states: np.ndarray) -> np.ndarray:
        """Return the positions [m] of the movable objects, world frame (n, objects, 3), in states (n, size)."""
        return np.stack([states[:, 1 + start : 4 + start] for start in self._objects], axis=1)

    def distance(self, state: np.ndarray) -> float:
        """Return how far [m] the most displaced object is from its place in the most similar official state."""
        moved = np.linalg.norm(self.positions(state[None]) - self._official, axis=2)
        return float(moved.max(axis=1).min())

    def _place(self, seed: int) -> np.ndarray | None:
        """Return the state after LIBERO has placed all objects, None if one found no free place."""
        from robosuite.utils.errors import RandomizationError

        with self._still_fixtures(), global_seed(seed):
            try:
                self._simulator.reset()
            except (RandomizationError, bdb.BdbQuit):  # LIBERO starts a debugger where an object finds no place
                return None
        return self._stage.state

    @contextmanager
    def _still_fixtures(self) -> Iterator[None]:
        """Let the placement initializer see the fixtures where they are, and leave them there."""
        samplers = self._simulator.placement_initializer.samplers
        of_fixtures = [item for item in samplers.values() if item.mujoco_objects[0].name in self._placed]
        try:
            for sampler in of_fixtures:
                sampler.sample = _Still(sampler.mujoco_objects[0], *self._placed[sampler.mujoco_objects[0].name])
            for fixture in (sampler.mujoco_objects[0] for sampler in of_fixtures):
                self._set_body_pose(fixture.root_body, np.zeros(3), np.array([1.0, 0.0, 0.0, 0.0]))
            yield
        finally:
            for sampler in of_fixtures:
                del sampler.sample
            for name, fixture in self._simulator.fixtures_dict.items():
                self._set_body_pose(fixture.root_body, *self._placed[name])

    def _body_pose(self, body: str) -> tuple[np.ndarray, np.ndarray]:
        model = self._simulator.sim.model
        index = model.body_name2id(body)
        return model.body_pos[index].copy(), model.body_quat[index].copy()

    def _set_body_pose(self, body: str, position: np.ndarray, quaternion: np.ndarray) -> None:
        model = self._simulator.sim.model
        index = model.body_name2id(body)
        model.body_pos[index], model.body_quat[index] = position, quaternion


class _Still:
    """Stands in for a placement sampler, and places its object where it is: position [m], quaternion (w, x, y, z)."""

    def __init__(self, item: Any, position: np.ndarray, quaternion: np.ndarray) -> None:
        self._placement = (tuple(position), quaternion, item)
        self._name = item.name

    def __call__(self, fixtures: dict[str, Any] | None = None, **_: Any) -> dict[str, Any]:
        return {**(fixtures or {}), self._name: self._placement}
