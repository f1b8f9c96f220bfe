"""The tasks of an arm as a suite, so that plans, records and tables are LIBERO's: the tabletop, or an operator's."""

import hashlib
import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vla_bench.protocol import Protocol, RenderProfile
from vla_bench.types import Task
from vla_bench_envs.robot.errors import ServerNeededError
from vla_bench_envs.robot.registration import GYM_ID
from vla_bench_envs.robot.tabletop.tasks import HORIZON_STEPS, N_INITIAL_STATES, TASKS
from vla_bench_envs.tasks import find_task

if TYPE_CHECKING:
    from vla_bench_envs.robot.environment import RealRobotEnv

CONTROL_HZ = 10.0
"""Actions a second, as is usual for vision-language-action models on an arm."""

N_PROBES = 20
"""Actions after which a fingerprint looks."""

TABLETOP = RenderProfile(name="tabletop", multisampling=False, reflections=False)
"""How the simulated scene is drawn."""

PHOTOGRAPHED = RenderProfile(name="photographed", multisampling=False, reflections=False)
"""Nothing is drawn: cameras see it."""

PROTOCOLS = {
    name: Protocol(
        name=name,
        cameras=("front", "wrist"),
        image_size=size_px,
        rotate_180=False,
        settle_steps=0,
        settle_action=(),
        control_hz=CONTROL_HZ,
        render=TABLETOP,
    )
    for name, size_px in (("tabletop", 224), ("tabletop-small", 128))
}
"""Presets of the tabletop by name."""


@dataclass(frozen=True)
class AskedTask:
    """One task of an arm."""

    name: str
    instruction: str
    horizon_steps: int
    n_starts: int
    """Starts that are told apart by number; a person places a physical one."""


@dataclass(frozen=True)
class RobotSuite:
    """Tasks of one arm; satisfies `vla_bench.suite.Suite`."""

    name: str
    """With its version. Records of a physical arm bear the name that its operator gave."""

    asked: tuple[AskedTask, ...]
    presets: tuple[Protocol, ...]
    """The first one is the default."""

    scene: Mapping[str, str] = field(default_factory=dict)
    """Camera of the simulated scene by the name under which a policy sees it; others keep their names."""

    simulated: bool = True
    """Whether the simulated arm in lock-step plays it; a physical arm is played through its server alone."""

    limits: Mapping[str, Any] = field(default_factory=dict)
    """Of the simulated arm in lock-step; none are those that it is shipped with."""

    gym_id: str = GYM_ID

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> "RobotSuite":
        """Return the suite that `facts` of a robot file describe."""
        protocol = Protocol(
            name=facts["suite"],  # so that the hash of the protocol is this suite's alone
            cameras=tuple(facts["cameras"]),
            image_size=facts["image_size_px"],
            rotate_180=False,
            settle_steps=0,
            settle_action=(),
            control_hz=facts["control_hz"],
            render=TABLETOP if facts["simulated"] else PHOTOGRAPHED,
        )
        asked = tuple(AskedTask(**task) for task in facts["tasks"])
        return cls(facts["suite"], asked, (protocol,), facts["scene"], facts["simulated"], facts["limits"])

    @property
    def default_protocol(self) -> str:
        """Return the name of the first preset."""
        return self.presets[0].name

    def tasks(self) -> tuple[Task, ...]:
        """Return the tasks in standard order."""
        rate_hz = self.presets[0].control_hz
        return tuple(
            Task(self.name, index, task.name, task.instruction, task.horizon_steps, task.n_starts, rate_hz)
            for index, task in enumerate(self.asked)
        )

    def task(self, key: int | str) -> Task:
        """Return the task at a position, or of a name.

        Raises:
            OptionError: If the position is out of range.
            UnknownNameError: If no task has that name.
        """
        return find_task(self.name, self.tasks(), key)

    def protocols(self) -> dict[str, Protocol]:
        """Return the presets by name."""
        return {preset.name: preset for preset in self.presets}

    def make(self, protocol: Protocol, images: Literal["lazy", "eager"] = "lazy") -> "RealRobotEnv":
        """Return an environment in lock-step with the simulated arm.

        Raises:
            ServerNeededError: If the arm is a physical one.
        """
        from vla_bench_envs.robot.environment import RealRobotEnv

        if not self.simulated:
            raise ServerNeededError(self.name)
        return RealRobotEnv(protocol=protocol, images=images, suite=self)

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


SUITE = RobotSuite(
    name="tabletop-sim@1",
    asked=tuple(AskedTask(task.name, task.instruction, HORIZON_STEPS, N_INITIAL_STATES) for task in TASKS),
    presets=tuple(PROTOCOLS.values()),
)
"""Three tasks on the simulated arm."""

SUITES = {SUITE.name: SUITE}
"""The entry point group `vla_bench.suites` names this mapping."""
