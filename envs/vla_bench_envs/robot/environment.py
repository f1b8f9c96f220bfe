"""A robot as a Gymnasium environment: the simulated arm in lock-step, or any robot behind a server."""

from typing import Any

import numpy as np

from vla_bench.errors import OptionError
from vla_bench.protocol import Protocol
from vla_bench.types import Observation, Task
from vla_bench_envs.environment import Images, Moment, SuiteEnv
from vla_bench_envs.robot.errors import RobotRefusedError
from vla_bench_envs.robot.limits import SIMULATED, load, parse
from vla_bench_envs.robot.link import Link
from vla_bench_envs.robot.session import Place, Session
from vla_bench_envs.robot.suites import SUITE, RobotSuite


class RealRobotEnv(SuiteEnv[RobotSuite, Protocol]):
    """A robot and its tasks under a protocol, through the bridge.

    `vla_bench_envs.environment.SuiteEnv` says what all suites have in common. `proprio` (8,) is the tool's position [m]
    and rotation vector [rad] in the base frame, and the distance of both fingers from the middle [m], at the instant
    of the images.

    An action is a change of the tool's pose and a gripper command, see `vla_bench.types.ActionSpec`; the change is
    from the set-point at the moment it is applied. What the gate applied instead is in `info`.

    `step` sends the action, waits for the tick that applies it and for the end of the control period, and *then*
    captures a fresh observation. With a server the clock is the wall's; without one the simulated arm runs in lock-step
    on a virtual clock, and runs are bit-identical.

    If the actions drove the robot into a fault, or into HOLD by refused ones, the episode is over, and
    `info["failed"]` is the cause: a failure of the policy. It is empty otherwise.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 10}

    PROPRIO_LIMIT = np.array([2.0, 2.0, 2.0, *[2 * np.pi] * 3, 0.1, 0.1], dtype=np.float32)
    """[m, m, m, rad, rad, rad, m, m], as LIBERO's."""

    CHARACTERS = frozenset(" abcdefghijklmnopqrstuvwxyz0123456789.,'-")

    def __init__(
        self,
        url: str | None = None,
        protocol: str | Protocol = "tabletop",
        images: Images = "eager",
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
        presets = suite.protocols()
        if isinstance(protocol, str) and protocol not in presets:
            raise OptionError("protocol", protocol, f"one of {', '.join(presets)}, or a Protocol")
        chosen = presets[protocol] if isinstance(protocol, str) else protocol
        super().__init__(suite, chosen, "eager" if url is not None and images == "lazy" else images, render_mode)
        self.url = url
        self._limits_sha256, self._place = limits_sha256, place
        self._session: Session | None = None
        self._applied: dict[str, Any] = {}

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

        Raises:
            OptionError: If an option is unknown or out of range.
            RobotRefusedError: If the robot is stopped or in a fault, or does not come home. In lock-step a fault that
                the last episode's actions brought about is ended here.
        """
        obs, info = super().reset(seed=seed, options=options)
        if self.session.failed:
            raise RobotRefusedError("reset", f"it was left at once for the cause {self.session.failed!r}", "any")
        return obs, info

    def _begin(self, task: Task, start: Any) -> dict[str, Any]:
        index = self._choose_start(start, task.n_initial_states)
        digest = self.session.begin(task, index, 1e3 / self.protocol.control_hz)
        return {"init_state": index, "init_state_sha256": digest}

    def _apply(self, action: np.ndarray) -> None:
        """Send an action, and wait until its control period is over.

        Raises:
            RobotRefusedError: If the robot left ACTIVE and STARVED for a cause that says nothing about the policy.
        """
        self._applied = self.session.act(action)

    def _sense(self) -> Moment:
        proprio, draw = self.session.observe()
        return Moment(np.clip(proprio, -self.PROPRIO_LIMIT, self.PROPRIO_LIMIT), self._task.instruction, draw)

    def _judge(self, is_last: bool) -> dict[str, Any]:
        failed = self.session.failed
        return self._applied | {"success": self.session.success and not failed, "failed": failed}

    def _release(self) -> None:
        """End the trial and leave; the arm holds."""
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
