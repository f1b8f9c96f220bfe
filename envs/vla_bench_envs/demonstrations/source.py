"""What a suite must offer for its tasks to be demonstrated: an expert, an environment, starts, and names of numbers."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from vla_bench import registry
from vla_bench.errors import UnknownNameError, VlaBenchError
from vla_bench.policy import ActionChunk
from vla_bench.protocol import Protocol as EpisodeProtocol
from vla_bench.suite import Suite
from vla_bench.types import Observation, Task
from vla_bench_envs.demonstrations.pushes import PushForm

POSE_AND_FINGERS = ("x_m", "y_m", "z_m", "rx_rad", "ry_rad", "rz_rad", "left_finger_m", "right_finger_m")
"""Entries of a proprioception that is the hand's pose in the base's frame, and both fingers' positions."""

DELTA_POSE = ("dx", "dy", "dz", "drx", "dry", "drz", "gripper")
"""Entries of an action, whose units the suite's `ActionSpec` says."""


class NotDemonstratedError(VlaBenchError):
    """Refuse a suite that no expert demonstrates."""

    def __init__(self, suite: str, known: Iterable[str]) -> None:
        super().__init__(
            f"{suite!r} has no expert that demonstrates its tasks; expected one of {', '.join(sorted(known))}: choose "
            f"another --suite"
        )


class UnfitPicturesError(VlaBenchError):
    """Refuse a protocol whose pictures a dataset cannot hold."""

    def __init__(self, protocol: str, height_px: int, width_px: int) -> None:
        super().__init__(
            f"the protocol {protocol!r} draws {width_px} x {height_px} px; expected square pictures: choose another "
            f"--protocol, for example reference"
        )


class Expert(Protocol):
    """Follows a plan with privileged state, one action a query."""

    @property
    def finished(self) -> bool:
        """Return whether the plan ran to its end, release and retreat included."""
        ...

    @property
    def failure(self) -> str | None:
        """Return why the plan was given up, if it was."""
        ...

    def reset(self, task: Task, seed: int) -> None:
        """Forget the last episode."""
        ...

    def act(self, obs: Observation) -> ActionChunk:
        """Return the plan's next action."""
        ...


class States(Protocol):
    """Initial states for demonstrations of one task: as many as are asked for, none on which policies are evaluated."""

    def draw(self, index: int) -> np.ndarray:
        """Return state `index`, for `options["init_state"]`; it depends on nothing that was drawn before."""
        ...

    def generator(self, index: int, purpose: str) -> np.random.Generator:
        """Return a generator for what else is random in the episode that starts from state `index`."""
        ...


@dataclass(frozen=True)
class Stand:
    """A task that is ready to be demonstrated."""

    env: Any
    """Draws lazily and does not end at success; says its `protocol` and `ends_at_success`."""
    expert: Expert
    """Attached to it."""
    states: States
    may_begin: Callable[[], bool] = lambda: True
    """Say whether the expert's plan may begin where the arm is now, after a policy has moved it."""


class Source(Protocol):
    """Demonstrations of one suite."""

    robot: str
    """LeRobot's `robot_type`."""
    state_names: tuple[str, ...]
    """Entries of `proprio`, with their units."""
    action_names: tuple[str, ...]
    push: PushForm
    """What a push of this arm is."""

    def conditions(self) -> dict[str, str]:
        """Return what must be equal for a dataset to grow: the expert's hash, the simulator's version, its assets."""
        ...

    def prepare(self) -> None:
        """Set the environment variables that a process inherits which will play."""
        ...

    def stand(self, task: Task, protocol: EpisodeProtocol, seed: int) -> AbstractContextManager[Stand]:
        """Open a task under a protocol, its initial states drawn from `seed`, and close it in the end."""
        ...


@runtime_checkable
class Demonstrated(Protocol):
    """A suite whose tasks an expert demonstrates."""

    def demonstrations(self) -> Source:
        """Return where its demonstrations come from; starts no simulator."""
        ...


def source_of(suite: Suite) -> Source:
    """Return where a suite's demonstrations come from.

    Raises:
        NotDemonstratedError: If no expert demonstrates its tasks.
    """
    if not isinstance(suite, Demonstrated):
        raise NotDemonstratedError(
            suite.name, (name for name, one in registry.suites().items() if isinstance(one, Demonstrated))
        )
    return suite.demonstrations()


def preset_of(suite: Suite, name: str) -> EpisodeProtocol:
    """Return a suite's protocol of that name, if its pictures are square, as a dataset's are.

    Raises:
        UnknownNameError: If there is none.
        UnfitPicturesError: If its pictures are not square.
    """
    presets = suite.protocols()
    if name not in presets:
        raise UnknownNameError(f"protocol of {suite.name}", name, presets)
    height_px, width_px = presets[name].picture_px
    if height_px != width_px:
        raise UnfitPicturesError(name, height_px, width_px)
    return presets[name]
