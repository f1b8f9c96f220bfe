"""LIBERO as a Gymnasium environment: one suite, one protocol, any of its tasks and initial states."""

import hashlib
from typing import Any

import numpy as np

from vla_bench.errors import NotResetError
from vla_bench.protocol import Protocol
from vla_bench.types import Task
from vla_bench_envs.environment import Images, Moment, SuiteEnv
from vla_bench_envs.libero.protocols import protocol as preset
from vla_bench_envs.libero.stage import Stage
from vla_bench_envs.libero.suites import LiberoSuite, find_suite


class LiberoEnv(SuiteEnv[LiberoSuite, Protocol]):
    """A LIBERO suite under a protocol; `vla_bench_envs.environment.SuiteEnv` says what all suites have in common.

    LIBERO itself returns images upside down; they are either flipped (the true view), or, with `Protocol.rotate_180`,
    turned by 180 degrees, which leaves left and right exchanged: that is what OpenVLA and its successors were trained
    on.

    `proprio` (8,) is the end effector's position [m] and rotation vector [rad] in the world frame, and the positions of
    both fingers [m], at the instant of the images.

    An action is a change of the end effector's pose and a gripper command, see `vla_bench.types.ActionSpec`. Values
    beyond [-1, 1] are clipped, silently: robosuite's controller does so, and published loops rely on it.

    An episode is settled before its first observation. `options["init_state"]` may also be a state of the simulator.
    Fixtures depend on the protocol's `scene_seed` only.
    """

    PROPRIO_LIMIT = np.array([2.0, 2.0, 2.0, *[2 * np.pi] * 3, 0.1, 0.1], dtype=np.float32)
    """[m, m, m, rad, rad, rad, m, m]: the arm reaches 0.86 m, a rotation vector as robosuite computes it is shorter
    than 2 pi, a finger moves 0.04 m."""

    CHARACTERS = frozenset(" abcdefghijklmnopqrstuvwxyz0123456789.,'\u2019-")
    """Two LIBERO-PRO sentences have a typographic apostrophe."""

    def __init__(
        self,
        suite: str = "libero-spatial@1",
        protocol: str | Protocol = "reference",
        images: Images = "eager",
        render_mode: str | None = None,
        ends_at_success: bool = True,
    ) -> None:
        """Describe the environment; the simulator starts at the first `reset`.

        Args:
            suite: Name and version, for example `libero-spatial@1`.
            protocol: A preset's name or a protocol of your own.
            images: As `SuiteEnv` has it; so are the others.
            render_mode: See there.
            ends_at_success: See there.

        Raises:
            UnknownNameError: If there is no such suite or protocol.
            OptionError: If `images` or `render_mode` is unknown.
        """
        chosen = preset(protocol) if isinstance(protocol, str) else protocol
        super().__init__(find_suite(suite), chosen, images, render_mode, ends_at_success)
        self._stage: Stage | None = None
        self._success = False

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
    def simulator(self) -> Any:
        """Return LIBERO's `BDDLBaseDomain`, for scripted experts and other privileged readers."""
        return self.stage.simulator

    def _begin(self, task: Task, start: Any) -> dict[str, Any]:
        if self._stage is None or self._stage.task != task:
            self._release()  # two would need 1.5 to 1.9 GB each
            self._stage = Stage(task, self.protocol)
        index, state = self._choose_state(start)
        self.stage.reset(state, self.protocol.settle_action, self.protocol.settle_steps)
        return {"init_state": index, "init_state_sha256": hashlib.sha256(state.tobytes()).hexdigest()}

    def _choose_state(self, chosen: Any) -> tuple[int, np.ndarray]:
        """Return index (-1 for a state of the caller's) and initial state."""
        if isinstance(chosen, np.ndarray) and chosen.ndim:
            return -1, np.ascontiguousarray(chosen, dtype=np.float64)
        index = self._choose_start(chosen, len(self.stage.initial_states), ", or a state (NumPy array)")
        return index, self.stage.initial_states[index]

    def _apply(self, action: np.ndarray) -> None:
        self._success = self.stage.step(action)

    def _sense(self) -> Moment:
        return Moment(self.stage.proprio, self.stage.task.instruction, self._draw)

    def _draw(self, camera: str) -> np.ndarray:
        raw = self.stage.cameras.draw(camera)
        return np.ascontiguousarray(raw[::-1, ::-1] if self.protocol.rotate_180 else raw[::-1])

    def _judge(self, is_last: bool) -> dict[str, Any]:
        return {"success": self._success}

    def _release(self) -> None:
        if self._stage is not None:
            self._stage.close()
            self._stage = None
