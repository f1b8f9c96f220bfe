"""Watch one episode: what the cameras saw, as a film and as a sheet of moments."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium
import matplotlib.image
import numpy as np

from vla_bench import registry, video
from vla_bench.contestant import Contestant
from vla_bench.errors import OptionError, ResultsWriteError
from vla_bench.plan import RunPlan
from vla_bench.policy import PrivilegedPolicy
from vla_bench.rollout import run_episode
from vla_bench.types import Cell, Observation

N_MOMENTS = 8
"""Pictures on a sheet, the first and the last step among them."""


@dataclass(frozen=True)
class Film:
    """Play one start and write what all cameras saw, side by side: OUT as MP4, and eight moments beside it as PNG."""

    suite: str = "libero-object@1"
    """Suite of tasks, with its version."""

    policy: str = "expert"
    """Policy that plays, as `name` or `name:argument,key=value`."""

    method: str = "full"
    """Method it plays under."""

    protocol: str = "reference-fast"
    """Protocol of the suite."""

    task: int = 0
    """Index of the task in the suite's standard order."""

    init_state: int = 0
    """Index of the initial state."""

    seed: int = 0
    """Seed of the policy and the method."""

    out: Path = Path("film.mp4")
    """File to write; an existing one is replaced."""

    def run(self) -> int:
        """Write the film and say how the episode ended; 1 if it ended in an error."""
        plan = RunPlan(self.suite, self.policy, (self.method,), 1, (self.task,), self.protocol, self.seed).resolve()
        (task,) = plan.tasks
        if not 0 <= self.init_state < task.n_initial_states:
            raise OptionError("--init-state", self.init_state, f"an index from 0 to {task.n_initial_states - 1}")
        policy = registry.method(self.method).apply(registry.policy(self.policy))
        env = Filming(plan.suite.make(plan.protocol), plan.protocol.cameras)
        try:
            if isinstance(policy, PrivilegedPolicy):
                policy.attach(env)
            cell = Cell(task.index, self.init_state, self.seed)
            record = run_episode(env, Contestant(self.method, policy), task, cell, plan.protocol)
        finally:
            env.close()
        print(f"{task.instruction}: {record.outcome} after {record.n_steps} steps")
        if record.error:
            print(f"error: {record.error}")
        if not env.frames:  # the episode did not even begin
            return 1
        frames = np.stack(env.frames)
        sheet = self.out.with_suffix(".png")
        try:
            self.out.parent.mkdir(parents=True, exist_ok=True)
            video.encode(self.out, frames, round(task.control_hz))
            matplotlib.image.imsave(sheet, moments(frames))
        except OSError as caught:
            raise ResultsWriteError(self.out, caught) from caught
        print(f"{self.out}\n{sheet}")
        return 1 if record.error else 0


class Filming(gymnasium.Wrapper):
    """Keep what the cameras see at every step, side by side."""

    def __init__(self, env: gymnasium.Env, cameras: tuple[str, ...]) -> None:
        """Film with `cameras`, which must be keys of the observation."""
        super().__init__(env)
        self.frames: list[np.ndarray] = []
        """One `uint8` picture (height, sum of widths, 3) a step, the start included."""
        self._cameras = cameras

    def reset(self, **kwargs: Any) -> tuple[Observation, dict[str, Any]]:
        """Start an episode and a new film."""
        obs, info = self.env.reset(**kwargs)
        self.frames = []
        self._keep(obs)
        return obs, info

    def step(self, action: np.ndarray) -> tuple[Observation, Any, bool, bool, dict[str, Any]]:
        """Step and keep the pictures."""
        answer = self.env.step(action)
        self._keep(answer[0])
        return answer

    def _keep(self, obs: Observation) -> None:
        self.frames.append(np.concatenate([obs[camera] for camera in self._cameras], axis=1))


def moments(frames: np.ndarray) -> np.ndarray:
    """Return a sheet of evenly spaced frames (n, height, width, 3), in rows of four, the first and last among them."""
    chosen = frames[np.linspace(0, len(frames) - 1, N_MOMENTS).round().astype(int)]
    rows = chosen.reshape(-1, 4, *chosen.shape[1:])
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
