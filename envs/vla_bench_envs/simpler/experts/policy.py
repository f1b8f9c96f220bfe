"""The scripted experts as a policy: a tool for demonstrations and upper bounds, never a competitor."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from vla_bench.errors import NotResetError
from vla_bench.policy import ActionChunk
from vla_bench.types import Observation, Task
from vla_bench_envs.simpler.experts.motion import Arm, Motion
from vla_bench_envs.simpler.experts.plans import ATTEMPTS, pick_and_place
from vla_bench_envs.simpler.experts.scene import Scene
from vla_bench_envs.simpler.suites import ACTION_SPEC


class ExpertPolicy:
    """Follows a plan with privileged state. One query gives one action."""

    name = "simpler-expert"
    action_spec = ACTION_SPEC
    cameras: tuple[str, ...] | None = ()

    def __init__(self) -> None:
        """Wait for `attach` and `reset`."""
        self.finished = False
        """Whether the plan ran to its end, release and retreat included."""
        self.failure: str | None = None
        """Why the plan was given up, if it was."""
        self._env: Any = None
        self._arm: Arm | None = None
        self._motion: Motion[bool] | None = None

    @property
    def fingerprint(self) -> str:
        """Return a hash of the experts' source."""
        sources = sorted(Path(__file__).parent.glob("*.py"))
        return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]

    def attach(self, env: Any) -> None:
        """Take the environment, a `SimplerEnv` or a wrapper of one, whose simulator will be read."""
        self._env = env.unwrapped

    def reset(self, task: Task, seed: int) -> None:
        """Forget the last episode; the scene is read at the next `act`. Nothing is random: the seed has no effect."""
        self._arm = self._motion = None
        self.finished = False
        self.failure = None

    def act(self, obs: Observation) -> ActionChunk:
        """Return the plan's next action; after its end, stand still.

        Raises:
            NotResetError: Before `attach`, or before the environment's `reset`.
        """
        if self._env is None:
            raise NotResetError("has no environment: attach(env)")
        if self._arm is None:
            self._arm = Arm(Scene(self._env.simulator))
            self._motion = pick_and_place(self._arm)
        action = self._next_action()
        if action is None:
            action = self._arm.rest()
        return ActionChunk(actions=action[None].astype(np.float32))

    def synchronize(self) -> None:
        """Return at once: nothing runs elsewhere."""

    def _next_action(self) -> np.ndarray | None:
        """Return the motion's next action, None after its end."""
        if self._motion is None:
            return None
        try:
            return next(self._motion)
        except StopIteration as ended:
            self._motion = None
            if ended.value:
                self.finished = True
            else:
                self.failure = f"none of {ATTEMPTS} grasps held"
            return None
