"""SIMPLER's Google robot as a Gymnasium environment: one suite, one protocol, any of its tasks and starts."""

from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces

from vla_bench.errors import ActionError, NotResetError, OptionError
from vla_bench.protocol import Protocol
from vla_bench.types import Observation, Task
from vla_bench_envs.libero.observation import LazyObservation
from vla_bench_envs.simpler_google.protocols import CONTROL_HZ, GoogleProtocol
from vla_bench_envs.simpler_google.simulator import Moment, Simulator
from vla_bench_envs.simpler_google.starts import Start
from vla_bench_envs.simpler_google.suites import ACTION_SPEC, find_suite

PROPRIO_LIMIT = np.array([3.0] * 3 + [3.2] * 5, dtype=np.float32)
"""Bound of the proprioceptive entries [m, m, m, rad, rad, rad, rad, rad]: the arm reaches less than 2 m, a rotation
vector is not longer than pi, a finger turns by 1.3 rad."""

CHARACTERS = frozenset(" abcdefghijklmnopqrstuvwxyz0123456789")
"""Characters of an instruction."""

LONGEST = 100
"""Characters that an instruction has at most; the longest of today's has 39."""


class SimplerGoogleEnv(gymnasium.Env[Observation, np.ndarray]):
    """A suite of the Google robot under a protocol, played by simpler_env in a process of its own interpreter.

    An observation is a dict of the camera's `uint8` image (height, width, 3), `proprio` (8,) and `instruction`. Row 0
    is the top. The instruction is the simulator's and may change within an episode.

    `proprio` is the tool's position [m] and rotation vector [rad] in the frame of the robot's base, and the angles of
    both fingers [rad], 0 where they are open.

    An action is a change [m, rad] of the tool's pose in the base's axes and of the gripper's target, see
    `vla_bench_envs.simpler_google.suites.ACTION_SPEC`. The arm's entries are not clipped, and a pose that cannot be
    reached leaves the arm where it is.

    An episode ends at the protocol's horizon, where it is judged (`terminated` if it succeeded, else `truncated`), or
    with `success="once"` as soon as the predicate holds. The step that succeeds is rewarded with 1. `info` has the
    simulator's `episode_stats`.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": int(CONTROL_HZ)}

    def __init__(
        self,
        suite: str = "simpler-google-matching@1",
        protocol: str | Protocol = "simpler",
        images: Literal["eager", "lazy"] = "eager",
        render_mode: str | None = None,
        python: str = "",
        timeout_s: float = 300.0,
    ) -> None:
        """Describe the environment; the simulator's process starts at the first `reset`.

        Args:
            suite: Name and version, for example `simpler-google-matching@1`.
            protocol: A preset's name or a `GoogleProtocol` of your own.
            images: `eager` fetches every image; `lazy` fetches an image when it is read, and only until the next step.
                The simulator draws at every step either way.
            render_mode: `rgb_array` makes `render` return the camera's image; None makes it useless.
            python: Interpreter that has simpler_env; by default what VLA_BENCH_SIMPLER_PYTHON names.
            timeout_s: How long the simulator may take for an answer before its process is stopped.

        Raises:
            UnknownNameError: If there is no such suite or protocol.
            OptionError: If `images` or `render_mode` is neither of the above, or the protocol is not this robot's.
        """
        if images not in ("eager", "lazy"):
            raise OptionError("images", images, "'eager' (fetch every image) or 'lazy' (fetch what is read)")
        if render_mode not in (None, "rgb_array"):
            raise OptionError("render_mode", render_mode, "'rgb_array' or None")
        self.suite = find_suite(suite)
        chosen = self.suite.protocol(protocol) if isinstance(protocol, str) else protocol
        if not isinstance(chosen, GoogleProtocol):
            raise OptionError("protocol", str(chosen), "a GoogleProtocol")
        self.protocol = chosen
        self.images = images
        self.render_mode = render_mode
        self.observation_space = self._describe_observation()
        self.action_space = spaces.Box(ACTION_SPEC.low, ACTION_SPEC.high, (ACTION_SPEC.size,), np.float32)
        self._python, self._timeout_s = python, timeout_s
        self._simulator: Simulator | None = None
        self._task = self.tasks[0]
        self._observation: Observation | None = None
        self._state = "has not begun"
        self._n_steps = 0

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Return the suite's tasks in standard order."""
        return self.suite.tasks()

    @property
    def task(self) -> Task:
        """Return the task that is played, or will be unless a reset says otherwise."""
        return self._task

    @property
    def simulator(self) -> Simulator:
        """Return the simulator.

        Raises:
            NotResetError: Before the first `reset`.
        """
        if self._simulator is None:
            raise NotResetError(self._state)
        return self._simulator

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode in a newly built scene, whose objects have come to rest.

        `options["task"]` is an index or a name, by default the task that was played last, or the first.
        `options["init_state"]` is the index of an official start, by default drawn from `seed`. Nothing else is random.

        Raises:
            OptionError: If an option is unknown or out of range.
            UnknownNameError: If no task has that name.
            MissingInterpreterError: If no interpreter is named.
            InterpreterError: If that is no Python.
            MissingSimplerEnvError: If it has no simpler_env.
            SimplerEnvVersionError: If it has another version.
            WorkerDiedError: If the simulator's process ends, for example since files or a GPU are missing.
            WorkerTimeoutError: If it does not answer in time.
        """
        super().reset(seed=seed)
        self._pass_moment("has not begun")
        options = {} if options is None else options
        unknown = set(options) - {"task", "init_state"}
        if unknown:
            raise OptionError("options", sorted(unknown), "no keys but 'task' and 'init_state'")
        task = self._task if options.get("task") is None else self.suite.task(options["task"])
        index, start = self._choose_start(task, options.get("init_state"))
        self._task = task
        moment, facts = self._running().reset(start, self._horizon, self.protocol)
        self._n_steps, self._state = 0, "runs"
        info = {
            "success": False,
            "suite": self.suite.name,
            "task": task.name,
            "task_index": task.index,
            "init_state": index,
            "init_state_sha256": start.sha256,
            "protocol": self.protocol.hash,
            "settle_steps": self.protocol.settle_steps,
            "episode_stats": {},
            "simulator": facts,
        }
        return self._observe(moment), info

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Apply an action for one control step.

        Raises:
            ActionError: If the action has another shape, or is not a finite number everywhere.
            NotResetError: Before `reset` and after the end of an episode.
            WorkerDiedError: If the simulator's process ends.
            WorkerTimeoutError: If it does not answer in time.
        """
        if self._state != "runs":
            raise NotResetError(self._state)
        applied = _check_action(action)
        self._pass_moment("has been lost")
        moment = self.simulator.step(applied)
        self._n_steps, self._state = self._n_steps + 1, "runs"
        is_last = self._n_steps >= self._horizon
        success = moment.success and (is_last or self.protocol.success == "once")
        truncated = is_last and not success
        if success or truncated:
            self._state = "has ended"
        info = {"success": success, "episode_stats": moment.stats, "is_final_subtask": moment.is_final_subtask}
        return self._observe(moment), float(success), success, truncated, info

    def render(self) -> np.ndarray | None:
        """Return the camera's image of the last observation, or None without a render mode."""
        if self.render_mode is None:
            return None
        if self._observation is None:
            raise NotResetError(self._state)
        return self._observation[self.protocol.cameras[0]]

    def close(self) -> None:
        """End the simulator's process; the next `reset` starts another."""
        self._pass_moment("has not begun")
        if self._simulator is not None:
            self._simulator.close()
            self._simulator = None

    def _running(self) -> Simulator:
        """Return the simulator, in a new process if there is none or it has ended."""
        if self._simulator is not None and not self._simulator.process.alive:
            self.close()
        if self._simulator is None:
            self._simulator = Simulator(self._python, self._timeout_s)
        return self._simulator

    @property
    def _horizon(self) -> int:
        return self.protocol.horizon(self.suite.name, self._task.horizon)

    def _describe_observation(self) -> spaces.Dict:
        shape = (*self.protocol.picture_px, 3)
        entries: dict[str, spaces.Space[Any]] = {
            camera: spaces.Box(0, 255, shape, np.uint8) for camera in self.protocol.cameras
        }
        entries["proprio"] = spaces.Box(-PROPRIO_LIMIT, PROPRIO_LIMIT, dtype=np.float32)
        entries["instruction"] = spaces.Text(LONGEST, min_length=1, charset=CHARACTERS)
        return spaces.Dict(entries)

    def _choose_start(self, task: Task, chosen: Any) -> tuple[int, Start]:
        starts = self.suite.playbooks[task.index].starts
        if chosen is None:
            chosen = int(self.np_random.integers(len(starts)))
        if isinstance(chosen, bool) or not isinstance(chosen, (int, np.integer)) or not 0 <= chosen < len(starts):
            raise OptionError("init_state", chosen, f"an index from 0 to {len(starts) - 1}")
        return int(chosen), starts[int(chosen)]

    def _observe(self, moment: Moment) -> Observation:
        rest = {"proprio": moment.proprio, "instruction": moment.instruction}
        lazy = LazyObservation(self.simulator.picture, self.protocol.cameras, rest)
        self._observation = lazy if self.images == "lazy" else lazy.drawn()
        return self._observation

    def _pass_moment(self, state: str) -> None:
        """Enter a state of the episode in which the last observation's unread images are gone."""
        if isinstance(self._observation, LazyObservation):
            self._observation.expire()
        self._state = state


def _check_action(action: np.ndarray) -> np.ndarray:
    found = np.asarray(action)
    expected = f"{ACTION_SPEC.size} finite numbers in [-1, 1]"
    if found.shape != (ACTION_SPEC.size,) or found.dtype.kind not in "fiu":
        raise ActionError(f"an array of shape {found.shape} and type {found.dtype}", expected)
    if not np.isfinite(found).all():
        raise ActionError(f"{found.tolist()}", expected)
    return found.astype(np.float64)
