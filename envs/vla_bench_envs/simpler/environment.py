"""SIMPLER as a Gymnasium environment: one suite, one protocol, any of its tasks and initial states."""

import hashlib
from typing import Any

import numpy as np

from vla_bench.errors import NotResetError, OptionError
from vla_bench.protocol import Protocol
from vla_bench.types import Task
from vla_bench_envs.environment import Images, Moment, SuiteEnv
from vla_bench_envs.simpler import assets
from vla_bench_envs.simpler.errors import OtherAssetsError
from vla_bench_envs.simpler.protocols import CONTROL_HZ, SimplerProtocol
from vla_bench_envs.simpler.stage import Stage
from vla_bench_envs.simpler.suites import NAME, SimplerSuite, find_suite


class SimplerEnv(SuiteEnv[SimplerSuite, SimplerProtocol]):
    """A SIMPLER suite under a protocol; `vla_bench_envs.environment.SuiteEnv` says what all suites have in common.

    Robot and objects are drawn, the rest of the image is a photograph of the real scene.

    `proprio` (8,) is the end effector's position [m] and rotation vector [rad] in the frame of the robot's base, and
    the positions of both fingers [m].

    An action is a change [m, rad] of the end effector's target pose in the base's axes and a gripper command, see
    `vla_bench_envs.simpler.suites.ACTION_SPEC`. As in SIMPLER the arm's entries are not clipped, and a target that
    cannot be reached leaves the arm where it is; the gripper's entry is clipped.

    An episode is judged at the protocol's horizon, where it ends, or with `success="once"` at every step.
    `options["init_state"]` may also be the poses of both objects (2, 7).
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": int(CONTROL_HZ)}

    PROPRIO_LIMIT = np.array([2.0, 2.0, 2.0, *[3.2] * 3, 0.1, 0.1], dtype=np.float32)
    """[m, m, m, rad, rad, rad, m, m]: the arm reaches 0.75 m, a rotation vector is not longer than pi, a finger moves
    0.04 m."""

    CHARACTERS = frozenset(" abcdefghijklmnopqrstuvwxyz")

    def __init__(
        self,
        suite: str = NAME,
        protocol: str | Protocol = "reference",
        images: Images = "eager",
        render_mode: str | None = None,
        ends_at_success: bool = True,
    ) -> None:
        """Describe the environment; the simulator starts at the first `reset`.

        Args:
            suite: Name and version, for example `simpler-widowx@1`.
            protocol: A preset's name or a `SimplerProtocol` of your own.
            images: As `SuiteEnv` has it; so are the others.
            render_mode: See there.
            ends_at_success: See there.

        Raises:
            UnknownNameError: If there is no such suite or protocol.
            OptionError: If `images` or `render_mode` is unknown, or the protocol is not SIMPLER's.
        """
        found = find_suite(suite)
        chosen = found.protocol(protocol) if isinstance(protocol, str) else protocol
        if not isinstance(chosen, SimplerProtocol):
            raise OptionError("protocol", str(chosen), "a SimplerProtocol")
        super().__init__(found, chosen, images, render_mode, ends_at_success)
        self._stage: Stage | None = None
        self._holds = False

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
    def simulator(self) -> Any:
        """Return ManiSkill's `BaseBridgeEnv`, for scripted experts and other privileged readers."""
        return self.stage.simulator

    def _begin(self, task: Task, start: Any) -> dict[str, Any]:
        """Start an episode and let its objects come to rest.

        Raises:
            OptionError: If there is no such start.
            MissingSimulatorError: If ManiSkill is not installed.
            MissingAssetsError: If its files are not there.
            MissingVulkanError: If nothing can draw.
        """
        if self._stage is None or self._stage.task != task:
            self._release()
            if (found := assets.kind()) != self.protocol.assets:
                raise OtherAssetsError(self.protocol.name, self.protocol.assets, found)
            self._stage = Stage(task, self.protocol)
        index, state = self._choose_state(start)
        self.stage.reset(state)
        digest = hashlib.sha256(state.tobytes()).hexdigest()
        return {"init_state": index, "init_state_sha256": digest, "assets": self.protocol.assets}

    def _choose_state(self, chosen: Any) -> tuple[int, np.ndarray]:
        """Return index (-1 for a state of the caller's) and initial state."""
        if isinstance(chosen, np.ndarray) and chosen.ndim:
            return -1, np.ascontiguousarray(chosen, dtype=np.float32)
        index = self._choose_start(chosen, len(self.stage.initial_states), ", or poses (NumPy array)")
        return index, self.stage.initial_states[index]

    def _apply(self, action: np.ndarray) -> None:
        self._holds = self.stage.step(action)

    def _sense(self) -> Moment:
        return Moment(self.stage.proprio, self.stage.task.instruction, self.stage.draw)

    def _judge(self, is_last: bool) -> dict[str, Any]:
        return {"success": self._holds and (is_last or self.protocol.success == "once")}

    def _release(self) -> None:
        if self._stage is not None:
            self._stage.close()
            self._stage = None
