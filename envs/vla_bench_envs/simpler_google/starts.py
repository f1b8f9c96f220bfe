"""Where episodes start: one start as plain facts, and the sweeps of starts that an evaluation script makes.

Source of the order of a sweep: SimplerEnv at 4ab7178, `simpler_env/evaluation/maniskill2_evaluator.py`
(`maniskill2_evaluator`), and of its values `simpler_env/evaluation/argparse.py`.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import product

import numpy as np
from jaxtyping import Float32

Range = tuple[float, float, int]
"""First value, last value and how many, evenly spaced, as the scripts' arguments have them."""

Options = tuple[tuple[str, str | bool], ...]
"""`--additional-env-build-kwargs` of a script, by name."""


@dataclass(frozen=True)
class Start:
    """One official initial state: what is built, and with which options it is reset."""

    env_id: str
    """Name of the environment in ManiSkill2_real2sim."""

    scene: str
    """Name of the stage that is loaded."""

    overlay: str
    """Photograph behind what is drawn, a file of `real_inpainting`; empty for none."""

    options: Options
    """What else the environment is built with."""

    robot_xy_m: tuple[float, float]
    """Position of the robot's base in the scene."""

    robot_yaw_rad: float
    """By how much the base is turned, beyond the half turn with which it faces the table."""

    object_xy_m: tuple[float, float] | None
    """Position above which the object falls; None where an episode's number decides."""

    episode_id: int | None = None
    """The environment's own number of the episode: objects, places and sentence."""

    @property
    def robot_quaternion(self) -> Float32[np.ndarray, " 4"]:
        """Return the base's orientation (w, x, y, z) in the scene.

        The scripts multiply the turn by `--robot-init-rot-quat-center 0 0 0 1`, a half turn about z: SAPIEN's order is
        (w, x, y, z), where the argument's help text has it otherwise. That product is exact in single precision.
        """
        half = self.robot_yaw_rad / 2
        return np.array([-np.sin(half), 0.0, 0.0, np.cos(half)], dtype=np.float32)

    @property
    def sha256(self) -> str:
        """Return the hash of all facts: equal ones are one start."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Sweep:
    """The starts of one command of an evaluation script."""

    env_id: str
    scene: str
    robot_x_m: Range
    """`--robot-init-x`."""
    robot_y_m: Range
    """`--robot-init-y`."""
    robot_yaw_rad: float = 0.0
    """Last triple of `--robot-init-rot-rpy-range`, of which no script asks for more than one value."""
    object_x_m: Range = (0.0, 0.0, 1)
    """`--obj-init-x`; 0 where there is no object."""
    object_y_m: Range = (0.0, 0.0, 1)
    """`--obj-init-y`."""
    n_episodes: int = 0
    """`--obj-episode-range` from 0, instead of positions."""
    overlay: str = ""
    """File of `--rgb-overlay-path`."""
    options: Options = ()
    """`--additional-env-build-kwargs`, after those of `--enable-raytracing`."""

    def starts(self) -> Iterator[Start]:
        """Yield the starts in the order in which the script plays them."""
        for robot_x, robot_y in product(spaced(self.robot_x_m), spaced(self.robot_y_m)):
            for object_xy_m, episode_id in self._objects():
                yield Start(
                    self.env_id, self.scene, self.overlay, self.options,
                    (robot_x, robot_y), self.robot_yaw_rad, object_xy_m, episode_id,
                )  # fmt: skip

    def _objects(self) -> Iterator[tuple[tuple[float, float] | None, int | None]]:
        if self.n_episodes:
            yield from ((None, episode_id) for episode_id in range(self.n_episodes))
        else:
            yield from ((xy, None) for xy in product(spaced(self.object_x_m), spaced(self.object_y_m)))


@dataclass(frozen=True)
class Playbook:
    """One task: its sentence, its horizon and all of its sweeps, in the order of its script."""

    name: str
    """Of `simpler_env.ENVIRONMENTS`, without the robot's."""

    instruction: str
    """What the robot is told; where the environment decides, a summary of it, see `vla_bench.types.Task`."""

    horizon: int
    """`--max-episode-steps`."""

    sweeps: tuple[Sweep, ...]

    @cached_property
    def starts(self) -> tuple[Start, ...]:
        """Return all initial states; the index in here is the benchmark's `init_state`."""
        return tuple(start for sweep in self.sweeps for start in sweep.starts())


def spaced(values: Range) -> list[float]:
    """Return evenly spaced values, both ends among them, as `parse_range_tuple` does."""
    low, high, n = values
    return [float(value) for value in np.linspace(low, high, n)]
