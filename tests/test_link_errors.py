"""Every message of the policy link, in full: what was found, what was expected, what to do."""

import inspect

import pytest

from vla_bench.errors import VlaBenchError
from vla_bench.link import errors

AT = "ws://127.0.0.1:8000"

MESSAGES: list[tuple[VlaBenchError, str]] = [
    (
        errors.WireError("is a list", "a map"),
        "the message is a list; expected a map: both ends must speak openpi's msgpack format",
    ),
    (
        errors.ForeignObservationError("wrist", [], ["front", "wrist"]),
        "the observation has no 'wrist'; found nothing, expected front, wrist: send these names, or start the server "
        "with a --dialect, for example pi0-libero",
    ),
    (
        errors.UnreachableError(AT, "ConnectionRefusedError: [Errno 111]"),
        f"no policy server answers at {AT} (ConnectionRefusedError: [Errno 111]): start one with 'vla-bench serve', or "
        f"mend the address",
    ),
    (
        errors.RefusedError(AT, 418, ""),
        f"{AT} refuses the connection with HTTP 418 (no reason given): is this the address of a policy server?",
    ),
    (
        errors.LinkLostError(AT, "no close frame received or sent"),
        f"the link to {AT} is lost (no close frame received or sent): this episode cannot go on, since the server has "
        f"forgotten it; the next one connects again",
    ),
    (
        errors.AnswerTimeoutError(AT, 60.0),
        f"{AT} has not answered within 60 s: look at the server, or allow more with timeout_s=300 (a first query that "
        f"compiles may take minutes)",
    ),
    (errors.FarEndError(AT, "ValueError: no\n"), f"{AT} reports an error: ValueError: no"),
    (errors.SpeechError(AT, "answers with 3", "5"), f"{AT} answers with 3; expected 5"),
    (
        errors.ChangedServerError(AT, ["method: 'full' became 'fastv:0.5'"]),
        f"{AT} serves something else than when this run began: method: 'full' became 'fastv:0.5': serve the same "
        f"again, or begin another run",
    ),
    (
        errors.OpenDoorError("0.0.0.0"),
        "--host is '0.0.0.0', which other machines reach, and there is no token; expected a loopback address, or "
        "--token-file PATH with a secret of at least 16 characters that clients must know",
    ),
]


@pytest.mark.parametrize(("error", "message"), MESSAGES, ids=[type(error).__name__ for error, _ in MESSAGES])
def test_the_message_says_what_was_found_and_what_to_do(error: VlaBenchError, message: str) -> None:
    assert str(error) == message


def test_no_message_is_left_out() -> None:
    defined = {item for _, item in inspect.getmembers(errors, inspect.isclass) if item.__module__ == errors.__name__}
    assert defined == {type(error) for error, _ in MESSAGES}
