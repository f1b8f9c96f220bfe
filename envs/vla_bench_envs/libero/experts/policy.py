"""The scripted experts as a policy: a tool for demonstrations and upper bounds, never a competitor."""

import hashlib
import logging
from pathlib import Path
from typing import Any

import numpy as np

from vla_bench.errors import VlaBenchError
from vla_bench.policy import ActionChunk
from vla_bench.types import ActionSpec, Observation, Task
from vla_bench_envs.libero.experts.geometry import Array
from vla_bench_envs.libero.experts.motion import OPEN, Arm, Motion, SkillFailed
from vla_bench_envs.libero.experts.plans import plan_for
from vla_bench_envs.libero.experts.scene import Scene

log = logging.getLogger(__name__)

ATTEMPTS = 2
"""Runs of a plan: after a skill has failed, the rest of the goal is tried once more from where things are."""


class NotAttachedError(VlaBenchError):
    """Refuse to act before the expert can see the simulator."""

    def __init__(self, missing: str) -> None:
        super().__init__(f"the expert reads the simulator's state and has no {missing}: call it before act()")


class ExpertPolicy:
    """Follows a plan with privileged state. One query gives one action; queries may be more than a step apart."""

    name = "expert"
    action_spec = ActionSpec()

    def __init__(self, sighted: bool = False) -> None:
        """Wait for `attach` and `reset`.

        Args:
            sighted: Whether to ask for every image of the protocol, which a plan does not need, so that a query costs
                the simulator what a policy with eyes would make it draw.
        """
        self.cameras: tuple[str, ...] | None = None if sighted else ()
        self.finished = False
        """Whether the plan ran to its end, release and retreat included."""
        self.failure: str | None = None
        """Why the plan was given up, if it was."""
        self._env: Any = None
        self._task: Task | None = None
        self._arm: Arm | None = None
        self._motion: Motion[None] | None = None
        self._n_failed = 0

    @property
    def fingerprint(self) -> str:
        """Return a hash of the experts' source."""
        sources = sorted(Path(__file__).parent.glob("*.py"))
        return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]

    def attach(self, env: Any) -> None:
        """Take the environment, a `LiberoEnv` or a wrapper of one, whose simulator will be read."""
        self._env = env.unwrapped

    def reset(self, task: Task, seed: int) -> None:
        """Forget the last episode; the scene is read at the next `act`. Nothing is random: the seed has no effect.

        Raises:
            NoExpertError: If no expert covers the task (at the first `act`, when the goal is known).
        """
        self._task = task
        self._arm = None
        self._motion = None
        self._n_failed = 0
        self.finished = False
        self.failure = None

    def act(self, obs: Observation) -> ActionChunk:
        """Return the plan's next action; after its end, stand still with the gripper open."""
        arm = self._arm or self._begin()
        action = self._next_action()
        if action is None:
            arm.gripper = OPEN
            action = arm.rest()
        return ActionChunk(actions=action[None].astype(np.float32))

    def synchronize(self) -> None:
        """Return at once: nothing runs elsewhere."""

    def _begin(self) -> Arm:
        """Read the scene as it is after the environment's reset, and make the plan."""
        if self._env is None:
            raise NotAttachedError("environment: attach(env)")
        if self._task is None:
            raise NotAttachedError("task: reset(task, seed)")
        self._arm = Arm(Scene(self._env.simulator))
        self._motion = self._plan(self._arm)
        return self._arm

    def _plan(self, arm: Arm) -> Motion[None]:
        """Return the actions that make true what of the goal is not yet."""
        assert self._task is not None  # `_begin` has checked
        return plan_for(self._task.name, arm.scene.goal)(arm)

    def _next_action(self) -> Array | None:
        """Return the motion's next action, None after its end; start the plan again after its first failure."""
        while self._motion is not None and self._arm is not None:
            try:
                return next(self._motion)
            except StopIteration:
                self.finished, self._motion = True, None
            except SkillFailed as caught:
                self._n_failed += 1
                again = self._n_failed < ATTEMPTS
                log.info("%s: %s; %s", self._task and self._task.name, caught, "once more" if again else "given up")
                self._motion = self._plan(self._arm) if again else None
                self.failure = None if again else str(caught)
        return None
