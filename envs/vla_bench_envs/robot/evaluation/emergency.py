"""The page's way to the robot server: a connection of its own, so that a stop never waits for the one that plays."""

import threading

from vla_bench_envs.robot.client import RemoteLink
from vla_bench_envs.robot.errors import RobotRefusedError


class RemoteEmergency:
    """Stop a robot through its server, as `vla-bench robot estop` does."""

    def __init__(self, url: str) -> None:
        """Connect as the operator.

        Raises:
            RobotLinkError: If nobody answers, or the server is on another computer: the page is for who stands there.
        """
        self._link = RemoteLink(url, "operator")
        self._turn = threading.Lock()

    def stop(self) -> None:
        """Stop the robot, now."""
        with self._turn:
            self._link.request({"t": "estop"})

    def recover(self) -> None:
        """End FAULT or ESTOP.

        Raises:
            RobotRefusedError: If the robot is in neither, or its driver cannot.
        """
        with self._turn:
            said = self._link.request({"t": "cmd", "op": "reset"})
        if not said["ok"]:
            raise RobotRefusedError("reset", said["reason"], said["phase"])

    def close(self) -> None:
        """Leave."""
        self._link.close()
