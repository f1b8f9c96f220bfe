"""What a user of the bridge can cause: what was found, what was expected, what to do."""

from vla_bench.errors import VlaBenchError


class LimitsError(VlaBenchError):
    """Refuse a limits file; without a valid one no robot is started."""

    def __init__(self, path: object, problem: str) -> None:
        super().__init__(
            f"{path}: {problem}; no robot starts without a complete limits file: "
            f"copy one that ships with vla_bench_envs/robot and read docs/real-robot.md before you change it"
        )


class RobotFileError(VlaBenchError):
    """Refuse a robot file, or to serve a physical arm without one."""

    def __init__(self, path: object, problem: str) -> None:
        super().__init__(f"{path}: {problem}; docs/real-robot.md shows a robot file")


class ServerNeededError(VlaBenchError):
    """Refuse to play a physical arm's suite without the arm."""

    def __init__(self, suite: str) -> None:
        super().__init__(
            f"{suite!r} is played on a physical arm: start its server with 'vla-bench robot serve --robot', "
            f"and play by 'vla-bench robot run --url'"
        )


class OutsideError(VlaBenchError):
    """Refuse to take over an arm that stands where its limits do not let it be."""

    def __init__(self, limit: str) -> None:
        super().__init__(
            f"the arm stands outside of its limits ({limit}): guide it inside by hand or with the maker's own tool, "
            f"or correct the limits file if it is wrong"
        )


class MessageError(VlaBenchError):
    """Refuse a message that is not of schema version 1; it never reaches the supervisor."""

    def __init__(self, found: str, expected: str) -> None:
        super().__init__(f"the message has {found}; expected {expected}: see vla_bench_envs/robot/messages.py")


class RobotRefusedError(VlaBenchError):
    """Report a request that the robot server refused; the robot does not move because of it."""

    def __init__(self, request: str, reason: str, phase: str) -> None:
        super().__init__(
            f"the robot server refused {request!r} in phase {phase}: {reason}; "
            f"'vla-bench robot status' shows the robot, docs/real-robot.md says what leaves each phase"
        )


class RobotLinkError(VlaBenchError):
    """Report a robot server that cannot be reached, or is gone; the robot holds by itself."""

    def __init__(self, address: str, cause: object) -> None:
        super().__init__(
            f"no robot server answers at {address} ({cause}): start one with 'vla-bench robot serve', "
            f"or give the address it prints with --url"
        )


class SupervisorLostError(VlaBenchError):
    """Report that the process that owns the arm has ended; nobody moves it, and nobody but itself holds it."""

    def __init__(self) -> None:
        super().__init__(
            "the supervisor's process has ended, and with it the hold on the arm: look at the arm, and whether its own "
            "controller holds it, then start the server again"
        )


class CertificateError(VlaBenchError):
    """Refuse files that make no encrypted link."""

    def __init__(self, files: str, cause: object) -> None:
        super().__init__(
            f"{files} cannot be used for TLS ({cause}): expected PEM files, a certificate and its unencrypted private "
            f"key; docs/real-robot.md makes a pair"
        )


class ExposureError(VlaBenchError):
    """Refuse to listen beyond the loopback device without a token."""

    def __init__(self, host: str) -> None:
        super().__init__(
            f"the robot server would listen on {host!r} without a token, and anybody on the network could move the "
            f"robot: set VLA_BENCH_ROBOT_TOKEN to a secret of at least 16 characters, or listen on 127.0.0.1"
        )


class DriverError(VlaBenchError):
    """Report a driver that cannot do what was asked; the supervisor answers with FAULT."""

    def __init__(self, driver: str, problem: str) -> None:
        super().__init__(f"the driver {driver!r} {problem}: look at the arm and its own controller, then reset")


class LogError(VlaBenchError):
    """Refuse a log that cannot be read or replayed."""

    def __init__(self, path: object, problem: str) -> None:
        super().__init__(f"{path} {problem}: name a file that 'vla-bench robot serve --log' wrote")
