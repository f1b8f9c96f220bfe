"""SIMPLER's Google robot as a Gymnasium environment: one suite, one protocol, any of its tasks and starts."""

from typing import Any

import numpy as np

from vla_bench.errors import NotResetError, OptionError
from vla_bench.protocol import Protocol
from vla_bench.types import Task
from vla_bench_envs.environment import Images, Moment, SuiteEnv
from vla_bench_envs.simpler_google.protocols import CONTROL_HZ, GoogleProtocol
from vla_bench_envs.simpler_google.simulator import Moment as Told
from vla_bench_envs.simpler_google.simulator import Simulator
from vla_bench_envs.simpler_google.suites import GoogleSuite, find_suite


class SimplerGoogleEnv(SuiteEnv[GoogleSuite, GoogleProtocol]):
    """A suite of the Google robot under a protocol, played by simpler_env in a process of its own interpreter.

    `vla_bench_envs.environment.SuiteEnv` says what all suites have in common. The simulator draws at every step; `lazy`
    images are fetched when they are read. The instruction is the simulator's and may change within an episode.

    `proprio` (8,) is the tool's position [m] and rotation vector [rad] in the frame of the robot's base, and the angles
    of both fingers [rad], 0 where they are open.

    An action is a change [m, rad] of the tool's pose in the base's axes and of the gripper's target, see
    `vla_bench_envs.simpler_google.suites.ACTION_SPEC`. The arm's entries are not clipped, and a pose that cannot be
    reached leaves the arm where it is.

    An episode is judged at the protocol's horizon, where it ends, or with `success="once"` at every step. `info` has
    the simulator's `episode_stats`.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": int(CONTROL_HZ)}

    PROPRIO_LIMIT = np.array([3.0] * 3 + [3.2] * 5, dtype=np.float32)
    """[m, m, m, rad, rad, rad, rad, rad]: the arm reaches less than 2 m, a rotation vector is not longer than pi, a
    finger turns by 1.3 rad."""

    CHARACTERS = frozenset(" abcdefghijklmnopqrstuvwxyz0123456789")

    LONGEST = 100
    """The longest of today's has 39 characters."""

    def __init__(
        self,
        suite: str = "simpler-google-matching@1",
        protocol: str | Protocol = "simpler",
        images: Images = "eager",
        render_mode: str | None = None,
        python: str = "",
        timeout_s: float = 300.0,
    ) -> None:
        """Describe the environment; the simulator's process starts at the first `reset`.

        Args:
            suite: Name and version, for example `simpler-google-matching@1`.
            protocol: A preset's name or a `GoogleProtocol` of your own.
            images: As `SuiteEnv` has it.
            render_mode: See there.
            python: Interpreter that has simpler_env; by default what VLA_BENCH_SIMPLER_PYTHON names.
            timeout_s: How long the simulator may take for an answer before its process is stopped.

        Raises:
            UnknownNameError: If there is no such suite or protocol.
            OptionError: If `images` or `render_mode` is unknown, or the protocol is not this robot's.
        """
        found = find_suite(suite)
        chosen = found.protocol(protocol) if isinstance(protocol, str) else protocol
        if not isinstance(chosen, GoogleProtocol):
            raise OptionError("protocol", str(chosen), "a GoogleProtocol")
        super().__init__(found, chosen, images, render_mode)
        self._python, self._timeout_s = python, timeout_s
        self._simulator: Simulator | None = None
        self._moment: Told | None = None

    @property
    def simulator(self) -> Simulator:
        """Return the simulator.

        Raises:
            NotResetError: Before the first `reset`.
        """
        if self._simulator is None:
            raise NotResetError(self._state)
        return self._simulator

    def _begin(self, task: Task, start: Any) -> dict[str, Any]:
        """Start an episode in a newly built scene, whose objects have come to rest.

        Raises:
            OptionError: If there is no such start.
            MissingInterpreterError: If no interpreter is named.
            InterpreterError: If that is no Python.
            MissingSimplerEnvError: If it has no simpler_env.
            SimplerEnvVersionError: If it has another version.
            WorkerDiedError: If the simulator's process ends, for example since files or a GPU are missing.
            WorkerTimeoutError: If it does not answer in time.
        """
        starts = self.suite.playbooks[task.index].starts
        index = self._choose_start(start, len(starts))
        horizon = self.protocol.horizon(self.suite.name, task.horizon)
        self._moment, facts = self._running().reset(starts[index], horizon, self.protocol)
        digest = starts[index].sha256
        return {"init_state": index, "init_state_sha256": digest, "episode_stats": {}, "simulator": facts}

    def _running(self) -> Simulator:
        """Return the simulator, in a new process if there is none or it has ended."""
        if self._simulator is not None and not self._simulator.process.alive:
            self.close()
        if self._simulator is None:
            self._simulator = Simulator(self._python, self._timeout_s)
        return self._simulator

    def _apply(self, action: np.ndarray) -> None:
        """Apply an action.

        Raises:
            WorkerDiedError: If the simulator's process ends.
            WorkerTimeoutError: If it does not answer in time.
        """
        self._moment = self.simulator.step(action)

    def _sense(self) -> Moment:
        now = self._now
        return Moment(now.proprio, now.instruction, self.simulator.picture)

    def _judge(self, is_last: bool) -> dict[str, Any]:
        now = self._now
        success = now.success and (is_last or self.protocol.success == "once")
        return {"success": success, "episode_stats": now.stats, "is_final_subtask": now.is_final_subtask}

    @property
    def _now(self) -> Told:
        if self._moment is None:
            raise NotResetError(self._state)
        return self._moment

    def _release(self) -> None:
        """End the simulator's process."""
        if self._simulator is not None:
            self._simulator.close()
            self._simulator = None
