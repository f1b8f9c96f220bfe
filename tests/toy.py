"""A two-dimensional reaching task for fast tests of the harness: never a benchmark.

A point in the unit square is pushed towards a goal. Everything is decided by task, initial state and actions; an
episode takes about a millisecond. `TOY` can be told to raise or to kill its own process at a cell.
"""

import ctypes
import hashlib
import os
import signal
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

import vla_bench
from vla_bench.errors import ActionError, NotResetError, OptionError
from vla_bench.policy import ActionChunk
from vla_bench.protocol import Protocol
from vla_bench.types import ActionSpec, Observation, Task

SPEC = ActionSpec(size=2, translation_m=0.05)
CAMERAS = ("front", "wrist")
PROTOCOL = Protocol("toy", CAMERAS, image_size=8, rotate_180=False, settle_steps=0, settle_action=(), control_hz=20)
N_INITIAL_STATES, HORIZON, REACHED_M, FAULT_STEP = 5, 12, 0.05, 2
LETTERS = "abcdefghijklmnopqrstuvwxyz "
GOALS = {"red": (0.5, 0.5), "green": (0.2, 0.7), "blue": (0.9, 0.1)}


@dataclass
class ToySuite:
    """Three goals, five starts; satisfies `vla_bench.suite.Suite`."""

    name: str = "toy@1"
    gym_id: str = "vla_bench/Toy-v0"
    default_protocol: str = "toy"
    raises_at: set[tuple[int, int]] = field(default_factory=set)
    """Task and initial state of the episodes that raise in their third step."""
    kills_at: set[tuple[int, int]] = field(default_factory=set)
    """Task and initial state of the episodes that kill the process in their third step."""
    hangs_once: str = ""
    """File that makes the next third step hang, once: it is removed then."""
    kills_once: str = ""
    """File that makes the next third step kill its process, once."""
    crashes_once: str = ""
    """File that makes the next third step read memory that there is not, in native code, once."""
    physics: str = "v1"
    """Stands for what a fingerprint would find."""

    def tasks(self) -> tuple[Task, ...]:
        return tuple(
            Task(self.name, index, colour, f"reach the {colour} dot", HORIZON, N_INITIAL_STATES, action_spec=SPEC)
            for index, colour in enumerate(GOALS)
        )

    def protocols(self) -> dict[str, Protocol]:
        return {"toy": PROTOCOL}

    def make(self, protocol: Protocol, images: str = "lazy") -> "ToyEnv":
        return ToyEnv(self, protocol, images)

    def fingerprint(self, protocol: Protocol) -> dict[str, str]:
        return {"physics": self.physics}


TOY = ToySuite()


class ToyEnv(gymnasium.Env[Observation, np.ndarray]):
    """Push a point to a goal; an observation holds two images, position and goal, and a sentence."""

    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}

    def __init__(self, suite: ToySuite = TOY, protocol: Protocol = PROTOCOL, images: str = "eager") -> None:
        self.suite, self.protocol, self.images = suite, protocol, images
        shape = (protocol.image_size, protocol.image_size, 3)
        self.observation_space = spaces.Dict(
            {camera: spaces.Box(0, 255, shape, np.uint8) for camera in protocol.cameras}
            | {"proprio": spaces.Box(-9, 9, (4,), np.float32), "instruction": spaces.Text(40, charset=LETTERS)}
        )
        self.action_space = spaces.Box(-1, 1, (SPEC.size,), np.float32)
        self.drawn: list[str] = []
        """Every image that was drawn, by camera."""
        self.n_closed = 0
        self._n_steps, self._runs = 0, False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        chosen = {"task": 0, "init_state": int(self.np_random.integers(N_INITIAL_STATES))} | (options or {})
        for name, n in (("task", len(GOALS)), ("init_state", N_INITIAL_STATES)):
            if not 0 <= chosen[name] < n:
                raise OptionError(name, chosen[name], f"an index from 0 to {n - 1}")
        self._cell = (chosen["task"], chosen["init_state"])
        self._task = self.suite.tasks()[chosen["task"]]
        self._position = np.random.default_rng(self._cell).uniform(0, 1, 2)
        self._goal = np.array(GOALS[self._task.name])
        self._n_steps, self._runs = 0, True
        digest = hashlib.sha256(self._position.tobytes()).hexdigest()
        return self._observe(), {"success": self._succeeds(), "init_state_sha256": digest}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        if not self._runs:
            raise NotResetError("has ended" if self._n_steps else "has not begun")
        found = np.asarray(action, dtype=float)
        if found.shape != (SPEC.size,) or not np.isfinite(found).all():
            raise ActionError(f"{found.tolist()}", f"{SPEC.size} finite numbers")
        self._fail_if_told()
        self._position = self._position + SPEC.translation_m * np.clip(found, -1, 1)
        self._n_steps += 1
        success = self._succeeds()
        truncated = not success and self._n_steps >= HORIZON
        self._runs = not (success or truncated)
        return self._observe(), float(success), success, truncated, {"success": success}

    def close(self) -> None:
        self.n_closed += 1

    def _succeeds(self) -> bool:
        return bool(np.linalg.norm(self._position - self._goal) <= REACHED_M)

    def _fail_if_told(self) -> None:
        if self._n_steps == FAULT_STEP and self._cell in self.suite.raises_at:
            raise RuntimeError(f"the toy was told to break at {self._cell}")
        if self._n_steps == FAULT_STEP and _taken(self.suite.hangs_once):
            time.sleep(600)
        if self._n_steps == FAULT_STEP and _taken(self.suite.kills_once):
            os.kill(os.getpid(), signal.SIGKILL)
        if self._n_steps == FAULT_STEP and _taken(self.suite.crashes_once):
            ctypes.string_at(0)
        if self._n_steps == FAULT_STEP and self._cell in self.suite.kills_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def _observe(self) -> Observation:
        proprio = np.concatenate([self._position, self._goal]).astype(np.float32)
        obs = _LazyImages(self._draw, {"proprio": proprio, "instruction": self._task.instruction})
        return obs if self.images == "lazy" else {key: obs[key] for key in (*self.protocol.cameras, *obs)}

    def _draw(self, camera: str) -> np.ndarray:
        self.drawn.append(camera)
        shade = np.clip(255 * self._position[self.protocol.cameras.index(camera)], 0, 255)
        return np.full((self.protocol.image_size, self.protocol.image_size, 3), shade, np.uint8)


