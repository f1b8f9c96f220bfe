"""What the harness itself costs: the processor time of a control step in which simulator and policy do nothing."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import process_time
from typing import Any

import gymnasium
import numpy as np

from vla_bench import journal, registry
from vla_bench.contestant import Contestant
from vla_bench.policy import ActionChunk, Policy
from vla_bench.rollout import run_episode
from vla_bench.suite import Suite
from vla_bench.types import ActionSpec, Cell, Observation, Task

LIMIT_MS = 2.0
"""Processor time a control step may cost above a plain loop, as this project promises."""


@dataclass(frozen=True)
class Floor:
    """Measure the processor time that the harness adds to a control step, against recorded frames."""

    suite: str = "libero-object@1"
    """Suite whose first task is recorded."""

    protocol: str = "reference-fast"
    """Protocol under which it is recorded."""

    frames: int = 40
    """Observations to record; they are replayed in a circle."""

    repeats: int = 20
    """Episodes to replay; the median is reported."""

    def run(self) -> int:
        """Print the cost of a plain loop and of the harness; 1 if the difference is above the limit."""
        suite = registry.suite(self.suite)
        task, protocol = suite.tasks()[0], suite.protocols()[self.protocol]
        env = _Replay(_record(suite, self.protocol, self.frames))
        contestant = Contestant("full", _Still())
        n_steps = protocol.horizon(task.suite, task.horizon)
        with tempfile.TemporaryDirectory() as directory, journal.writing(Path(directory)) as pages:
            plain = _cpu_ms(lambda: _plain_loop(env, contestant.policy, n_steps), self.repeats) / n_steps
            harness = (
                _cpu_ms(lambda: pages.append(run_episode(env, contestant, task, Cell(0, 0, 0), protocol)), self.repeats)
                / n_steps
            )
        print(f"plain loop   {plain:.4f} ms of processor time a step (recorded frames, a policy that stands still)")
        print(f"vla-bench    {harness:.4f} ms (rollout, timers, records, journal on disk)")
        print(f"harness cost {harness - plain:.4f} ms a step; limit {LIMIT_MS} ms")
        return 0 if harness - plain <= LIMIT_MS else 1


def _record(suite: Suite, protocol: str, n_frames: int) -> list[Observation]:
    env = suite.make(suite.protocols()[protocol], images="eager")
    try:
        obs, _ = env.reset(seed=0, options={"task": 0, "init_state": 0})
        frames = [obs]
        for _ in range(n_frames - 1):
            obs = env.step(np.zeros(7, dtype=np.float32))[0]
            frames.append(obs)
        return frames
    finally:
        env.close()


class _Replay(gymnasium.Env):
    """Recorded observations in a circle: an environment that costs nothing."""

    def __init__(self, frames: list[Observation]) -> None:
        self._frames = frames
        self._step = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Observation, dict]:
        self._step = 0
        return self._frames[0], {"init_state_sha256": ""}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        self._step += 1
        return self._frames[self._step % len(self._frames)], 0.0, False, False, {"success": False}


class _Still:
    """A policy that answers at once, with one action that does nothing."""

    name = "still"
    action_spec = ActionSpec()
    cameras: tuple[str, ...] | None = None
    fingerprint = "still"

    def reset(self, task: Task, seed: int) -> None:
        pass

    def act(self, obs: Observation) -> ActionChunk:
        return ActionChunk(actions=np.zeros((1, 7), dtype=np.float32))

    def synchronize(self) -> None:
        pass


def _plain_loop(env: _Replay, policy: Policy, n_steps: int) -> None:
    obs, _ = env.reset()
    for _ in range(n_steps):
        obs = env.step(policy.act(obs).actions[0])[0]


def _cpu_ms(call: Callable[[], None], repeats: int) -> float:
    """Return the median processor time of a call [ms]."""
    spent = []
    for _ in range(repeats):
        start = process_time()
        call()
        spent.append((process_time() - start) * 1e3)
    return float(np.median(spent))
