"""SIMPLER's Google robot on the official simpler_env, with drawing taken out of it: contract, and its own loop.

Needs no GPU and the package: VLA_BENCH_SIMPLER_UNDRAWN=<its environment>/bin/python, see docs/simpler.md.
"""

import json
import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from recorded_interpreters import recorded

from vla_bench.testing import check_environment
from vla_bench_envs.simpler_google.environment import SimplerGoogleEnv
from vla_bench_envs.simpler_google.protocols import PROTOCOLS
from vla_bench_envs.simpler_google.simulator import Simulator
from vla_bench_envs.simpler_google.starts import Start
from vla_bench_envs.simpler_google.suites import SUITES

OFFICIAL = os.environ.get("VLA_BENCH_SIMPLER_UNDRAWN", "")
UNDRAWN = Path(__file__).parent / "undrawn_simpler_env"
MATCHING, VARIANTS = SUITES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not OFFICIAL, reason="VLA_BENCH_SIMPLER_UNDRAWN names no interpreter with simpler_env"),
]


@pytest.fixture
def python(tmp_path: Path) -> str:
    return recorded(tmp_path, UNDRAWN, python=OFFICIAL)


@pytest.mark.parametrize(("name", "task"), [(MATCHING, 0), (MATCHING, 3), (VARIANTS, 7), (VARIANTS, 10)])
def test_the_environment_keeps_its_contract_on_official_physics(python: str, name: str, task: int) -> None:
    short = replace(PROTOCOLS["simpler"], name="short", horizons=((name, 3),))
    env = SimplerGoogleEnv(name, short, python=python)
    check_environment(env, task=task)
    env.close()


def walk(n_steps: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    arm = [rng.normal(0, 0.02, (n_steps, 3)), rng.normal(0, 0.05, (n_steps, 3))]
    return np.hstack([*arm, rng.choice([-1.0, 0.0, 1.0], (n_steps, 1))])


def as_asked(start: Start, actions: np.ndarray) -> dict[str, Any]:
    return {
        "env_id": start.env_id,
        "scene": start.scene,
        "overlay": start.overlay,
        "options": list(start.options),
        "robot": start.robot_xy_m,
        "yaw": start.robot_yaw_rad,
        "object": start.object_xy_m,
        "episode": start.episode_id,
        "actions": actions.tolist(),
    }


def test_episodes_equal_simpler_envs_own_loop_bit_for_bit(python: str, tmp_path: Path) -> None:
    """20 steps of each kind of task, and 105 of the apple, whose second part begins at 100."""
    cells = [(MATCHING, 0, 7), (MATCHING, 3, 100), (MATCHING, 4, 1), (VARIANTS, 9, 40), (VARIANTS, 2, 80)]
    episodes = [(SUITES[name].playbooks[task].starts[index], walk(20)) for name, task, index in cells]
    episodes.append((SUITES[MATCHING].playbooks[10].starts[50], walk(105)))
    asked, answer = tmp_path / "episodes.json", tmp_path / "states.json"
    asked.write_text(json.dumps([as_asked(*episode) for episode in episodes]))
    where = subprocess.run(
        [python, "-c", "import simpler_env; print(simpler_env.__path__[0])"], capture_output=True, text=True, check=True
    )
    folder = Path(where.stdout.splitlines()[-1]).parent
    subprocess.run([python, str(UNDRAWN / "official_loop.py"), str(asked), str(answer)], cwd=folder, check=True)
    simulator = Simulator(python)
    for (start, actions), theirs in zip(episodes, json.loads(answer.read_text()), strict=True):
        simulator.reset(start, len(actions), PROTOCOLS["simpler"])
        ours = []
        for action in actions:
            _, state = simulator.process.ask("step", arrays={"action": action})
            ours.append(np.hstack([state["qpos"], state["tool_pose"]]))
        np.testing.assert_array_equal(ours, theirs[1:], err_msg=start.env_id)
    simulator.close()
