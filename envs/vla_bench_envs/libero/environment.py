"""LIBERO as a Gymnasium environment: one suite, one protocol, any of its tasks and initial states."""

import hashlib
from typing import Any, Literal

import gymnasium
import numpy as np
from gymnasium import spaces

from vla_bench.errors import ActionError, NotResetError, OptionError
from vla_bench.protocol import Protocol
from vla_bench.types import Observation, Task
from vla_bench_envs.libero.observation import LazyObservation
from vla_bench_envs.libero.protocols import protocol as preset
from vla_bench_envs.libero.stage import Stage
from vla_bench_envs.libero.suites import find_suite

PROPRIO_LIMIT = np.array([2.0, 2.0, 2.0, *[2 * np.pi] * 3, 0.1, 0.1], dtype=np.float32)
"""Bound of the proprioceptive entries [m, m, m, rad, rad, rad, m, m]: the arm reaches 0.86 m, a rotation vector as
robosuite computes it is shorter than 2 pi, a finger moves 0.04 m."""

CHARACTERS = frozenset(" abcdefghijklmnopqrstuvwxyz0123456789.,'\u2019-")
"""Characters of an instruction; two LIBERO-PRO sentences have a typographic apostrophe."""


class LiberoEnv(gymnasium.Env[Observation, np.ndarray]):
    """A LIBERO suite under a protocol.

    An observation is a dict of one `uint8` image (size, size, 3) for each camera of the protocol, `proprio` (8,) and
    `instruction`. Row 0 of an image is the top of the stage. LIBERO itself returns images upside down; they are either
    flipped (the true view), or, with `Protocol.rotate_180`, turned by 180 degrees, which leaves left and right
    exchanged: that is what OpenVLA and its successors were trained on.

    `proprio` is the end effector's position [m] and rotation vector [rad] in the world frame, and the positions of
    both fingers [m], at the instant of the images.

    An action is a change of the end effector's pose and a gripper command, see `vla_bench.types.ActionSpec`. Values
    beyond [-1, 1] are clipped, silently: robosuite's controller does so, and published loops rely on it.

    An episode is settled before its first observation, ends with success (`terminated`) or at the protocol's horizon
    (`truncated`), and rewards the step that succeeds with 1.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(
        self,
        suite: str = "libero-spatial@1",
        protocol: str | Protocol = "reference",
        images: Literal["eager", "lazy"] = "eager",
        render_mode: str | None = None,
        ends_at_success: bool = True,
    ) -> None:
        """Describe the environment; the simulator starts at the first `reset`.

        Args:
            suite: Name and version, for example `libero-spatial@1`.
            protocol: A preset's name or a protocol of your own.
            images: `eager` draws every image; `lazy` draws an image when it is read, and only until the next step.
            render_mode: `rgb_array` makes `render` return the first camera's image; None makes it useless.
            ends_at_success: Whether success ends the episode; a recorder of demonstrations plays on.

        Raises:
            UnknownNameError: If there is no such suite or protocol.
            OptionError: If `images` or `render_mode` is neither of the above.
        """
        if images not in ("eager", "lazy"):
            raise OptionError("images", images, "'eager' (draw every image) or 'lazy' (draw what is read)")
        if render_mode not in (None, "rgb_array"):
            raise OptionError("render_mode", render_mode, "'rgb_array' or None")
        self.suite = find_suite(suite)
        self.protocol = preset(protocol) if isinstance(protocol, str) else protocol
        self.images = images
        self.render_mode = render_mode
        self.ends_at_success = ends_at_success
        self.observation_space = self._describe_observation()
        self.action_space = spaces.Box(-1.0, 1.0, (self.action_size,), np.float32)
        self._stage: Stage | None = None
        self._observation: Observation | None = None
        self._state = "has not begun"
        self._n_steps = 0

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Return the suite's tasks in standard order."""
        return self.suite.tasks()

    @property
    def action_size(self) -> int:
        """Return the entries of an action."""
        return self.tasks[0].action_spec.size

    @property
    def stage(self) -> Stage:
        """Return the compiled task.

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
        """Return LIBERO's `BDDLBaseDomain`, for scripted experts and other privileged readers."""
        return self.stage.simulator

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode and let its objects settle.

        `options["task"]` is an index or a name, by default the task that was played last, or the first.
        `options["init_state"]` is the index of an official initial state or a state of the simulator, by default drawn
        from `seed`. Nothing else is random: fixtures depend on the protocol's `scene_seed` only.

        Raises:
            OptionError: If an option is unknown or out of range.
            UnknownNameError: If no task has that name.
        """
        super().reset(seed=seed)
        self._pass_moment("has not begun")
        options = {} if options is None else options
        unknown = set(options) - {"task", "init_state"}
        if unknown:
            raise OptionError("options", sorted(unknown), "no keys but 'task' and 'init_state'")
        stage = self._open(options.get("task"))
        index, state = self._choose_state(stage, options.get("init_state"))
        stage.reset(state, self.protocol.settle_action, self.protocol.settle_steps)
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
        applied = self._check_action(action)
        self._pass_moment("runs")
        success = self.stage.step(applied)
        self._n_steps += 1
        terminated = success and self.ends_at_success
        truncated = not terminated and self._n_steps >= self.protocol.horizon(self.suite.name, self.suite.horizon)
        if terminated or truncated:
            self._state = "has ended"
        return self._observe(), float(success), terminated, truncated, {"success": success}

    def render(self) -> np.ndarray | None:
        """Return the first camera's image of the last observation, or None without a render mode."""
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
        size = self.protocol.image_size
        longest = max(len(task.instruction) for task in self.tasks)
        entries: dict[str, spaces.Space[Any]] = {
            camera: spaces.Box(0, 255, (size, size, 3), np.uint8) for camera in self.protocol.cameras
        }
        entries["proprio"] = spaces.Box(-PROPRIO_LIMIT, PROPRIO_LIMIT, dtype=np.float32)
        entries["instruction"] = spaces.Text(longest, min_length=1, charset=CHARACTERS)
        return spaces.Dict(entries)

    def _open(self, key: int | str | None) -> Stage:
        """Return the compiled task, replacing another one: two would need 1.5 to 1.9 GB each."""
        current = None if self._stage is None else self._stage.task
        task = (current or self.tasks[0]) if key is None else self.suite.task(key)
        if task != current:
            self.close()
            self._stage = Stage(task, self.protocol)
        return self.stage

    def _choose_state(self, stage: Stage, chosen: Any) -> tuple[int, np.ndarray]:
        """Return index (-1 for a state of the caller's) and initial state."""
        if isinstance(chosen, np.ndarray) and chosen.ndim:
            return -1, np.ascontiguousarray(chosen, dtype=np.float64)
        n_states = len(stage.initial_states)
        if chosen is None:
            chosen = int(self.np_random.integers(n_states))
        if isinstance(chosen, bool) or not isinstance(chosen, (int, np.integer)) or not 0 <= chosen < n_states:
            raise OptionError("init_state", chosen, f"an index from 0 to {n_states - 1}, or a state (NumPy array)")
        return int(chosen), stage.initial_states[int(chosen)]

    def _check_action(self, action: np.ndarray) -> np.ndarray:
        found = np.asarray(action)
        expected = f"{self.action_size} finite numbers in [-1, 1]"
        if found.shape != (self.action_size,) or found.dtype.kind not in "fiu":
            raise ActionError(f"an array of shape {found.shape} and type {found.dtype}", expected)
        if not np.isfinite(found).all():
            raise ActionError(f"{found.tolist()}", expected)
        return found.astype(np.float64)

    def _observe(self) -> Observation:
        rest = {"proprio": self.stage.proprio, "instruction": self.task.instruction}
        lazy = LazyObservation(self._draw, self.protocol.cameras, rest)
        self._observation = lazy if self.images == "lazy" else lazy.drawn()
        return self._observation

    def _draw(self, camera: str) -> np.ndarray:
        raw = self.stage.cameras.draw(camera)
        return np.ascontiguousarray(raw[::-1, ::-1] if self.protocol.rotate_180 else raw[::-1])

    def _pass_moment(self, state: str) -> None:
        """Enter a state of the episode in which the last observation's unread images are gone."""
        if isinstance(self._observation, LazyObservation):
            self._observation.expire()
        self._state = state
