"""Every message a user can cause, in full: what was found, what was expected, what to do."""

import inspect

import pytest

from vla_bench import errors
from vla_bench.errors import VlaBenchError

FULL_DISK = OSError(28, "No space left on device")

MESSAGES: list[tuple[VlaBenchError, str]] = [
    (
        errors.UnknownNameError("method", "static_patch", ["static-patch", "full"]),
        "no method named 'static_patch'. Did you mean 'static-patch'? Known: full, static-patch",
    ),
    (errors.UnknownNameError("suite", "zzz", ["toy@1"]), "no suite named 'zzz'. Known: toy@1"),
    (errors.UnknownNameError("suite", "zzz", []), "no suite named 'zzz'. Known: none"),
    (
        errors.MissingPackageError("libero-object@1", "robosuite", ImportError("no robosuite")),
        "'libero-object@1' needs 'robosuite', which cannot be imported (ImportError: no robosuite): "
        "pip install 'vla-bench[libero]', or run 'vla-bench doctor'",
    ),
    (
        errors.SpecError("toy:a=1,2", "'2' follows a keyword argument", "name:0.6,seed=3"),
        "cannot read 'toy:a=1,2': '2' follows a keyword argument; expected something like 'name:0.6,seed=3'",
    ),
    (
        errors.ActionSpecMismatchError("openvla", "libero-goal@1", ["size=7 against 8", "low=-1.0 against 0.0"]),
        "'openvla' and 'libero-goal@1' disagree on what an action means: size=7 against 8; low=-1.0 against 0.0: "
        "convert in the policy's adapter; the benchmark never guesses",
    ),
    (
        errors.ActionError("[nan, 0.0]", "2 finite numbers"),
        "the action is [nan, 0.0]; expected 2 finite numbers: look at what the policy's `act` returns",
    ),
    (errors.OptionError("--episodes", 0, "at least 1"), "--episodes is 0; expected at least 1"),
    (errors.NotResetError("has ended"), "the episode has ended: call reset() before step()"),
    (
        errors.StaleImageError("wrist"),
        "the image of 'wrist' was not read before the next step, and the moment it shows has passed: "
        "read it earlier, or make the environment with images='eager', which renders at every step",
    ),
    (
        errors.MissingGraphicsError("egl", "no display"),
        "no off-screen OpenGL context with MUJOCO_GL='egl' (no display): unset MUJOCO_GL, and on Debian or "
        "Ubuntu run 'apt-get install libegl1 libegl-mesa0 libgl1 libopengl0 libgl1-mesa-dri libglib2.0-0' for "
        "software rendering (MUJOCO_GL=osmesa needs libosmesa6)",
    ),
    (
        errors.PinnedVersionError("mujoco", "3.9.0", "3.3.2"),
        "mujoco 3.9.0 is installed, the protocol is defined on 3.3.2 (other versions move objects "
        "after reset, see docs/mujoco.md): pip install 'mujoco==3.3.2'",
    ),
    (
        errors.JournalError("runs/a/journal.jsonl", 7, "is no episode (KeyError: 'queries')"),
        "runs/a/journal.jsonl, line 7: is no episode (KeyError: 'queries'); only the last line of a journal may be "
        "cut (it is dropped when the run resumes): restore the file, or delete that line to run its episode again",
    ),
    (
        errors.ResultsWriteError("runs/a/journal.jsonl", FULL_DISK),
        "cannot write runs/a/journal.jsonl (No space left on device): every finished episode before this one is safe "
        "on disk; make room or choose another place with --results, then run the same command again to go on",
    ),
    (
        errors.ResumeError("runs/a", ["policy: 'a' against 'b'", "processor: 'x' against 'y'"]),
        "runs/a holds episodes made under other conditions: policy: 'a' against 'b'; processor: 'x' against 'y': "
        "write to another directory with --results, or restore the conditions",
    ),
    (
        errors.RunLockedError("runs/a", "process 12 on robot"),
        "runs/a is being written by another process (process 12 on robot): wait for it, or stop it",
    ),
    (
        errors.RunAbortedError(3, "RuntimeError: broken"),
        "stopped: 3 episodes in a row ended in an error; the last: RuntimeError: broken",
    ),
    (
        errors.NoResultsError("runs", "does not exist"),
        "runs does not exist: make results with 'vla-bench run', or name a directory that it wrote",
    ),
    (
        errors.MixedRunsError(["processor: a against b", "protocol: c against d"]),
        "these runs cannot stand in one comparison: processor: a against b; protocol: c against d: "
        "run them again under one protocol on one machine, or show them in separate tables",
    ),
    (
        errors.ContractError("MyEnv", "a step after the end is refused", "it was accepted"),
        "MyEnv breaks the contract 'a step after the end is refused': it was accepted",
    ),
]


@pytest.mark.parametrize(("error", "message"), MESSAGES, ids=[type(error).__name__ for error, _ in MESSAGES])
def test_the_message_says_what_was_found_and_what_to_do(error: VlaBenchError, message: str) -> None:
    assert str(error) == message


def test_no_message_is_left_out() -> None:
    defined = {item for _, item in inspect.getmembers(errors, inspect.isclass) if item.__module__ == errors.__name__}
    assert defined - {VlaBenchError} == {type(error) for error, _ in MESSAGES}
    assert all(issubclass(item, VlaBenchError) for item in defined)
