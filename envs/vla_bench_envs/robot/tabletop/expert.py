"""A scripted expert for the tabletop: reads where things are, walks through waypoints. A tool, never a competitor."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from vla_bench.errors import OptionError
from vla_bench.policy import ActionChunk
from vla_bench.types import ActionSpec, Observation, Task
from vla_bench_envs.robot.tabletop.tasks import Thing

NEAR_M = 0.008
"""A waypoint is reached when the tool is this near."""

OPEN, CLOSED = -1.0, 1.0
GRIP_STEPS = 6
"""Control steps that the fingers take."""

GAIN = 0.8
"""Share of the way that one step asks for."""


LONGEST = 0.99
"""Of a step, in the units of the action; a longer one than 1 would be clamped."""


@dataclass(frozen=True)
class Waypoint:
    """Where the tool goes, with which gripper, and how long it stays."""

    position_m: np.ndarray
    gripper: float
    n_steps: int = 0


class TabletopExpert:
    """Play the three tasks from the simulator's state, in lock-step only."""

    name = "tabletop-expert"
    action_spec = ActionSpec()
    cameras: tuple[str, ...] | None = ()
    fingerprint = "tabletop-expert-1"

    def attach(self, env: Any) -> None:
        """Take the environment whose plant will be read."""
        self._env = env.unwrapped

    def reset(self, task: Task, seed: int) -> None:
        """Plan from where things are.

        Raises:
            OptionError: If the environment has no plant in this process.
        """
        plant = getattr(getattr(self._env.session.link, "driver", None), "plant", None)
        if plant is None:
            raise OptionError("the expert's environment", self._env.url, "the simulated arm in lock-step (url=None)")
        self._waypoints = _PLANS[task.name](plant.things())
        self._waypoint = next(self._waypoints)
        self._left = self._waypoint.n_steps

    def act(self, obs: Observation) -> ActionChunk:
        """Return one step towards the next waypoint."""
        error = self._waypoint.position_m - obs["proprio"][:3]
        if np.linalg.norm(error) < NEAR_M:
            if self._left:
                self._left -= 1
            else:
                self._waypoint = next(self._waypoints, self._waypoint)
                self._left = self._waypoint.n_steps
                error = self._waypoint.position_m - obs["proprio"][:3]
        step = GAIN * error / self.action_spec.translation_m
        step *= LONGEST / max(LONGEST, float(np.linalg.norm(step)))
        return ActionChunk(np.array([[*step, 0.0, 0.0, 0.0, self._waypoint.gripper]]))

    def synchronize(self) -> None:
        """Do nothing: there is no device."""


def _at(thing: Thing, height_m: float, y_m: float = 0.0) -> np.ndarray:
    return np.array([thing.position_m[0], thing.position_m[1] + y_m, height_m])


def _knock_over(things: dict[str, Thing]) -> Iterator[Waypoint]:
    bottle = things["bottle"]
    side = -1.0 if bottle.position_m[1] > 0 else 1.0
    yield Waypoint(_at(bottle, 0.25, 0.13 * side), CLOSED)
    yield Waypoint(_at(bottle, 0.13, 0.13 * side), CLOSED)
    yield Waypoint(_at(bottle, 0.13, -0.12 * side), CLOSED)


def _pick(things: dict[str, Thing]) -> Iterator[Waypoint]:
    cube = things["cube"]
    yield Waypoint(_at(cube, 0.12), OPEN)
    yield Waypoint(_at(cube, 0.018), OPEN, 2)
    yield Waypoint(_at(cube, 0.018), CLOSED, GRIP_STEPS)
    yield Waypoint(_at(cube, 0.25), CLOSED)


def _cover(things: dict[str, Thing]) -> Iterator[Waypoint]:
    cup, block = things["cup"], things["block"]
    yield Waypoint(_at(cup, 0.2), OPEN)
    yield Waypoint(_at(cup, 0.09), OPEN, 2)
    yield Waypoint(_at(cup, 0.09), CLOSED, GRIP_STEPS)
    yield Waypoint(_at(cup, 0.2), CLOSED)
    yield Waypoint(_at(block, 0.2), CLOSED, 3)
    yield Waypoint(_at(block, 0.096), CLOSED, 3)
    yield Waypoint(_at(block, 0.092), OPEN, GRIP_STEPS)
    yield Waypoint(_at(block, 0.2), OPEN)


_PLANS = {"knock_over": _knock_over, "pick": _pick, "cover": _cover}
