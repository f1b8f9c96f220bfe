"""SIMPLER's Google robot in another interpreter: what it may import, how it fails, and how it ends."""

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from recorded_interpreters import RECORDED, recorded

from vla_bench.errors import NotResetError, VlaBenchError
from vla_bench_envs.simpler_google import worker
from vla_bench_envs.simpler_google.environment import SimplerGoogleEnv
from vla_bench_envs.simpler_google.errors import (
    VARIABLE,
    InterpreterError,
    MissingInterpreterError,
    MissingSimplerEnvError,
    SimplerEnvVersionError,
    WorkerDiedError,
    WorkerTimeoutError,
)
from vla_bench_envs.simpler_google.fingerprint import fingerprint
from vla_bench_envs.simpler_google.process import Process
from vla_bench_envs.simpler_google.protocols import CAMERA, PROTOCOLS
from vla_bench_envs.simpler_google.simulator import Simulator

STILL = np.zeros(7)
START = {"task": 0, "init_state": 0}


def has_ended(pid: int) -> bool:
    """Return whether a process is gone, or waits to be collected by a parent that is."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until_ended(pid: int) -> None:
    deadline = time.monotonic() + 10
    while not has_ended(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert has_ended(pid)


def other_packages(folder: Path, **changes: str) -> Path:
    """Return a copy of the recorded packages in which versions are others; an empty one is not installed."""
    for source in RECORDED.iterdir():
        package = source.name.partition("-")[0]
        if package not in changes:
            (folder / source.name).symlink_to(source)
        elif changes[package] and source.name.endswith(".dist-info"):
            info = folder / f"{package}-{changes[package]}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {changes[package]}\n")
    return folder


def test_the_worker_reads_as_an_older_python_and_imports_what_the_other_interpreter_has() -> None:
    tree = ast.parse(Path(worker.__file__).read_text(), feature_version=(3, 8))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert {str(name).partition(".")[0] for name in imported} <= set(sys.stdlib_module_names)
    assert set(worker.PACKAGES) == {"simpler_env", "mani_skill2_real2sim"}


def test_a_frame_comes_back_as_it_was_sent_and_part_of_one_is_the_end() -> None:
    arrays = {"picture": np.arange(24, dtype=np.uint8).reshape(2, 4, 3), "xy": np.array([0.1, -0.2]), "no": np.zeros(0)}
    frame = worker.encode({"ask": "step", "text": "é"}, arrays)

    def reading(sent: bytes):
        rest = [sent]

        def read(n_bytes: int) -> bytes:
            part, rest[0] = rest[0][:n_bytes], rest[0][n_bytes:]
            return part

        return read

    header, found = worker.decode(reading(frame))
    assert header == {"ask": "step", "text": "é"}
    for name, array in arrays.items():
        assert (found[name].dtype, found[name].tolist()) == (array.dtype, array.tolist())
        assert found[name].flags.writeable
    for n_bytes in (0, 3, 12, 40, len(frame) - 1):
        with pytest.raises(EOFError):
            worker.decode(reading(frame[:n_bytes]))
    with pytest.raises(worker.FrameError, match="Python 2"):
        worker.decode(reading(b"Python 2.7.18 (default"))


def test_making_an_environment_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("it started a process"))
    env = SimplerGoogleEnv(python=sys.executable)
    with pytest.raises(NotResetError, match="has not begun"):
        env.step(STILL)
    env.close()


def test_without_an_interpreter_the_message_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(MissingInterpreterError) as caught:
        SimplerGoogleEnv().reset()
    assert str(caught.value) == (
        "SIMPLER's Google robot is played by simpler_env in a Python of its own, and VLA_BENCH_SIMPLER_PYTHON names "
        "none: install it as docs/simpler.md says, then export VLA_BENCH_SIMPLER_PYTHON=<that environment>/bin/python"
    )


def test_the_variable_names_it_and_this_interpreters_path_does_not_reach_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    misleading = tmp_path / "ours"
    misleading.mkdir()
    (misleading / "gymnasium.py").write_text("raise RuntimeError('of another interpreter')")
    (misleading / "sitecustomize.py").write_text("raise RuntimeError('of another interpreter')")
    monkeypatch.setenv("PYTHONPATH", str(misleading))
    monkeypatch.setenv(VARIABLE, sys.executable)
    process = Process()
    answer, _ = process.ask("hello")  # this very interpreter, without a path to the recorded package
    process.close()
    assert answer["missing"] == "simpler_env"


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("/no/such/python", "'/no/such/python' is no program that can be run: VLA_BENCH_SIMPLER_PYTHON must name the "),
        ("echo", "/echo' does not run the worker, it answers b'-u "),
        ("false", "simpler_env's process ended with status 1, asked for 'hello'; the next reset starts another. "),
    ],
)
def test_what_is_no_python_is_said_to_be_none(named: str, message: str) -> None:
    with pytest.raises(VlaBenchError) as caught:
        Simulator(named, timeout_s=20)
    assert message in str(caught.value)
    assert isinstance(caught.value, InterpreterError | WorkerDiedError)


def test_an_interpreter_without_the_package_is_named_with_what_lacks(tmp_path: Path) -> None:
    python = recorded(tmp_path, packages=None)
    with pytest.raises(MissingSimplerEnvError) as caught:
        Simulator(python)
    assert str(caught.value) == (
        f"{python!r} has no 'simpler_env' (ModuleNotFoundError: No module named 'simpler_env'): install SimplerEnv in "
        f"that environment as docs/simpler.md says, or name another one in VLA_BENCH_SIMPLER_PYTHON"
    )


def test_an_interpreter_without_numpy_is_said_to_lack_it(tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise ModuleNotFoundError('No module named numpy', name='numpy')")
    with pytest.raises(MissingSimplerEnvError, match="has no 'numpy' "):
        Simulator(recorded(tmp_path, packages=tmp_path))


def test_what_simpler_env_itself_lacks_is_named(tmp_path: Path) -> None:
    packages = other_packages(tmp_path, mani_skill2_real2sim="")
    with pytest.raises(MissingSimplerEnvError, match="has no 'mani_skill2_real2sim' "):
        Simulator(recorded(tmp_path, packages))


@pytest.mark.parametrize(("package", "expected"), [("sapien", "2.2.2"), ("simpler_env", "0.0.1")])
def test_another_version_is_refused(tmp_path: Path, package: str, expected: str) -> None:
    packages = other_packages(tmp_path, **{package: "3.0.3"})
    if package != "sapien":
        (packages / package).symlink_to(RECORDED / package)
    python = recorded(tmp_path, packages)
    with pytest.raises(SimplerEnvVersionError) as caught:
        Simulator(python)
    assert str(caught.value) == (
        f"{python!r} has {package} 3.0.3, the suites are defined on {expected}: install that version there as "
        f"docs/simpler.md says, or name another interpreter in VLA_BENCH_SIMPLER_PYTHON"
    )


def test_a_dead_worker_is_an_error_with_its_last_words_and_the_next_reset_starts_another(tmp_path: Path) -> None:
    env = SimplerGoogleEnv(python=recorded(tmp_path, RECORDED_FAULT="die:1"), images="lazy")
    obs, _ = env.reset(options=START)
    env.step(STILL)
    with pytest.raises(WorkerDiedError) as caught:
        env.step(STILL)
    message = str(caught.value)
    assert message.startswith("simpler_env's process ended with status 1, asked for 'step'; the next reset starts ano")
    assert message.endswith("RuntimeError: vk::Instance::enumeratePhysicalDevices: ErrorInitializationFailed")
    with pytest.raises(NotResetError, match="has been lost"):
        env.step(STILL)
    again, _ = env.reset(options=START)
    assert again["instruction"] == obs["instruction"]
    env.close()


def test_a_worker_that_is_killed_is_told_by_its_signal(tmp_path: Path) -> None:
    env = SimplerGoogleEnv(python=recorded(tmp_path), images="lazy")
    obs, _ = env.reset(options=START)
    os.kill(env.simulator.process.pid, signal.SIGKILL)
    with pytest.raises(WorkerDiedError, match="process was ended by SIGKILL, asked for 'picture'"):
        obs[CAMERA]
    with pytest.raises(WorkerDiedError, match="process is gone, asked for 'step'"):
        env.step(STILL)
    assert env.reset(options=START)[0][CAMERA].shape == (512, 640, 3)
    env.close()


def test_a_hung_worker_is_stopped_in_time(tmp_path: Path) -> None:
    env = SimplerGoogleEnv(python=recorded(tmp_path, RECORDED_FAULT="hang:0"), timeout_s=60.0)
    env.reset(options=START)
    process, env.simulator.process.timeout_s = env.simulator.process, 0.3
    with pytest.raises(WorkerTimeoutError) as caught:
        env.step(STILL)
    assert str(caught.value).startswith(
        "simpler_env's process did not answer 'step' within 0.3 s and was stopped; the next reset starts another. Its "
        "last words: a simulator may print"
    )
    assert has_ended(process.pid)
    assert env.reset(options=START)[1]["init_state"] == 0
    env.close()


def test_close_ends_the_worker(tmp_path: Path) -> None:
    env = SimplerGoogleEnv(python=recorded(tmp_path))
    env.reset(options=START)
    pid = env.simulator.process.pid
    env.close()
    env.close()
    assert has_ended(pid)


def test_the_worker_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time\n"
        "from vla_bench_envs.simpler_google.environment import SimplerGoogleEnv\n"
        "env = SimplerGoogleEnv(python=sys.argv[1])\n"
        "env.reset()\n"
        "print(env.simulator.process.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, recorded(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert not has_ended(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until_ended(pid)


def test_a_fingerprint_tells_versions_and_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, recorded(tmp_path))
    first, again = fingerprint(PROTOCOLS["simpler"]), fingerprint(PROTOCOLS["simpler"])
    assert first == again
    assert first.simulator == "simpler_env 0.0.1, mani_skill2_real2sim 0.5.3, sapien 2.2.2"
    packages = other_packages(tmp_path, simpler_env="0.0.1")
    (packages / "simpler_env").mkdir()
    for part in (RECORDED / "simpler_env").iterdir():
        (packages / "simpler_env" / part.name).symlink_to(part)
    (packages / "simpler_env" / "changed.py").write_text("# by hand\n")
    monkeypatch.setenv(VARIABLE, recorded(tmp_path, packages))
    assert fingerprint(PROTOCOLS["simpler"]).sources_sha256 != first.sources_sha256
