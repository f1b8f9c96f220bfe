"""One episode of the expert as arrays: every observation with the action that followed it."""

from dataclasses import dataclass

import numpy as np

from vla_bench.errors import OptionError
from vla_bench.types import Task
from vla_bench_envs.demonstrations.leads import Lead
from vla_bench_envs.demonstrations.pushes import Pushes
from vla_bench_envs.demonstrations.source import Expert, Stand


@dataclass(frozen=True)
class Recording:
    """What was seen and done, and whether it is worth keeping."""

    images: dict[str, np.ndarray]
    """`uint8` (n, height, width, 3) by camera; image 0 is the one after settling."""

    states: np.ndarray
    """`float32` (n, 8): `proprio` of the observations."""

    actions: np.ndarray
    """`float32` (n, 7); the expert's answer to observation t, which was applied unless the arm was being pushed."""

    problem: str | None
    """Why it is not a demonstration; None if it is one."""

    success_step: int | None
    """Control steps after which the task's predicate held first; release and retreat come after it."""

    init_state_sha256: str
    """Hash of the initial state's bytes."""


def record(
    stand: Stand, task: Task, state: np.ndarray, seed: int, pushes: Pushes | None = None,
    lead: tuple[Lead, np.random.Generator] | None = None,
) -> Recording:  # fmt: skip
    """Play the expert from an initial state until its plan has ended, whatever the predicate says on the way.

    Args:
        stand: The task's environment, whose horizon is the limit of the episode, and its expert.
        task: What is played.
        state: Initial state of the simulator.
        seed: Handed to the expert.
        pushes: Disturb the arm; none by default.
        lead: Who moves the arm before the expert, which is not recorded, and what draws how long; none by default.

    Raises:
        OptionError: If the environment ends at success.
    """
    env, expert = stand.env, stand.expert
    if env.ends_at_success:
        raise OptionError("ends_at_success", True, "False: a demonstration goes on to release and retreat")
    obs, info = env.reset(options={"task": task.index, "init_state": state})
    digest = info["init_state_sha256"]
    if lead is not None:
        led = lead[0].play(stand, task, obs, lead[1])
        if led.problem is not None:
            return Recording({}, np.zeros((0, 8)), np.zeros((0, 7)), led.problem, None, digest)
        obs = led.observation
    expert.reset(task, seed)
    seen: list[dict[str, np.ndarray]] = []
    actions: list[np.ndarray] = []
    success_step, truncated = None, False
    while True:
        action = expert.act(obs).actions[0]  # privileged: it draws no image
        if truncated or expert.finished or expert.failure is not None:
            break
        seen.append({camera: obs[camera] for camera in env.protocol.cameras} | {"proprio": obs["proprio"]})
        actions.append(action)
        obs, _, _, truncated, info = env.step(action if pushes is None else pushes.disturb(action))
        if info["success"] and success_step is None:
            success_step = len(actions)
    return Recording(
        images={camera: np.array([step[camera] for step in seen]) for camera in env.protocol.cameras},
        states=np.array([step["proprio"] for step in seen], dtype=np.float32),
        actions=np.array(actions, dtype=np.float32),
        problem=_problem(expert, bool(info["success"]), success_step),
        success_step=success_step,
        init_state_sha256=digest,
    )


def _problem(expert: Expert, success: bool, success_step: int | None) -> str | None:
    if expert.failure is not None:
        return f"the expert gave up: {expert.failure}"
    if not expert.finished:
        return "the horizon passed before the plan's end"
    if not success:
        return "the predicate never held" if success_step is None else "the predicate did not hold at the end"
    return None
