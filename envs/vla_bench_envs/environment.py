"""An episode's course, the same in every simulator: options, moments, pictures, horizon, what cannot be applied."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Literal, TypeVar
from typing import Protocol as TypingProtocol

import gymnasium
import numpy as np
from gymnasium import spaces

from vla_bench.errors import ActionError, NotResetError, OptionError
from vla_bench.protocol import Protocol
from vla_bench.types import Observation, Task
from vla_bench_envs.observation import LazyObservation

Images = Literal["eager", "lazy"]


class TaskedSuite(TypingProtocol):
    """What an environment asks of its suite."""

    @property
    def name(self) -> str:
        """Return name and version."""
        ...

    def tasks(self) -> tuple[Task, ...]:
        """Return the tasks in standard order."""
        ...

    def task(self, key: int | str) -> Task:
        """Return the task at a position, or of a name."""
        ...


SuiteT = TypeVar("SuiteT", bound=TaskedSuite)
ProtocolT = TypeVar("ProtocolT", bound=Protocol)


@dataclass(frozen=True)
class Moment:
    """What is sensed at one instant."""

    proprio: np.ndarray
    """Proprioception, `float32`."""

    instruction: str
    """The sentence that holds now."""

    draw: Callable[[str], np.ndarray]
    """Draws a camera's `uint8` picture (height, width, 3) of this instant; asked until the next step, once a camera."""


