"""A client's session with a robot: the lease, a trial, one action after the other."""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from vla_bench.errors import ActionSpecMismatchError
from vla_bench.types import ActionSpec, Task
from vla_bench_envs.robot.errors import RobotRefusedError
from vla_bench_envs.robot.gate import MODE
from vla_bench_envs.robot.link import Link
from vla_bench_envs.robot.phases import FOLLOWING, Phase
from vla_bench_envs.robot.reasons import OF_THE_POLICY

Place = Callable[[Task, int], None]
"""Has a person put a task's objects in place for a start, and returns when it is done."""

HOMING_S = 30.0
"""Patience for the way home."""

POLL_NS = 50_000_000


class Session:
    """The lease on a robot, from the first trial to `close`."""

    def __init__(self, link: Link, task: Task, limits_sha256: str | None, place: Place | None) -> None:
        """Take the lease, for tasks such as this one.

        Raises:
            ActionSpecMismatchError: If actions mean something else there.
            RobotRefusedError: If somebody else holds the lease, or the suite or the limits are others.
        """
        self.link, self._place = link, place
        differences = ActionSpec(**link.welcome["action_spec"]).differences(task.action_spec)
        if differences:
            raise ActionSpecMismatchError("the robot server", "the suite", differences)
        served = link.welcome["suite"]
        if served != task.suite:
            raise RobotRefusedError("suite", f"it serves {served or 'no suite'!r}, expected {task.suite!r}", "any")
        found = link.welcome["limits_sha256"]
        if limits_sha256 not in (None, found):
            raise RobotRefusedError("limits", f"its limits are {found}, expected {limits_sha256}", "any")
        self.failed = ""
        """Cause for which the robot stood still, if the actions brought it about; empty otherwise."""
        self.success = False
        """Whether the last observation shows the task done; False where only a person can tell."""
        self._phase = self._command("acquire")["phase"]
        self._sequence = 0
        self._observation = 0
        self._period_ns = self._due_ns = 0

    def begin(self, task: Task, init_state: int, period_ms: float) -> str:
        """Go home, have the objects placed, arm; return the hash of the start.

        Raises:
            RobotRefusedError: If the robot is stopped or in a fault, does not come home, or nobody places objects.
        """
        if self._phase in FOLLOWING:
            self._command("trial_end")
        if self.failed:
            self.link.recover()
        self.failed = ""
        self._command("home")
        deadline_ns = self.link.now_ns + round(HOMING_S * 1e9)
        while self._look()["phase"] == Phase.HOMING and self.link.now_ns < deadline_ns:
            self.link.sleep_until(self.link.now_ns + POLL_NS)
        if self._phase != Phase.READY:
            raise RobotRefusedError("home", "the arm did not come home", self._phase)
        if not self.link.welcome["caps"]["places_objects"]:
            if self._place is None:
                raise RobotRefusedError("reset", "nobody places the objects: pass place=...", self._phase)
            self._place(task, init_state)
        digest = self._command("trial_begin", task=task.index, init_state=init_state)["init_state_sha256"]
        self._command("arm", period_ms=period_ms)
        self._period_ns, self._due_ns = round(period_ms * 1e6), self.link.now_ns
        return digest

    def act(self, action: np.ndarray) -> dict[str, Any]:
        """Send an action (7,) for the last observation and wait for the end of its period; return what was applied."""
        self._sequence += 1
        message = {"t": "act", "seq": self._sequence, "obs_seq": self._observation, "mode": MODE, "chunk": action[None]}
        said = self.link.request(message)
        self._due_ns = max(self._due_ns + self._period_ns, self.link.now_ns)  # late is late: no period is shortened
        self.link.sleep_until(self._due_ns)
        return {name: said[name] for name in ("verdict", "reasons", "applied", "sensor_to_action_ms")}

    def observe(self) -> tuple[np.ndarray, Callable[[str], np.ndarray]]:
        """Return the proprioception (8,) `float32`, and what draws a camera's picture of the same moment.

        Raises:
            RobotRefusedError: If the robot left ACTIVE and STARVED, unless the actions brought it about: see `failed`.
        """
        obs = self._look()
        stands = obs["phase"] not in FOLLOWING
        self.failed = obs["cause"] if stands and obs["cause"] in OF_THE_POLICY else ""
        if stands and not self.failed:
            detail = f" ({obs['detail']})" if obs["detail"] else ""
            raise RobotRefusedError("act", f"it was left for the cause {obs['cause']!r}{detail}", obs["phase"])
        state = obs["state"]
        self.success = bool(state["success"])
        finger = state["gripper_m"] / 2
        proprio = np.concatenate([state["position_m"], state["rotation_rad"], [finger, -finger]]).astype(np.float32)
        pictures = cache(lambda: self.link.images(obs))

        def draw(camera: str) -> np.ndarray:
            if camera not in pictures():
                shown = ", ".join(pictures()) or "none"
                raise RobotRefusedError("get_obs", f"no picture of camera {camera!r} ({shown})", obs["phase"])
            return pictures()[camera]

        return proprio, draw

    def close(self) -> None:
        """Give the lease back; the arm holds."""
        try:
            self._command("release")
        finally:
            self.link.close()

    def _look(self) -> dict[str, Any]:
        obs = self.link.request({"t": "get_obs"})
        self._phase, self._observation = obs["phase"], obs["seq"]
        return obs

    def _command(self, op: str, **fields: Any) -> dict[str, Any]:
        said = self.link.request({"t": "cmd", "op": op} | fields)
        if not said["ok"]:
            raise RobotRefusedError(op, said["reason"], said["phase"])
        self._phase = said["phase"]
        return said
