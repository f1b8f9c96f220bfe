"""A run on the real simulator survives `kill -9`."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from vla_bench import journal, tables

COMMAND = (
    sys.executable, "-m", "vla_bench.cli", "run", "--suite", "libero-object@1", "--policy", "expert", "--tasks", "0",
    "--episodes", "10", "--method", "full", "--method", "action-reuse:2", "--protocol", "reference-fast", "--results",
)  # fmt: skip
N_EPISODES, N_KILLS = 20, 5


@pytest.mark.sim
@pytest.mark.slow
def test_a_real_run_killed_five_times_at_random_ends_complete_without_a_duplicate(tmp_path: Path) -> None:
    moments_s = np.random.default_rng().uniform(5, 40, N_KILLS)
    print(f"killed after {moments_s.round(1)} s")
    for moment_s in moments_s:
        with subprocess.Popen([*COMMAND, str(tmp_path)], stderr=subprocess.DEVNULL) as process:
            try:
                process.wait(timeout=moment_s)
            except subprocess.TimeoutExpired:
                process.kill()
    subprocess.run([*COMMAND, str(tmp_path)], check=True)
    (run,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert Counter(record.key for record in journal.read(run)).most_common(1)[0][1] == 1
    summary = tables.summarise(tables.load(run))
    assert summary["episodes"].sum() == N_EPISODES
    assert summary["errors"].sum() == 0