def _taken(path: str) -> bool:
    """Say whether there is such a file; the first who asks takes it away."""
    try:
        Path(path or "/nowhere").unlink()
    except OSError:
        return False
    return True


class _LazyImages(dict[str, Any]):
    """An observation that asks for an image each time it is read."""

    def __init__(self, draw: Any, rest: dict[str, Any]) -> None:
        super().__init__(rest)
        self._draw = draw

    def __missing__(self, camera: str) -> np.ndarray:
        return self._draw(camera)


@dataclass
class ToyPolicy:
    """Walk straight to the goal, with a little noise from the episode's seed."""

    n_actions: int = 2
    """Actions in a chunk."""
    delay_s: float = 0.0
    """Time every query takes, for tests that kill a run in its middle."""
    cameras: tuple[str, ...] | None = ("front",)
    name: str = "toy"
    action_spec: ActionSpec = SPEC

    @property
    def fingerprint(self) -> str:
        return f"toy-{self.n_actions}"

    def reset(self, task: Task, seed: int) -> None:
        self._rng = np.random.default_rng([seed, task.index])

    def act(self, obs: Observation) -> ActionChunk:
        time.sleep(self.delay_s)
        position, goal = obs["proprio"][:2].astype(float), obs["proprio"][2:].astype(float)
        actions = []
        for _ in range(self.n_actions):
            wanted = (goal - position) / SPEC.translation_m + self._rng.normal(0, 0.1, SPEC.size)
            actions.append(np.clip(wanted, -1, 1))
            position = position + SPEC.translation_m * actions[-1]
        return ActionChunk(np.array(actions), rows_computed=10, rows_reused=0, stages_ms={"all": 0.1})

    def synchronize(self) -> None:
        pass


@dataclass
class SharedToy(ToyPolicy):
    """A toy that answers several environments at once; it notes how many, and fails when a file tells it to."""

    name: str = "toy-shared"
    batches: str = ""
    """File that gets the size of every batch."""
    kills_once: str = ""
    """File that makes the next batch kill its process, once."""
    hangs_once: str = ""
    """File that makes the next batch hang, once."""
    raises_once: str = ""
    """File that makes the next batch raise, once."""
    hangs_at_first: bool = False
    """Whether it hangs while it is made."""
    devices: str = ""
    """File that gets a line for every time it is made: the GPUs that its process may use."""

    def __post_init__(self) -> None:
        if self.devices:
            with Path(self.devices).open("a") as stream:
                stream.write(f"{os.environ.get('CUDA_VISIBLE_DEVICES', 'all')}\n")
        if self.hangs_at_first:
            time.sleep(600)

    def seat(self) -> "SharedToy":
        return replace(self)

    def act_together(self, seats, observations) -> list[ActionChunk]:
        if _taken(self.kills_once):
            os.kill(os.getpid(), signal.SIGKILL)
        if _taken(self.hangs_once):
            time.sleep(600)
        if _taken(self.raises_once):
            raise RuntimeError("the toy was told to raise")
        if self.batches:
            with Path(self.batches).open("a") as stream:
                stream.write(f"{len(seats)}\n")
        return [seat.act(obs) for seat, obs in zip(seats, observations, strict=True)]


vla_bench.register("suite", "toy@1", TOY)
vla_bench.register("policy", "toy-shared", SharedToy)
vla_bench.register("policy", "toy", ToyPolicy)
