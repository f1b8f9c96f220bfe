"""The figure of a training of networks: what it shows, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest

from vla_bench import cli, figures
from vla_bench_policies.learned.curve import networks_curve

ROWS = [
    {"step": 20, "task": 0.08, "expected_ratio": 0.4, "likeliest_ratio": 0.4, "entropy": 1.6},
    {"step": 40, "task": 0.07, "expected_ratio": 0.5, "likeliest_ratio": 0.6, "entropy": 1.2},
    {"step": 40, "held_out_task": 0.09, "held_out_distance": 0.03, "held_out_ratio": 0.6},
]


def test_a_curve_shows_losses_on_one_axis_and_shares_on_another() -> None:
    with figures.paper_figure() as ax:
        networks_curve(ax, ROWS)
        losses, shares = (axes.get_lines() for axes in ax.figure.axes)
        labels = [text.get_text() for text in ax.figure.legends[0].get_texts()]
    assert [line.get_label() for line in losses] == ["task loss", "task loss, held out", "distance to full, held out"]
    assert [line.get_label() for line in shares] == ["expected ratio", "hard ratio", "predictor's entropy [nat]"]
    assert np.asarray(shares[0].get_ydata()).tolist() == [0.4, 0.5]
    assert len(labels) == 6


def test_the_command_draws_a_training_of_stage_1(tmp_path: Path) -> None:
    rows = [{"step": step, "alignment": 1 / step} for step in (20, 40)]
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert cli.main(["train", "gates-curve", str(tmp_path)]) == 0
    assert (tmp_path / "curve.png").stat().st_size > 1000
    assert (tmp_path / "curve.pdf").exists()


def test_a_directory_without_a_training_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "gates-curve", str(tmp_path)]) == 2
    assert "log.jsonl has a row" in capsys.readouterr().err
