"""LIBERO across process boundaries: fingerprints, vector environments, missing graphics."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest

pytest.importorskip("libero.libero")

import vla_bench_envs  # noqa: F401 - registers the environments
from vla_bench.errors import OptionError
from vla_bench_envs.libero.fingerprint import Fingerprint, fingerprint, fixed_actions
from vla_bench_envs.libero.protocols import AGENT, protocol

pytestmark = pytest.mark.sim


def test_another_process_sees_the_same_and_prints_nothing() -> None:
    here = fingerprint("libero-goal@1", protocol("reference-fast"))
    code = (
        "import json\n"
        "from vla_bench_envs.libero.suites import SUITES\n"
        "suite = SUITES['libero-goal@1']\n"
        "print(json.dumps(suite.fingerprint(suite.protocols()['reference-fast'])))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stderr == ""
    assert Fingerprint(**json.loads(done.stdout)).differences(here) == []


def test_fingerprints_that_differ_say_in_what() -> None:
    one = Fingerprint("reference-1", "3.3.7", "llvmpipe", "a", "b")
    assert one.differences(one) == []
    assert one.differences(replace(one, gl_renderer="NVIDIA", image_sha256="c")) == [
        "gl_renderer: llvmpipe against NVIDIA",
        "image_sha256: b against c",
    ]
    assert np.abs(fixed_actions(7)).max() <= 1


def test_missing_graphics_says_what_to_install() -> None:
    code = (
        "from vla_bench.errors import MissingGraphicsError\n"
        "from vla_bench_envs.libero.environment import LiberoEnv\n"
        "try:\n"
        "    LiberoEnv().reset()\n"
        "except MissingGraphicsError as caught:\n"
        "    print(caught)\n"
    )
    environment = os.environ | {"MUJOCO_GL": "none"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment)
    assert done.stdout.startswith("no off-screen OpenGL context with MUJOCO_GL='none' (RuntimeError: invalid value")
    assert "apt-get install libegl1" in done.stdout


@pytest.mark.parametrize(("command", "status"), [(["doctor"], 1), (["run", "--tasks", "0", "--episodes", "1"], 2)])
def test_commands_say_what_to_do_about_missing_graphics(command: list[str], status: int, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "vla_bench.cli", *command, "--results", str(tmp_path)]
    environment = os.environ | {"MUJOCO_GL": "none"}
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == status
    assert "unset MUJOCO_GL" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_vector_environment_plays_its_own_task_in_each_process() -> None:
    envs = gymnasium.make_vec("vla_bench/LiberoGoal-v0", num_envs=2, protocol="reference-fast")
    try:
        with pytest.raises(OptionError, match=r"task is \[0\]; expected one value, or a list of 2"):
            envs.reset(options={"task": [0]})
        obs, info = envs.reset(options={"task": [7, 8], "init_state": [0, 3]})
        assert obs["instruction"] == ("turn on the stove", "put the bowl on the plate")
        assert info["init_state"].tolist() == [0, 3]
        assert obs[AGENT].shape == (2, 128, 128, 3)
        obs, reward, *_ = envs.step(np.zeros((2, 7), np.float32))
        assert reward.tolist() == [0, 0]
        assert obs["proprio"].shape == (2, 8)
    finally:
        envs.close()
