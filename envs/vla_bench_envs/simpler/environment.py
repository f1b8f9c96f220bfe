"""SIMPLER as a Gymnasium environment: one suite, one protocol, any of its tasks and initial states."""

import hashlib
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces

from vla_bench.errors import ActionError, NotResetError, OptionError
from vla_bench.protocol import Protocol
from vla_bench.types import Observation, Task
from vla_bench_envs.libero.observation import LazyObservation
from vla_bench_envs.simpler import assets
from vla_bench_envs.simpler.errors import OtherAssetsError
from vla_bench_envs.simpler.protocols import CONTROL_HZ, SimplerProtocol
from vla_bench_envs.simpler.stage import Stage
from vla_bench_envs.simpler.suites import ACTION_SPEC, NAME, find_suite

PROPRIO_LIMIT = np.array([2.0, 2.0, 2.0, *[3.2] * 3, 0.1, 0.1], dtype=np.float32)
"""Bound of the proprioceptive entries [m, m, m, rad, rad, rad, m, m]: the arm reaches 0.75 m, a rotation vector is not
longer than pi, a finger moves 0.04 m."""

CHARACTERS = frozenset(" abcdefghijklmnopqrstuvwxyz")
"""Characters of an instruction."""


class SimplerEnv(gymnasium.Env[Observation, np.ndarray]):
    """A SIMPLER suite under a protocol.

    An observation is a dict of the camera's `uint8` image (height, width, 3), `proprio` (8,) and `instruction`. Row 0
    is the top. Robot and objects are drawn, the rest of the image is a photograph of the real scene.

    `proprio` is the end effector's position [m] and rotation vector [rad] in the frame of the robot's base, and the
    positions of both fingers [m].

    An action is a change [m, rad] of the end effector's target pose in the base's axes and a gripper command, see
    `vla_bench_envs.simpler.suites.ACTION_SPEC`. As in SIMPLER the arm's entries are not clipped, and a target that
    cannot be reached leaves the arm where it is; the gripper's entry is clipped.

    An episode ends at the protocol's horizon, where it is judged (`terminated` if it succeeded, else `truncated`), or
    with `success="once"` as soon as the predicate holds. The step that succeeds is rewarded with 1.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": int(CONTROL_HZ)}

    def __init__(
        self,
        suite: str = NAME,
        protocol: str | Protocol = "reference",
        images: Literal["eager", "lazy"] = "eager",
        render_mode: str | None = None,
        ends_at_success: bool = True,
    ) -> None:
        """Describe the environment; the simulator starts at the first `reset`.

        Args:
            suite: Name and version, for example `simpler-widowx@1`.
            protocol: A preset's name or a `SimplerProtocol` of your own.
            images: `eager` draws every image; `lazy` draws an image when it is read, and only until the next step.
            render_mode: `rgb_array` makes `render` return the camera's image; None makes it useless.
            ends_at_success: Whether success ends the episode; a recorder of demonstrations plays on.

        Raises:
            UnknownNameError: If there is no such suite or protocol.
            OptionError: If `images` or `render_mode` is neither of the above, or the protocol is not SIMPLER's.
        """
        if images not in ("eager", "lazy"):
            raise OptionError("images", images, "'eager' (draw every image) or 'lazy' (draw what is read)")
        if render_mode not in (None, "rgb_array"):
            raise OptionError("render_mode", render_mode, "'rgb_array' or None")
        self.suite = find_suite(suite)
        chosen = self.suite.protocol(protocol) if isinstance(protocol, str) else protocol
        if not isinstance(chosen, SimplerProtocol):
            raise OptionError("protocol", str(chosen), "a SimplerProtocol")
        self.protocol = chosen
        self.images = images
        self.render_mode = render_mode
        self.ends_at_success = ends_at_success
        self.observation_space = self._describe_observation()
        self.action_space = spaces.Box(ACTION_SPEC.low, ACTION_SPEC.high, (ACTION_SPEC.size,), np.float32)
        self._stage: Stage | None = None
        self._observation: Observation | None = None
        self._state = "has not begun"
        self._n_steps = 0

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Return the suite's tasks in standard order."""
        return self.suite.tasks()

    @property
    def stage(self) -> Stage:
        """Return the task that was built.

        Raises:
            NotResetError: Before the first `reset`.
        """
        if self._stage is None:
            raise NotResetError(self._state)
        return self._stage

    @property
    def task(self) -> Task:
        """Return the task that is played."""
        return self.stage.task

    @property
    def simulator(self) -> Any:
        """Return ManiSkill's `BaseBridgeEnv`, for scripted experts and other privileged readers."""
        return self.stage.simulator

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode and let its objects come to rest.

        `options["task"]` is an index or a name, by default the task that was played last, or the first.
        `options["init_state"]` is the index of an official initial state or the poses of both objects (2, 7), by
        default drawn from `seed`. Nothing else is random.

        Raises:
            OptionError: If an option is unknown or out of range.
            UnknownNameError: If no task has that name.
            MissingSimulatorError: If ManiSkill is not installed.
            MissingAssetsError: If its files are not there.
            MissingVulkanError: If nothing can draw.
        """
        super().reset(seed=seed)
        self._pass_moment("has not begun")
        options = {} if options is None else options
        unknown = set(options) - {"task", "init_state"}
        if unknown:
            raise OptionError("options", sorted(unknown), "no keys but 'task' and 'init_state'")
        stage = self._open(options.get("task"))
        index, state = self._choose_state(stage, options.get("init_state"))
        stage.reset(state)
        self._n_steps, self._state = 0, "runs"
        info = {
            "success": False,
            "suite": self.suite.name,
            "task": stage.task.name,
            "task_index": stage.task.index,
            "init_state": index,
            "init_state_sha256": hashlib.sha256(state.tobytes()).hexdigest(),
            "protocol": self.protocol.hash,
            "settle_steps": self.protocol.settle_steps,
            "assets": self.protocol.assets,
        }
        return self._observe(), info

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Apply an action for one control step.

        Raises:
            ActionError: If the action has another shape, or is not a finite number everywhere.
            NotResetError: Before `reset` and after the end of an episode.
        """
        if self._state != "runs":
            raise NotResetError(self._state)
        applied = _check_action(action)
        self._pass_moment("runs")
        holds = self.stage.step(applied)
        self._n_steps += 1
        is_last = self._n_steps >= self.protocol.horizon(self.suite.name, self.task.horizon)
        success = holds and (is_last or self.protocol.success == "once")
        terminated = success and (is_last or self.ends_at_success)
        truncated = is_last and not terminated
        if terminated or truncated:
            self._state = "has ended"
        return self._observe(), float(success), terminated, truncated, {"success": success}

    def render(self) -> np.ndarray | None:
        """Return the camera's image of the last observation, or None without a render mode."""
        if self.render_mode is None:
            return None
        if self._observation is None:
            raise NotResetError(self._state)
        return self._observation[self.protocol.cameras[0]]

    def close(self) -> None:
        """Free the simulator; the next `reset` starts another."""
        self._pass_moment("has not begun")
        if self._stage is not None:
            self._stage.close()
            self._stage = None

    def _describe_observation(self) -> spaces.Dict:
        shape = (*self.protocol.picture_px, 3)
        longest = max(len(task.instruction) for task in self.tasks)
        entries: dict[str, spaces.Space[Any]] = {
            camera: spaces.Box(0, 255, shape, np.uint8) for camera in self.protocol.cameras
        }
        entries["proprio"] = spaces.Box(-PROPRIO_LIMIT, PROPRIO_LIMIT, dtype=np.float32)
        entries["instruction"] = spaces.Text(longest, min_length=1, charset=CHARACTERS)
        return spaces.Dict(entries)

    def _open(self, key: int | str | None) -> Stage:
        """Return the built task, in place of another one."""
        current = None if self._stage is None else self._stage.task
        task = (current or self.tasks[0]) if key is None else self.suite.task(key)
        if task != current:
            self.close()
            if (found := assets.kind()) != self.protocol.assets:
                raise OtherAssetsError(self.protocol.name, self.protocol.assets, found)
            self._stage = Stage(task, self.protocol)
        return self.stage

    def _choose_state(self, stage: Stage, chosen: Any) -> tuple[int, np.ndarray]:
        """Return index (-1 for a state of the caller's) and initial state."""
        if isinstance(chosen, np.ndarray) and chosen.ndim:
            return -1, np.ascontiguousarray(chosen, dtype=np.float32)
        n_states = len(stage.initial_states)
        if chosen is None:
            chosen = int(self.np_random.integers(n_states))
        if isinstance(chosen, bool) or not isinstance(chosen, (int, np.integer)) or not 0 <= chosen < n_states:
            raise OptionError("init_state", chosen, f"an index from 0 to {n_states - 1}, or poses (NumPy array)")
        return int(chosen), stage.initial_states[int(chosen)]

    def _observe(self) -> Observation:
        rest = {"proprio": self.stage.proprio, "instruction": self.task.instruction}
        lazy = LazyObservation(self.stage.draw, self.protocol.cameras, rest)
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
