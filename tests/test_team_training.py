"""Processes that train together are one training: the same gradient, one who writes, and it goes on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import team_training
import torch
from recordings import write_dataset

from vla_bench.errors import OptionError
from vla_bench_policies.reference.training.team import Team
from vla_bench_policies.reference.training.trainer import LOG, STATE, read_log

PARTS = ("reference", "networks")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Where one process has trained, and where two have, by their number."""
    root = tmp_path_factory.mktemp("team")
    dataset = write_dataset(root / "small")
    found = {count: root / str(count) for count in (1, 2)}
    before = torch.get_num_threads()
    for out in found.values():
        out.mkdir()
    team_training.main(dataset, root / "cache", found[1])
    torch.set_num_threads(before)
    tests = str(Path(__file__).parent)
    launched = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [f"{tests}/team_training.py", str(dataset), str(root / "fresh"), str(found[2])]
    environment = os.environ | {"PYTHONPATH": tests, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launched, *words], env=environment, capture_output=True, text=True, timeout=480)
    assert done.returncode == 0, done.stderr
    return found


def test_two_halves_of_a_batch_have_the_gradient_of_the_whole(trained: dict[int, Path]) -> None:
    whole = torch.load(trained[1] / "gradient-0.pt")
    halves = [torch.load(trained[2] / f"gradient-{rank}.pt") for rank in (0, 1)]
    assert torch.equal(*halves)
    assert whole.abs().max() > 1e-3
    torch.testing.assert_close(halves[0], whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("part", PARTS)
def test_a_training_of_two_that_was_stopped_ends_where_one_alone_does(part: str, trained: dict[int, Path]) -> None:
    alone = torch.load(trained[1] / f"{part}-0.pt")
    one, other = (torch.load(trained[2] / f"{part}-{rank}.pt") for rank in (0, 1))
    for name, weight in alone.items():
        assert torch.equal(one[name], other[name])
        torch.testing.assert_close(one[name], weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("part", PARTS)
def test_one_process_writes_and_what_it_notes_is_the_whole_batch(part: str, trained: dict[int, Path]) -> None:
    alone, together = (read_log(trained[count] / part) for count in (1, 2))
    assert [row["step"] for row in together] == [row["step"] for row in alone] == [4, 6, 8, 12, 12]
    for one, other in zip(alone, together, strict=True):
        measured = one.keys() - {"step", "seconds"}
        assert {key: other[key] for key in measured} == pytest.approx({key: one[key] for key in measured}, rel=2e-3)
    assert sorted(path.name for path in (trained[2] / part).iterdir()) == [LOG, STATE]


def test_processes_that_find_other_states_are_refused(trained: dict[int, Path]) -> None:
    assert (trained[2] / "apart-1.txt").read_text() == (
        "this process begins at step 1, all processes at 0.5 on average; expected the same: they need one directory "
        "--out that all of them can read"
    )


def test_a_batch_is_shared_out_evenly_or_not_at_all() -> None:
    shares = [Team(rank, 4).share(12) for rank in range(4)]
    assert [index for share in shares for index in range(12)[share]] == list(range(12))
    with pytest.raises(OptionError, match="processes that share a batch of 10 evenly"):
        Team(0, 4).share(10)
