"""A Robotiq gripper behind the URCap of a UR controller: lines of text over TCP.

Source: Robotiq, "2F-85 and 2F-140 instruction manual", registers ACT, GTO, POS, SPE, FOR; the URCap's port is 63352.
"""

import socket

from vla_bench_envs.robot.drivers.worker import Worker
from vla_bench_envs.robot.errors import DriverError
from vla_bench_envs.robot.limits import Limits

PORT = 63352
CLOSED = 255
"""Position of closed fingers; 0 is open."""

SPEED, FORCE = 255, 100
"""Of 255 each."""

PERIOD_S = 0.02
ANSWER_S = 1.0


class Robotiq:
    """Follow set-points; the gripper is waited for in a thread."""

    def __init__(self, address: str, limits: Limits, port: int = PORT) -> None:
        """Connect and switch the gripper on.

        Raises:
            DriverError: If it does not answer.
        """
        self._open_m = limits.gripper_open_m
        self._wished_m: float | None = None
        self._told = -1
        try:
            self._socket = socket.create_connection((address, port), ANSWER_S)
            for name, value in (("ACT", 1), ("GTO", 1), ("SPE", SPEED), ("FOR", FORCE)):
                self._ask(f"SET {name} {value}")
            self.width_m = self._look()
            """Distance between the fingers when it was last looked at."""
        except (OSError, ValueError) as caught:
            raise DriverError("ur", f"cannot open the gripper at {address}:{port} ({caught})") from caught
        self._worker = Worker("ur", self._turn, PERIOD_S)

    def aim(self, width_m: float) -> None:
        """Take a set-point.

        Raises:
            DriverError: If the gripper does not answer any more.
        """
        self._worker.check()
        self._wished_m = width_m

    def close(self) -> None:
        """Leave the fingers as they are."""
        self._worker.close()
        self._socket.close()

    def _turn(self) -> None:
        if self._wished_m is not None:
            position = round(CLOSED * (1 - min(1.0, max(0.0, self._wished_m / self._open_m))))
            if position != self._told:
                self._ask(f"SET POS {position}")
                self._told = position
        self.width_m = self._look()

    def _look(self) -> float:
        answer = self._ask("GET POS")
        return self._open_m * (1 - int(answer.removeprefix("POS ")) / CLOSED)

    def _ask(self, line: str) -> str:
        self._socket.sendall(f"{line}\n".encode())
        answer = self._socket.recv(64).decode().strip()
        if not answer:
            raise ConnectionError("the gripper has closed the connection")
        return answer
