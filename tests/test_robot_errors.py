"""Every message of the bridge in full: what was found, what was expected, what to do."""

import inspect

import pytest

from vla_bench.errors import VlaBenchError
from vla_bench_envs.robot import errors

MESSAGES: list[tuple[VlaBenchError, str]] = [
    (
        errors.LimitsError("cell.toml", "states no home_rad"),
        "cell.toml: states no home_rad; no robot starts without a complete limits file: copy one that ships with "
        "vla_bench_envs/robot and read docs/real-robot.md before you change it",
    ),
    (
        errors.RobotFileError("lab.toml", "states no suite"),
        "lab.toml: states no suite; docs/real-robot.md shows a robot file",
    ),
    (
        errors.ServerNeededError("my-lab@1"),
        "'my-lab@1' is played on a physical arm: start its server with 'vla-bench robot serve --robot', and play by "
        "'vla-bench robot run --url'",
    ),
    (
        errors.CertificateError("robot.pem and key.pem", "no such file"),
        "robot.pem and key.pem cannot be used for TLS (no such file): expected PEM files, a certificate and its "
        "unencrypted private key; docs/real-robot.md makes a pair",
    ),
    (
        errors.OutsideError("box"),
        "the arm stands outside of its limits (box): guide it inside by hand or with the maker's own tool, or correct "
        "the limits file if it is wrong",
    ),
    (
        errors.MessageError("the type 'reboot'", "one of act, cmd"),
        "the message has the type 'reboot'; expected one of act, cmd: see vla_bench_envs/robot/messages.py",
    ),
    (
        errors.RobotRefusedError("arm", "only READY and HOLD can be armed, this is IDLE", "IDLE"),
        "the robot server refused 'arm' in phase IDLE: only READY and HOLD can be armed, this is IDLE; "
        "'vla-bench robot status' shows the robot, docs/real-robot.md says what leaves each phase",
    ),
    (
        errors.RobotLinkError("ws://127.0.0.1:1", "Connection refused"),
        "no robot server answers at ws://127.0.0.1:1 (Connection refused): start one with 'vla-bench robot serve', or "
        "give the address it prints with --url",
    ),
    (
        errors.SupervisorLostError(),
        "the supervisor's process has ended, and with it the hold on the arm: look at the arm, and whether its own "
        "controller holds it, then start the server again",
    ),
    (
        errors.ExposureError("0.0.0.0"),
        "the robot server would listen on '0.0.0.0' without a token, and anybody on the network could move the robot: "
        "set VLA_BENCH_ROBOT_TOKEN to a secret of at least 16 characters, or listen on 127.0.0.1",
    ),
    (
        errors.DriverError("sim", "is not connected"),
        "the driver 'sim' is not connected: look at the arm and its own controller, then reset",
    ),
    (
        errors.LogError("a.mcap", "is no log of this bridge"),
        "a.mcap is no log of this bridge: name a file that 'vla-bench robot serve --log' wrote",
    ),
]


@pytest.mark.parametrize(("error", "message"), MESSAGES, ids=lambda value: type(value).__name__)
def test_a_message_says_what_was_found_what_was_expected_and_what_to_do(error: VlaBenchError, message: str) -> None:
    assert str(error) == message


def test_no_message_is_missing_here() -> None:
    own = {
        item
        for _, item in inspect.getmembers(errors, inspect.isclass)
        if issubclass(item, VlaBenchError) and item is not VlaBenchError
    }
    assert own == {type(error) for error, _ in MESSAGES}
