"""The tabletop as a suite of tasks, so that plans, records and tables are LIBERO's."""

import hashlib
import importlib.metadata
from typing import TYPE_CHECKING, Literal

import numpy as np

from vla_bench.errors import OptionError, UnknownNameError
from vla_bench.protocol import Protocol, RenderProfile
from vla_bench.types import Task
from vla_bench_envs.robot.registration import GYM_ID
from vla_bench_envs.robot.tabletop.tasks import HORIZON_STEPS, N_INITIAL_STATES, TASKS

if TYPE_CHECKING:
    from vla_bench_envs.robot.environment import RealRobotEnv

CONTROL_HZ = 10.0
"""Actions a second, as is usual for vision-language-action models on an arm."""

N_PROBES = 20
"""Actions after which a fingerprint looks."""

PROTOCOLS = {
    name: Protocol(
        name=name,
        cameras=("front", "wrist"),
        image_size=size_px,
        rotate_180=False,
        settle_steps=0,
        settle_action=(),
        control_hz=CONTROL_HZ,
        render=RenderProfile(name="tabletop", multisampling=False, reflections=False),
    )
    for name, size_px in (("tabletop", 224), ("tabletop-small", 128))
}
"""Presets by name."""


class TabletopSuite:
    """Three tasks on the simulated arm; satisfies `vla_bench.suite.Suite`."""

    name = "tabletop-sim@1"
    gym_id = GYM_ID
    default_protocol = "tabletop"

    def tasks(self) -> tuple[Task, ...]:
        """Return the tasks in standard order."""
        return tuple(
            Task(self.name, index, task.name, task.instruction, HORIZON_STEPS, N_INITIAL_STATES, CONTROL_HZ)
            for index, task in enumerate(TASKS)
        )

    def task(self, key: int | str) -> Task:
        """Return the task at a position, or of a name.

        Raises:
            OptionError: If the position is out of range.
            UnknownNameError: If no task has that name.
        """
        tasks = self.tasks()
        if isinstance(key, str):
            by_name = {task.name: task for task in tasks}
            if key not in by_name:
                raise UnknownNameError(f"task of {self.name}", key, by_name)
            return by_name[key]
        if isinstance(key, bool) or not isinstance(key, int | np.integer) or not 0 <= key < len(tasks):
            raise OptionError("task", key, f"a name, or an index from 0 to {len(tasks) - 1} ({self.name})")
        return tasks[int(key)]

    def protocols(self) -> dict[str, Protocol]:
        """Return the presets by name."""
        return dict(PROTOCOLS)

    def make(self, protocol: Protocol, images: Literal["lazy", "eager"] = "lazy") -> "RealRobotEnv":
        """Return an environment in lock-step with the simulated arm."""
        from vla_bench_envs.robot.environment import RealRobotEnv

        return RealRobotEnv(protocol=protocol, images=images)

    def fingerprint(self, protocol: Protocol) -> dict[str, str]:
        """Return hashes of the pictures and of the arm after some fixed actions, and versions."""
        env = self.make(protocol, "eager")
        try:
            obs, _ = env.reset(seed=0, options={"task": 0, "init_state": 0})
            pixels = b"".join(obs[camera].tobytes() for camera in protocol.cameras)
            for action in np.random.default_rng(0).uniform(-0.3, 0.3, (N_PROBES, 7)):
                obs = env.step(action.astype(np.float32))[0]
            physics = obs["proprio"].tobytes()
        finally:
            env.close()
        hashes = {"pixels": hashlib.sha256(pixels).hexdigest(), "physics": hashlib.sha256(physics).hexdigest()}
        return hashes | {name: importlib.metadata.version(name) for name in ("mujoco", "numpy")}


SUITE = TabletopSuite()
SUITES = {SUITE.name: SUITE}
"""The entry point group `vla_bench.suites` names this mapping."""
