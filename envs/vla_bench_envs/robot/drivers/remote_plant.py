"""The simulated arm in real time, in a process of its own."""

import subprocess
import time
from dataclasses import asdict
from typing import Any

from vla_bench_envs.robot.channel import Channel, ChannelClosedError, spawn
from vla_bench_envs.robot.driver import Caps, DriverSpec, RobotState
from vla_bench_envs.robot.drivers.simulated import CAPS
from vla_bench_envs.robot.errors import DriverError
from vla_bench_envs.robot.limiter import SetPoint
from vla_bench_envs.robot.limits import Limits
from vla_bench_envs.robot.tabletop.tasks import TASKS

START_S = 60.0
"""Patience for the process to start: a second on an idle machine."""

ANSWER_S = 2.0
"""Patience for the things to be placed: some milliseconds."""


class RemotePlant:
    """Talk to a plant process; never wait for it but to start and to place things."""

    def __init__(self, limits: Limits) -> None:
        """Remember the limits; `connect` starts the process."""
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._state: RobotState | None = None

    @property
    def spec(self) -> DriverSpec:
        """Return who it is."""
        return DriverSpec("sim", self._limits.arm, tuple(task.name for task in TASKS))

    @property
    def caps(self) -> Caps:
        """Return what it can do: everything."""
        return CAPS

    def connect(self, now_ns: int) -> None:
        """Start the process and wait for its first state."""
        self._process, self._channel = spawn("vla_bench_envs.robot.tabletop.plant_process")
        self._send({"t": "limits", "limits": asdict(self._limits)})
        self._await("state", START_S)

    def read(self, now_ns: int) -> RobotState:
        """Return the newest state that has arrived."""
        self._drain()
        state = self._state
        if state is None:
            raise DriverError("sim", "has no state yet")
        return RobotState(**{name: _copied(value) for name, value in vars(state).items()})

    def command(self, set_point: SetPoint) -> None:
        """Aim at a set-point."""
        self._send({"t": "command", "joints_rad": set_point.joints_rad, "gripper_m": set_point.gripper_m})

    def hold(self) -> None:
        """Stand where the arm is."""
        self._send({"t": "hold"})

    def stop(self) -> None:
        """Stand, and ignore set-points until `recover`."""
        self._send({"t": "stop"})

    def home(self) -> None:
        """Do nothing: this gripper needs no reference."""

    def recover(self) -> None:
        """Take set-points again."""
        self._send({"t": "recover"})

    def begin(self, task: int, init_state: int) -> str:
        """Place arm and things, and wait until it is done."""
        self._drain()
        self._send({"t": "begin", "task": task, "init_state": init_state})
        said = self._await("begun", ANSWER_S)
        if said["problem"]:
            raise DriverError("sim", f"could not place the things ({said['problem']})")
        self._await("state", ANSWER_S)
        return said["sha256"]

    def close(self) -> None:
        """End the process."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def _send(self, message: dict[str, Any]) -> None:
        if self._channel is None:
            raise DriverError("sim", "is not connected")
        try:
            self._channel.send(message)  # if its buffer is full it hangs, and its states grow old: a fault
        except ChannelClosedError as caught:
            raise DriverError("sim", "lost its physics process") from caught

    def _drain(self) -> list[dict[str, Any]]:
        """Take all that has arrived; keep the newest state and return the rest."""
        if self._channel is None:
            raise DriverError("sim", "is not connected")
        rest: list[dict[str, Any]] = []
        try:
            while arrived := self._channel.receive():
                for message in arrived:
                    if message["t"] == "state":
                        self._state = RobotState(**message["state"])
                    else:
                        rest.append(message)
        except ChannelClosedError as caught:
            raise DriverError("sim", "lost its physics process") from caught
        return rest

    def _await(self, kind: str, patience_s: float) -> dict[str, Any]:
        """Return the next message of a kind; a state counts if it arrives from now on."""
        self._state = None if kind == "state" else self._state
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline and self._channel is not None:
            self._channel.wait(deadline - time.monotonic())
            for message in self._drain():
                if message["t"] == kind:
                    return message
            if kind == "state" and self._state is not None:
                return {}
        raise DriverError("sim", f"sent no {kind!r} within {patience_s:.0f} s")


def _copied(value: Any) -> Any:
    return value.copy() if hasattr(value, "copy") else value
