"""A policy that moves the arm first, so that the expert shows what to do where a policy's mistakes have led.

Experts hardly ever miss, so their demonstrations do not show what to do after a miss. Here a policy plays for a drawn
number of steps; then the expert takes over and is recorded to its end (Kelly et al. 2019, "HG-DAgger", ICRA, where a
human takes over when it goes wrong). Led under a method that makes the policy cheaper, what is shown is where that
method's mistakes lead.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vla_bench import registry
from vla_bench.contestant import Contestant
from vla_bench.rollout import observed_keys
from vla_bench.types import Observation, Task
from vla_bench_envs.demonstrations.driver import Driver
from vla_bench_envs.demonstrations.source import Stand

STEPS = (12, 41)
"""Least and greatest number of control steps that a policy leads, the end excluded: a first grasp takes about 15."""

LONGEST = 60
"""Steps after which an attempt is given up in which the expert found no place to begin."""


@dataclass(frozen=True)
class Led:
    """How far a policy came."""

    observation: Observation
    """What is seen where the expert begins."""

    problem: str | None
    """Why it does not begin; None if it does."""


class Lead:
    """A policy that plays until its expert may take over."""

    def __init__(self, driver: Driver) -> None:
        """Load a policy and put it under its method."""
        self._contestant = Contestant.of(driver.method, registry.policy(driver.policy))

    def play(self, stand: Stand, task: Task, obs: Observation, rng: np.random.Generator) -> Led:
        """Play until the drawn number of steps is over and the expert may begin.

        Args:
            stand: The task's environment, reset, and its expert, which says where it may begin.
            task: What is played.
            obs: What is seen at the start.
            rng: Draws the number of steps.

        Raises:
            ActionSpecMismatchError: If the policy's actions mean something else than the task's.
        """
        self._contestant.check(task)
        keys = observed_keys(self._contestant.policy, stand.env.protocol)
        self._contestant.policy.reset(task, 0)
        least, step, info = int(rng.integers(*STEPS)), 0, dict[str, Any]()
        while step < LONGEST:
            for action in self._contestant.ask(obs, keys).chunk.actions:
                obs, _, _, _, info = stand.env.step(action)
                step += 1
                if info["success"]:
                    return Led(obs, "the policy solved it before the expert took over")
                if step >= least and stand.may_begin():
                    return Led(obs, None)
        return Led(obs, f"the expert found no place to begin in {LONGEST} steps of the policy")
