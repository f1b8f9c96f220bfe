"""The environment of a run on a robot, watched: what the robot did, and whether the operator ends the trial."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np

from vla_bench.errors import VlaBenchError
from vla_bench.protocol import Protocol
from vla_bench.types import Observation, Task
from vla_bench_envs.robot.environment import RealRobotEnv
from vla_bench_envs.robot.evaluation.operators import Operator
from vla_bench_envs.robot.evaluation.plan import Trial
from vla_bench_envs.robot.evaluation.scene import Starts, reset_score
from vla_bench_envs.robot.suites import RobotSuite


@dataclass
class Watched:
    """What was seen of one attempt at a trial."""

    pictures: list[np.ndarray] = field(default_factory=list)
    """Of the first camera (height, width, 3) `uint8`, one a control step and one before."""

    failed: str = ""
    """Cause for which the robot stood still, if the actions brought it about."""

    reset_score: float | None = None
    sensor_to_action_ms: list[float | None] = field(default_factory=list)
    verdicts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    counters: dict[str, float] = field(default_factory=dict)


class WatchedEnv(gymnasium.Wrapper[Observation, np.ndarray, Observation, np.ndarray]):
    """A robot's environment with an operator beside it.

    `info["success"]` of a step also says that the operator has ended the trial; how it ended is the label's to say.
    Nothing is encoded or written while a trial runs, but for the pictures of the page.
    """

    def __init__(
        self, url: str | None, protocol: Protocol, suite: RobotSuite, limits_sha256: str | None, starts: Starts
    ) -> None:
        """Describe it; see `RealRobotEnv`."""
        self.robot = RealRobotEnv(url, protocol, "lazy", None, limits_sha256, self._place, suite)
        super().__init__(self.robot)
        self.operator: Operator | None = None
        self._starts, self._camera = starts, self.robot.protocol.cameras[0]
        self._trial: Trial | None = None
        self._watched = Watched()
        self._before: dict[str, float] = {}
        self._stops = False

    @property
    def places_objects(self) -> bool:
        """Return whether the robot puts the objects in place by itself; opens the session."""
        return bool(self.robot.session.link.welcome["caps"]["places_objects"])

    def begin(self, trial: Trial) -> None:
        """Say which trial the next `reset` begins."""
        self._trial, self._watched, self._stops = trial, Watched(), False

    def stop(self) -> None:
        """Stop the robot at the next step: for one that lives in this process and thread."""
        self._stops = True

    def look(self) -> np.ndarray | None:
        """Return what the first camera sees now (height, width, 3) `uint8`."""
        link = self.robot.session.link
        return link.images(link.request({"t": "get_obs"})).get(self._camera)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Begin the trial once the operator is ready, and compare the scene with its reference."""
        self._before = self._counters()
        if self.places_objects:  # once the trial begins, so that there is nothing to compare yet
            self._prepare(None)
        obs, info = self.robot.reset(seed=seed, options=options)
        picture = obs[self._camera]
        self._watched.pictures.append(picture)
        return obs, info

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Apply an action and note what became of it."""
        if self._stops:
            self.robot.session.link.request({"t": "estop"})
        obs, reward, terminated, truncated, info = self.robot.step(action)
        watched, picture = self._watched, obs[self._camera]
        watched.pictures.append(picture)
        watched.sensor_to_action_ms.append(info["sensor_to_action_ms"])
        watched.verdicts[str(info["verdict"])] += 1
        watched.reasons.update(str(reason) for reason in info["reasons"])
        watched.failed = info["failed"]
        assert self.operator is not None
        if self.operator.watch(picture):
            info["success"] = True
        return obs, reward, terminated, truncated, info

    def finish(self) -> Watched:
        """End the trial, so that the arm does not starve while it is labelled; return what was seen of it."""
        watched = self._watched
        try:
            gained = {name: value - self._before.get(name, 0) for name, value in self._counters().items()}
            self.robot.session.link.request({"t": "cmd", "op": "trial_end"})
            watched.counters = {name: float(value) for name, value in gained.items() if value}
        except VlaBenchError:  # the link is gone, and its error is the episode's already
            watched.counters = {}
        if watched.pictures:
            self._compare(watched)
        return watched

    def _compare(self, watched: Watched) -> None:
        """Compare the first picture with the reference of its start, or make it that; not while the arm waits."""
        assert self._trial is not None
        reference, picture = self._starts.get(self._trial.cell), watched.pictures[0]
        if reference is None:
            self._starts.keep(self._trial.cell, picture)
        else:
            watched.reset_score = reset_score(reference, picture)

    def _counters(self) -> dict[str, float]:
        return self.robot.session.link.request({"t": "get_obs"})["counters"]

    def _place(self, task: Task, init_state: int) -> None:
        assert self._trial is not None
        self._prepare(self._starts.get(self._trial.cell))

    def _prepare(self, reference: np.ndarray | None) -> None:
        assert self.operator is not None
        assert self._trial is not None
        self.operator.prepare(self._trial, self.look, reference)
