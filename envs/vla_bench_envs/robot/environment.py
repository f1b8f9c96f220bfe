"""A robot as a Gymnasium environment: the simulated arm in lock-step, or any robot behind a server."""

from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces

from vla_bench.errors import ActionError, NotResetError, OptionError
from vla_bench.protocol import Protocol
from vla_bench.types import Observation, Task
from vla_bench_envs.libero.observation import LazyObservation
from vla_bench_envs.robot.errors import RobotRefusedError
from vla_bench_envs.robot.limits import SIMULATED, load, parse
from vla_bench_envs.robot.link import Link
from vla_bench_envs.robot.session import Place, Session
from vla_bench_envs.robot.suites import SUITE, RobotSuite

PROPRIO_LIMIT = np.array([2.0, 2.0, 2.0, *[2 * np.pi] * 3, 0.1, 0.1], dtype=np.float32)
"""Bound of the proprioceptive entries [m, m, m, rad, rad, rad, m, m], as LIBERO's."""

ACTION_SIZE = 7

CHARACTERS = frozenset(" abcdefghijklmnopqrstuvwxyz0123456789.,'-")


class RealRobotEnv(gymnasium.Env[Observation, np.ndarray]):
    """A robot and its tasks under a protocol, through the bridge.

    An observation is a dict of one `uint8` image (size, size, 3) for each camera, `proprio` (8,) and `instruction`.
    `proprio` is the tool's position [m] and rotation vector [rad] in the base frame, and the distance of both fingers
    from the middle [m], at the instant of the images.

    An action is a change of the tool's pose and a gripper command, see `vla_bench.types.ActionSpec`; the change is
    from the set-point at the moment it is applied. What the gate applied instead is in `info`.

    `step` sends the action, waits for the tick that applies it and for the end of the control period, and *then*
    captures a fresh observation. With a server the clock is the wall's; without one the simulated arm runs in lock-step
    on a virtual clock, and runs are bit-identical.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        url: str | None = None,
        protocol: str | Protocol = "tabletop",
        images: Literal["eager", "lazy"] = "eager",
        render_mode: str | None = None,
        limits_sha256: str | None = None,
        place: Place | None = None,
        suite: RobotSuite = SUITE,
    ) -> None:
        """Describe the environment; the link is opened by the first `reset`.

        Args:
            url: Of a robot server, for example `ws://127.0.0.1:8765`; None is the simulated arm in lock-step.
            protocol: A preset's name or a protocol of your own.
            images: `eager` draws every image; `lazy`, in lock-step only, draws an image when it is read.
            render_mode: `rgb_array` makes `render` return the first camera's image; None makes it useless.
            limits_sha256: Limits that the server must have; None takes any.
            place: Called with task and start to put the objects in place, where the robot cannot; returns when done.
            suite: Tasks that are played; a server must serve the same.

        Raises:
            OptionError: If an option is none of the above.
        """
        if images not in ("eager", "lazy"):
            raise OptionError("images", images, "'eager' (draw every image) or 'lazy' (draw what is read)")
        if render_mode not in (None, "rgb_array"):
            raise OptionError("render_mode", render_mode, "'rgb_array' or None")
        presets = suite.protocols()
        if isinstance(protocol, str) and protocol not in presets:
            raise OptionError("protocol", protocol, f"one of {', '.join(presets)}, or a Protocol")
        self.url, self.images, self.render_mode = url, images, render_mode
        self.suite = suite
        self.protocol = presets[protocol] if isinstance(protocol, str) else protocol
        self.observation_space = self._describe_observation()
        self.action_space = spaces.Box(-1.0, 1.0, (ACTION_SIZE,), np.float32)
        self._limits_sha256, self._place = limits_sha256, place
        self._session: Session | None = None
        self._task = self.suite.tasks()[0]
        self._observation: Observation | None = None
        self._state = "has not begun"
        self._n_steps = 0

    @property
    def task(self) -> Task:
        """Return the task that is played."""
        return self._task

    @property
    def session(self) -> Session:
        """Return the open session with the robot, and open it at the first call.

        Raises:
            RobotLinkError: If no server answers.
            RobotRefusedError: If somebody else holds the lease, or the limits are others.
        """
        if self._session is None:
            link = self._open()
            try:
                self._session = Session(link, self._task, self._limits_sha256, self._place)
            except BaseException:
                link.close()
                raise
        return self._session

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Send the arm home, have the objects placed, arm, and return the first observation.

        `options["task"]` is an index or a name, by default the task that was played last, or the first.
        `options["init_state"]` is the index of a start, by default drawn from `seed`.

        Raises:
            OptionError: If an option is unknown or out of range.
            RobotRefusedError: If the robot is stopped or in a fault, or does not come home. In lock-step a fault that
                the last episode's actions brought about is ended here.
        """
        super().reset(seed=seed)
        self._pass_moment("has not begun")
        options = {} if options is None else options
        unknown = set(options) - {"task", "init_state"}
        if unknown:
            raise OptionError("options", sorted(unknown), "no keys but 'task' and 'init_state'")
        task = self._task if options.get("task") is None else self.suite.task(options["task"])
        start = options.get("init_state")
        start = int(self.np_random.integers(task.n_initial_states)) if start is None else start
        if isinstance(start, bool) or not isinstance(start, int | np.integer) or not 0 <= start < task.n_initial_states:
            raise OptionError("init_state", start, f"an index from 0 to {task.n_initial_states - 1}")
        self._task = task
        digest = self.session.begin(task, int(start), 1e3 / self.protocol.control_hz)
        self._n_steps, self._state = 0, "runs"
        obs = self._observe()
        if self.session.failed:
            raise RobotRefusedError("reset", f"it was left at once for the cause {self.session.failed!r}", "any")
        info = {
            "success": False,
            "suite": self.suite.name,
            "task": task.name,
            "task_index": task.index,
            "init_state": int(start),
            "init_state_sha256": digest,
            "protocol": self.protocol.hash,
        }
        return obs, info

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Apply an action for one control period, and observe afterwards.

        If the actions drove the robot into a fault, or into HOLD by refused ones, the episode is over, and
        `info["failed"]` is the cause: a failure of the policy. It is empty otherwise.

        Raises:
            ActionError: If the action has another shape, or is not a finite number everywhere.
            NotResetError: Before `reset` and after the end of an episode.
            RobotRefusedError: If the robot left ACTIVE and STARVED for any other cause: the episode says nothing about
                the policy.
        """
        if self._state != "runs":
            raise NotResetError(self._state)
        applied = self._check_action(action)
        self._pass_moment("runs")
        info = self.session.act(applied)
        obs = self._observe()
        self._n_steps += 1
        failed = info["failed"] = self.session.failed
        success = info["success"] = self.session.success and not failed
        terminated = success or bool(failed)
        truncated = not terminated and self._n_steps >= self.protocol.horizon(self.suite.name, self._task.horizon)
        if terminated or truncated:
            self._state = "has ended"
        return obs, float(success), terminated, truncated, info

    def render(self) -> np.ndarray | None:
        """Return the first camera's image of the last observation, or None without a render mode."""
        if self.render_mode is None:
            return None
        if self._observation is None:
            raise NotResetError(self._state)
        return self._observation[self.protocol.cameras[0]]

    def close(self) -> None:
        """End the trial and leave; the arm holds."""
        self._pass_moment("has not begun")
        if self._session is not None:
            self._session.close()
            self._session = None

    def _open(self) -> Link:
        if self.url is None:
            from vla_bench_envs.robot.lockstep import LockstepLink

            limits = parse(dict(self.suite.limits)) if self.suite.limits else load(SIMULATED)
            return LockstepLink(limits, self.protocol.image_size, suite=self.suite)
        from vla_bench_envs.robot.client import RemoteLink

        return RemoteLink(self.url, "control")

    def _describe_observation(self) -> spaces.Dict:
        size = self.protocol.image_size
        entries: dict[str, spaces.Space[Any]] = {
            camera: spaces.Box(0, 255, (size, size, 3), np.uint8) for camera in self.protocol.cameras
        }
        entries["proprio"] = spaces.Box(-PROPRIO_LIMIT, PROPRIO_LIMIT, dtype=np.float32)
        longest = max(len(task.instruction) for task in self.suite.tasks())
        entries["instruction"] = spaces.Text(longest, min_length=1, charset=CHARACTERS)
        return spaces.Dict(entries)

    def _check_action(self, action: np.ndarray) -> np.ndarray:
        found, expected = np.asarray(action), f"{ACTION_SIZE} finite numbers in [-1, 1]"
        if found.shape != (ACTION_SIZE,) or found.dtype.kind not in "fiu":
            raise ActionError(f"an array of shape {found.shape} and type {found.dtype}", expected)
        if not np.isfinite(found).all():
            raise ActionError(f"{found.tolist()}", expected)
        return found.astype(np.float64)

    def _observe(self) -> Observation:
        proprio, draw = self.session.observe()
        rest = {"proprio": np.clip(proprio, -PROPRIO_LIMIT, PROPRIO_LIMIT), "instruction": self._task.instruction}
        lazy = LazyObservation(draw, self.protocol.cameras, rest)
        self._observation = lazy if self.images == "lazy" and self.url is None else lazy.drawn()
        return self._observation

    def _pass_moment(self, state: str) -> None:
        """Enter a state of the episode in which the last observation's unread images are gone."""
        if isinstance(self._observation, LazyObservation):
            self._observation.expire()
        self._state = state
