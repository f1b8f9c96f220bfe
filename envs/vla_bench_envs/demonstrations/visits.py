"""Where a policy ends up under a method that makes it cheaper, and what it would have answered there in full.

Demonstrations do not show where mistakes lead. A learner that is shown the states of its own making, with the teacher's
answers, learns to mend them (Ross, Gordon and Bagnell 2011, "DAgger", AISTATS). Here the learner is a learned method,
for example the gates of LAC, and the teacher is the policy itself under `full`.
"""

import numpy as np

from vla_bench import registry
from vla_bench.contestant import Contestant
from vla_bench.policy import Policy, SharedPolicy
from vla_bench.rollout import observed_keys
from vla_bench.types import Task
from vla_bench_envs.demonstrations.driver import TEACHER, Driver
from vla_bench_envs.demonstrations.recording import Recording
from vla_bench_envs.demonstrations.source import Stand


class Visitor:
    """A policy twice: as the method makes it, which drives, and with everything computed, which is asked beside."""

    def __init__(self, driver: Driver) -> None:
        policy = registry.policy(driver.policy)
        self._driving, self._teaching = (_remembering(method, policy) for method in (driver.method, TEACHER))

    def visit(self, stand: Stand, task: Task, state: np.ndarray, seed: int) -> Recording:
        """Play from an initial state until the task is solved or the horizon has passed; both are worth keeping.

        The teacher is asked whenever the driver is, about the same observation. Both answer with as many actions as the
        policy applies before it looks again: the driver's are applied, the teacher's recorded.

        Args:
            stand: The task's environment; its expert stands by.
            task: What is played.
            state: Initial state of the simulator.
            seed: Handed to both.

        Raises:
            ActionSpecMismatchError: If the policy's actions mean something else than the task's.
            OptionError: If the policy reads cameras that the protocol has not.
        """
        env, protocol = stand.env, stand.env.protocol
        self._driving.check(task)
        keys = observed_keys(self._driving.policy, protocol)
        obs, info = env.reset(options={"task": task.index, "init_state": state})
        digest = info["init_state_sha256"]
        for contestant in (self._driving, self._teaching):
            contestant.policy.reset(task, seed)
        seen: list[dict[str, np.ndarray]] = []
        actions: list[np.ndarray] = []
        success, truncated = False, False
        while not success and not truncated:
            driven, taught = (contestant.ask(obs, keys).chunk for contestant in (self._driving, self._teaching))
            for action, answer in zip(driven.actions, taught.actions, strict=True):
                seen.append({name: np.array(obs[name]) for name in (*protocol.cameras, "proprio")})
                actions.append(answer)
                obs, _, _, truncated, info = env.step(action)
                success = bool(info["success"])
                if success or truncated:
                    break
        return Recording(
            images={camera: np.array([step[camera] for step in seen]) for camera in protocol.cameras},
            states=np.array([step["proprio"] for step in seen], dtype=np.float32),
            actions=np.array(actions, dtype=np.float32),
            problem=None,
            success_step=len(actions) if success else None,
            init_state_sha256=digest,
        )


def _remembering(method: str, policy: Policy) -> Contestant:
    """Return the policy under a method, with a memory of its own, as far as it has any."""
    return Contestant.of(method, policy.seat() if isinstance(policy, SharedPolicy) else policy)