class SuiteEnv(gymnasium.Env[Observation, np.ndarray], Generic[SuiteT, ProtocolT], ABC):
    """A suite under a protocol; what is a simulator's own its subclass says in five methods.

    An observation is a dict of one `uint8` image (height, width, 3) for each camera of the protocol, `proprio` and
    `instruction`. Row 0 of an image is the top of the scene.

    An episode ends with success (`terminated`) or at the protocol's horizon (`truncated`), and rewards a step after
    which the task is done with 1. If the simulator raises during a step, the episode has been lost.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 20}

    PROPRIO_LIMIT: ClassVar[np.ndarray]
    """Bound of the absolute proprioceptive entries, `float32`."""

    CHARACTERS: ClassVar[frozenset[str]]
    """Characters of an instruction."""

    LONGEST: ClassVar[int] = 0
    """Characters that an instruction has at most; 0 is the longest of the tasks'."""

    def __init__(
        self, suite: SuiteT, protocol: ProtocolT, images: Images, render_mode: str | None, ends_at_success: bool = True
    ) -> None:
        """Describe the environment; the simulator starts at the first `reset`.

        Args:
            suite: Tasks that are played.
            protocol: How.
            images: `eager` draws every image; `lazy` draws an image when it is read, and only until the next step.
            render_mode: `rgb_array` makes `render` return the first camera's image; None makes it useless.
            ends_at_success: Whether success ends the episode; a recorder of demonstrations plays on.

        Raises:
            OptionError: If `images` or `render_mode` is neither of the above.
        """
        if images not in ("eager", "lazy"):
            raise OptionError("images", images, "'eager' (draw every image) or 'lazy' (draw what is read)")
        if render_mode not in (None, "rgb_array"):
            raise OptionError("render_mode", render_mode, "'rgb_array' or None")
        self.suite = suite
        self.protocol = protocol
        self.images: Images = images
        self.render_mode = render_mode
        self.ends_at_success = ends_at_success
        self._task = suite.tasks()[0]
        self.observation_space = self._describe_observation()
        spec = self._task.action_spec
        self.action_space = spaces.Box(spec.low, spec.high, (spec.size,), np.float32)
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
    def horizon(self) -> int:
        """Return the control steps an episode may take."""
        return self.protocol.horizon(self.suite.name, self._task.horizon)

    @abstractmethod
    def _begin(self, task: Task, start: Any) -> dict[str, Any]:
        """Start an episode; return `init_state`, its `init_state_sha256`, and what else `info` says.

        Args:
            task: What is played.
            start: `options["init_state"]`, unchecked; None leaves the choice to `self.np_random`.
        """

    @abstractmethod
    def _apply(self, action: np.ndarray) -> None:
        """Apply an action (size,), finite `float64`, for one control step."""

    @abstractmethod
    def _sense(self) -> Moment:
        """Return what is sensed now."""

    @abstractmethod
    def _judge(self, is_last: bool) -> dict[str, Any]:
        """Return the `info` of the step that was applied: `success`, and in `failed` why, if the policy ended it."""

    @abstractmethod
    def _release(self) -> None:
        """Free the simulator, if there is one."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode.

        `options["task"]` is an index or a name, by default the task that was played last, or the first.
        `options["init_state"]` is the index of an official initial state, by default drawn from `seed`. Nothing else
        is random.

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
        task = self._task if options.get("task") is None else self.suite.task(options["task"])
        facts = self._begin(task, options.get("init_state"))
        self._task, self._n_steps, self._state = task, 0, "runs"
        info = {
            "success": False,
            "suite": self.suite.name,
            "task": task.name,
            "task_index": task.index,
            "protocol": self.protocol.hash,
            "settle_steps": self.protocol.settle_steps,
        }
        return self._observe(), info | facts

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Apply an action for one control step.

        Raises:
            ActionError: If the action has another shape, or is not a finite number everywhere.
            NotResetError: Before `reset` and after the end of an episode.
        """
        if self._state != "runs":
            raise NotResetError(self._state)
        applied = self._check_action(action)
        self._pass_moment("has been lost")
        self._apply(applied)
        obs = self._observe()
        self._n_steps += 1
        is_last = self._n_steps >= self.horizon
        info = self._judge(is_last)
        terminated = bool(info.get("failed")) or (info["success"] and self.ends_at_success)
        truncated = is_last and not terminated
        self._state = "has ended" if terminated or truncated else "runs"
        return obs, float(info["success"]), terminated, truncated, info

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
        self._release()

    def _choose_start(self, chosen: Any, n_starts: int, otherwise: str = "") -> int:
        """Return the index of an official start, drawn if none is chosen.

        Raises:
            OptionError: If there is no such start; `otherwise` is what else could have been chosen.
        """
        if chosen is None:
            return int(self.np_random.integers(n_starts))
        if isinstance(chosen, bool) or not isinstance(chosen, (int, np.integer)) or not 0 <= chosen < n_starts:
            raise OptionError("init_state", chosen, f"an index from 0 to {n_starts - 1}{otherwise}")
        return int(chosen)

    def _describe_observation(self) -> spaces.Dict:
        shape = (*self.protocol.picture_px, 3)
        longest = self.LONGEST or max(len(task.instruction) for task in self.tasks)
        entries: dict[str, spaces.Space[Any]] = {
            camera: spaces.Box(0, 255, shape, np.uint8) for camera in self.protocol.cameras
        }
        entries["proprio"] = spaces.Box(-self.PROPRIO_LIMIT, self.PROPRIO_LIMIT, dtype=np.float32)
        entries["instruction"] = spaces.Text(longest, min_length=1, charset=self.CHARACTERS)
        return spaces.Dict(entries)

    def _check_action(self, action: np.ndarray) -> np.ndarray:
        found, size = np.asarray(action), self._task.action_spec.size
        expected = f"{size} finite numbers in [-1, 1]"
        if found.shape != (size,) or found.dtype.kind not in "fiu":
            raise ActionError(f"an array of shape {found.shape} and type {found.dtype}", expected)
        if not np.isfinite(found).all():
            raise ActionError(f"{found.tolist()}", expected)
        return found.astype(np.float64)

    def _observe(self) -> Observation:
        moment = self._sense()
        rest = {"proprio": moment.proprio, "instruction": moment.instruction}
        lazy = LazyObservation(moment.draw, self.protocol.cameras, rest)
        self._observation = lazy if self.images == "lazy" else lazy.drawn()
        return self._observation

    def _pass_moment(self, state: str) -> None:
        """Enter a state of the episode in which the last observation's unread images are gone."""
        if isinstance(self._observation, LazyObservation):
            self._observation.expire()
        self._state = state
