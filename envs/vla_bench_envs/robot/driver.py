"""What a driver is: the one part that knows an arm. Everything that keeps it safe is in front of it."""

import hashlib
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from vla_bench_envs.robot.limiter import SetPoint


@dataclass(frozen=True)
class Caps:
    """What a driver can do besides reading."""

    moves: bool
    """Whether set-points move anything; a replay does not."""

    places_objects: bool = False
    """Whether `begin` puts a task's objects in place by itself; otherwise a person does."""

    knows_success: bool = False
    """Whether it can tell that the task is done; otherwise a person labels."""


@dataclass(frozen=True)
class DriverSpec:
    """Who the driver is."""

    name: str
    arm: str
    """As in the limits file, `kinematics.CHAINS`."""

    tasks: tuple[str, ...] = ()
    """Names of the tasks that `begin` knows, by index."""


@dataclass(frozen=True)
class RobotState:
    """What an arm measures of itself at one moment."""

    t_ns: int
    """On the server's monotonic clock."""

    joints_rad: np.ndarray
    """(n,)."""

    velocities_rad_s: np.ndarray
    """(n,)."""

    torques_nm: np.ndarray
    """External and motor torques as the limits mean them (n,)."""

    gripper_m: float
    """Distance between the fingers."""

    collision: bool = False
    """Whether the arm's own controller reports one."""

    success: bool | None = None
    """Whether the task is done; None if the driver cannot know."""

    scene: np.ndarray | None = None
    """What a simulator needs to draw this moment; never leaves the server."""


def asked_sha256(task: int, init_state: int) -> str:
    """Return what stands for a start that a person places: which one was asked for, nothing of what stands there."""
    return hashlib.sha256(f"placed by hand: task {task}, start {init_state}".encode()).hexdigest()


@runtime_checkable
class Driver(Protocol):
    """One arm. Every method may raise `DriverError`, which the supervisor answers with FAULT."""

    @property
    def spec(self) -> DriverSpec:
        """Return who it is."""
        ...

    @property
    def caps(self) -> Caps:
        """Return what it can do."""
        ...

    def connect(self, now_ns: int) -> None:
        """Open the arm; it stands, stiff, and does not move."""
        ...

    def read(self, now_ns: int) -> RobotState:
        """Return the newest state, without waiting."""
        ...

    def command(self, set_point: SetPoint) -> None:
        """Go to a set-point within the next servo period."""
        ...

    def hold(self) -> None:
        """Stand where the arm is now, stiff."""
        ...

    def stop(self) -> None:
        """Stop by the strongest means that the arm offers to software; further set-points are ignored."""
        ...

    def home(self) -> None:
        """Prepare for set-points after standing, for example reference the gripper; the motion is the supervisor's."""
        ...

    def recover(self) -> None:
        """Clear what `stop` or the arm's own protection latched; the arm stands."""
        ...

    def begin(self, task: int, init_state: int) -> str:
        """Begin a trial and return the SHA-256 of its initial state; the objects are placed if it can."""
        ...

    def close(self) -> None:
        """Let go of the arm; safe to call twice."""
        ...
