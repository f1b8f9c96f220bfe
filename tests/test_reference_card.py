"""The card says what the records say, and refuses records of another checkpoint."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from vla_bench import cli, tables
from vla_bench.errors import NoResultsError, OptionError
from vla_bench.tables import Results
from vla_bench_policies.reference import flops
from vla_bench_policies.reference.actions import Range
from vla_bench_policies.reference.card import Card
from vla_bench_policies.reference.checkpoint import Checkpoint, load
from vla_bench_policies.reference.model import ModelConfig, ReferenceVLA

SMALL = ModelConfig(image_px=32, patch_px=8, vision_width=32, vision_layers=1, width=32, layers=2, heads=4, hidden=80)
HISTORY = {
    "recipe": "abc", "command": "vla-bench train reference", "steps": 9, "batch": 4, "seed": 0, "frames": 70,
    "sources": [{"name": "own", "episodes": 20, "frames": 140, "bytes": 3e6}], "threads": 2, "seconds": 7200,
    "device": "cpu", "torch": "2",
    "validation": {
        "translation_mm": 2.345, "translation_blind_mm": 9.5, "rotation_mrad": 1.0, "gripper": 0.99, "chunk_l1": 0.1,
        "token": 0.2, "place_now_mm": 4.0, "place_then_mm": 6.0,
    },
}  # fmt: skip


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "small.safetensors"
    Checkpoint(ReferenceVLA(SMALL), Range((-1.0,) * 7, (1.0,) * 7), Range((-1.0,) * 8, (1.0,) * 8), HISTORY).save(path)
    return path


def recorded(directory: Path, sha256: str, outcomes: dict[int, list[str]], method: str = "full") -> Path:
    rows = [
        {"policy": "reference-oft", "suite": "libero-object@1", "protocol": "reference-fast 12ab", "method": method,
         "task": task, "outcome": outcome, "success": outcome == "success"}
        for task, ended in outcomes.items() for outcome in ended
    ]  # fmt: skip
    runs = pd.DataFrame([{"run": "r", "policy": f"{sha256[:16]}-oft-8"}])
    tables.export(Results(runs, pd.DataFrame(rows), pd.DataFrame({"step": []})), directory)
    return directory


def test_the_card_counts_successes_by_task_and_leaves_errors_out(weights: Path, tmp_path: Path) -> None:
    outcomes = {0: ["success"] * 9 + ["timeout"], 3: ["success", "error"]}
    results = recorded(tmp_path / "frames", load(weights).sha256, outcomes)
    assert cli.main(["train", "card", "--weights", str(weights), "--results", str(results)]) == 0
    card = weights.with_suffix(".md").read_text()
    assert "| 0 | pick up the alphabet soup and place it in the basket | 9/10 = 0.90 [0.60, 0.98] |" in card
    assert "1/1 = 1.00 [0.21, 1.00], 1 errors |" in card
    assert "| all | | 10/11 = 0.91 [0.62, 0.98], 1 errors |" in card
    assert "20 episodes, 140 frames, 3 MB of `own`" in card
    assert "first action 2.35 mm" in card
    assert load(weights).sha256 in card


def test_methods_are_not_part_of_the_card(weights: Path, tmp_path: Path) -> None:
    sha256 = load(weights).sha256
    own = recorded(tmp_path / "own", sha256, {0: ["success"]})
    reused = recorded(tmp_path / "reused", sha256, {0: ["timeout"] * 9}, method="action-reuse:2")
    Card(weights=str(weights), results=(own, reused)).run()
    assert "| all | | 1/1 = 1.00 [0.21, 1.00] |" in weights.with_suffix(".md").read_text()


def test_records_of_another_checkpoint_are_refused(weights: Path, tmp_path: Path) -> None:
    results = recorded(tmp_path / "frames", 64 * "0", {0: ["success"]})
    with pytest.raises(NoResultsError, match="holds episodes of another checkpoint"):
        Card(weights=str(weights), results=(results,)).run()
    with pytest.raises(OptionError, match="--results"):
        Card(weights=str(weights)).run()


def test_operations_grow_with_rows_and_layers() -> None:
    one = flops.of_query(SMALL, 5)
    assert flops.of_query(SMALL, 6).decoder > one.decoder
    assert flops.of_query(SMALL, 6).vision == one.vision
    assert one.total == one.vision + one.decoder + one.heads
