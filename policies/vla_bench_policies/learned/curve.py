"""A training of networks as a figure: what it costs the policy, what it saves, and how sure the predictor is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from matplotlib.axes import Axes

from vla_bench_policies.reference.training.curve import write_curve

Line = tuple[str, str, str]
"""Entry of the log, label, style."""

LOSSES: tuple[Line, ...] = (
    ("task", "task loss", "C0-"),
    ("alignment", "alignment error", "C2-"),
    ("held_out_task", "task loss, held out", "C0o--"),
    ("held_out_distance", "distance to full, held out", "C3s--"),
)
SHARES: tuple[Line, ...] = (
    ("expected_ratio", "expected ratio", "C1-"),
    ("likeliest_ratio", "hard ratio", "C1:"),
    ("entropy", "predictor's entropy [nat]", "C4-."),
)


def networks_curve(ax: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """Draw losses against the step, and on an axis of its own ratios and entropy.

    Args:
        ax: Where.
        rows: Of a training's log; what a stage or a method does not have is left out.
    """
    shares = ax.twinx()
    _lines(ax, rows, LOSSES)
    _lines(shares, rows, SHARES)
    ax.set_xlabel("optimiser step")
    ax.set_ylabel("L1, normalised; squared error of alignment")
    ax.set_ylim(bottom=0)
    shares.set_ylabel("share reused; entropy")
    shares.set_ylim(0, 1.7)  # ln 5, the entropy of a choice among five, is 1.61
    drawn = [*ax.get_lines(), *shares.get_lines()]
    ax.figure.legend(handles=drawn, loc="outside upper center", ncols=2, frameon=False, fontsize="small")


def _lines(ax: Axes, rows: Sequence[dict[str, Any]], lines: Sequence[Line]) -> None:
    for key, label, style in lines:
        points = [(row["step"], row[key]) for row in rows if key in row]
        if points:
            ax.plot(*zip(*points, strict=True), style, label=label, markersize=3, linewidth=1)


@dataclass(frozen=True)
class NetworksCurve:
    """Draw the curve of a training of LAC or VLA-ACL, whether it has ended or not."""

    run_directory: Annotated[Path, tyro.conf.Positional]
    """What --out of the training was."""

    out: tuple[Path, ...] = ()
    """Files to write, in the format of their suffix; by default curve.png and curve.pdf in the directory."""

    def run(self) -> int:
        """Write the figure.

        Raises:
            OptionError: If the directory holds no training.
        """
        return write_curve(self.run_directory, self.out, networks_curve)
