"""Processes that train gates together take the steps of one, whatever the loss divides by or draws."""

import json
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import team_gates
import torch
from pictures import save_checkpoint
from recordings import CAMERAS, write_dataset

from vla_bench.errors import OptionError
from vla_bench_policies.lac.gates import KIND
from vla_bench_policies.lac.training.command import TrainLac
from vla_bench_policies.learned import checkpoint, command, trainer
from vla_bench_policies.learned.command import NETWORKS, RECIPE
from vla_bench_policies.learned.trainer import LOG, STATE
from vla_bench_policies.reference.training import frames
from vla_bench_policies.reference.training.team import Team
from vla_bench_policies.reference.training.trainer import read_log

TESTS = str(Path(__file__).parent)
LAUNCHED = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def launch(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Let two processes do it."""
    here = os.environ | {"PYTHONPATH": TESTS, "OMP_NUM_THREADS": "1"}
    given = [*LAUNCHED, *map(str, words)]
    return subprocess.run(given, env=here, capture_output=True, text=True, timeout=480)


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gates")


@pytest.fixture(scope="module")
def dataset(root: Path) -> Path:
    return write_dataset(root / "squares")


@pytest.fixture(scope="module")
def weights(root: Path) -> Path:
    return save_checkpoint(root / "small.safetensors")


@pytest.fixture(scope="module")
def trained(root: Path, dataset: Path, weights: Path) -> dict[int, Path]:
    """Where one process has trained, and where two have, by their number; what one has stopped, two have ended."""
    found = {count: root / str(count) for count in (1, 2)}
    for out in found.values():
        out.mkdir()
    before = trainer.SAVE_EVERY, trainer.VALIDATION_WINDOWS
    team_gates.main(dataset, weights, root / "cache", found[1])
    trainer.SAVE_EVERY, trainer.VALIDATION_WINDOWS = before
    shutil.copytree(found[1] / "stopped", found[2] / "handed")
    done = launch(f"{TESTS}/team_gates.py", dataset, weights, root / "fresh", found[2])
    assert done.returncode == 0, done.stderr
    return found


@pytest.mark.parametrize("kind", team_gates.KINDS)
def test_two_halves_of_a_batch_have_the_gradient_of_the_whole(kind: str, trained: dict[int, Path]) -> None:
    whole = torch.load(trained[1] / f"{kind}-0.pt")
    halves = [torch.load(trained[2] / f"{kind}-{rank}.pt") for rank in (0, 1)]
    assert torch.equal(halves[0]["gradient"], halves[1]["gradient"])
    assert float(whole["gradient"].abs().max()) > 1e-4
    for half in halves:
        assert half.keys() == whole.keys()
        for name in half.keys() - {"within"}:
            torch.testing.assert_close(half[name], whole[name], rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("kind", [kind for kind in team_gates.KINDS if kind != "stage 1"])
def test_halves_have_different_numbers_of_actions_to_divide_by(kind: str, trained: dict[int, Path]) -> None:
    """Else the test above would pass without a sum over all processes."""
    halves = [int(torch.load(trained[2] / f"{kind}-{rank}.pt")["within"]) for rank in (0, 1)]
    assert halves[0] != halves[1]
    assert sum(halves) == int(torch.load(trained[1] / f"{kind}-0.pt")["within"])


def test_a_training_ends_the_same_whoever_began_it(
    trained: dict[int, Path], root: Path, dataset: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "VALIDATION_WINDOWS", 8)
    alone = torch.load(trained[1] / "whole-0.pt")
    data = frames.load([dataset], CAMERAS, 32, root / "cache")
    shutil.copytree(trained[2] / "stopped", tmp_path / "stopped")
    taken_up = team_gates.made(data, weights, tmp_path / "stopped", Team())
    assert taken_up.state.step == team_gates.SAVED_AT
    taken_up.run()
    together = {name: [torch.load(trained[2] / f"{name}-{rank}.pt") for rank in (0, 1)] for name in ("whole", "handed")}
    for name, weight in alone.items():
        for one, other in together.values():
            assert torch.equal(one[name], other[name])
            torch.testing.assert_close(one[name], weight, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(taken_up.state.averaged[name], weight, rtol=1e-6, atol=1e-9)


def test_the_first_process_alone_notes_what_the_whole_batch_shows(trained: dict[int, Path]) -> None:
    alone, together = (read_log(trained[count] / "whole") for count in (1, 2))
    assert [row["step"] for row in together] == [row["step"] for row in alone] == [4, 5, 8, 10, 10]
    for one, other in zip(alone, together, strict=True):
        measured = one.keys() - {"step", "seconds"}
        assert {key: other[key] for key in measured} == pytest.approx({key: one[key] for key in measured}, rel=1e-6)
    assert sorted(path.name for path in (trained[2] / "whole").iterdir()) == [LOG, STATE]


def test_the_command_trains_in_two_processes_as_in_one(
    dataset: Path, weights: Path, root: Path, tmp_path: Path
) -> None:
    plan = TrainLac(
        (dataset,), stage=1, policy=str(weights), out=tmp_path / "stage 1", flow="difference", steps=4, batch=4,
        stride=2, window=3, threads=1, cache=root / "cache",
    )  # fmt: skip
    aligned = tmp_path / "stage 1" / NETWORKS
    assert plan.run() == 0
    assert replace(plan, stage=2, begin=aligned, out=tmp_path / "alone").run() == 0
    options = f"--data {dataset} --policy {weights} --flow difference --steps 4 --batch 4 --stride 2 --window 3"
    words = ["-m", "vla_bench.cli", "train", "lac", *options.split(), "--threads", "1", "--cache", root / "cache"]
    done = launch(*words, "--stage", "2", "--begin", aligned, "--out", tmp_path / "together")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("4 steps in") == 1
    assert sorted(path.name for path in (tmp_path / "together").iterdir()) == sorted(
        [NETWORKS, LOG, RECIPE, STATE, "train.lock"]
    )
    alone, together = (checkpoint.load(tmp_path / name / NETWORKS, KIND) for name in ("alone", "together"))
    assert together.history["processes"] == 2
    assert "processes" not in alone.history
    expected = alone.network.state_dict()
    for name, weight in together.network.state_dict().items():
        torch.testing.assert_close(weight, expected[name], rtol=1e-3, atol=1e-4)
    one, two = (json.loads((tmp_path / name / RECIPE).read_text()) for name in ("alone", "together"))
    assert one == two


def test_a_batch_that_cannot_be_shared_out_is_refused_before_anything_is_written(
    dataset: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def three(device: str):
        yield Team(rank=0, count=3, local_count=3)

    monkeypatch.setattr(command, "joined", three)
    plan = TrainLac((dataset,), policy=str(weights), out=tmp_path / "out", cache=tmp_path / "cache", batch=8, stride=2)
    with pytest.raises(OptionError) as refused:
        plan.run()
    assert str(refused.value) == "--nproc-per-node is 3; expected processes that share a batch of 8 evenly"
    assert list(tmp_path.iterdir()) == []
