"""A training as a figure: loss on what is trained on, error on what is held out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from matplotlib.axes import Axes

from vla_bench import figures
from vla_bench.errors import OptionError
from vla_bench_policies.reference.training.trainer import LOG, read_log


def training_curve(ax: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """Draw the normalised L1 of the chunk against the step, while training and on held-out episodes.

    Args:
        ax: Where.
        rows: Of a training's log.
    """
    for key, label, style in (("chunk", "training, augmented", "-"), ("chunk_l1", "held-out episodes", "o--")):
        points = [(row["step"], row[key]) for row in rows if key in row]
        if points:
            ax.plot(*zip(*points, strict=True), style, label=label, markersize=3, linewidth=1)
    ax.set_yscale("log")
    for written in (ax.yaxis.set_major_formatter, ax.yaxis.set_minor_formatter):
        written("{x:g}")
    ax.set_xlabel("optimiser step")
    ax.set_ylabel("L1 of the action chunk (normalised)")
    ax.legend(frameon=False)
    last = [row for row in rows if "translation_mm" in row][-1:]
    for row in last:
        ax.set_title(f"held out: {row['translation_mm']:.2f} mm an axis and action, gripper {row['gripper']:.1%}")


def write_curve(run: Path, out: Sequence[Path], draw: Callable[[Axes, Sequence[dict[str, Any]]], None]) -> int:
    """Draw the log of a training into files, by default curve.png and curve.pdf beside it, and print where.

    Raises:
        OptionError: If the directory holds no training.
    """
    rows = read_log(run)
    if not rows:
        raise OptionError("run_directory", str(run), f"a directory in which {LOG} has a row")
    paths = tuple(out) or tuple(run / f"curve.{suffix}" for suffix in ("png", "pdf"))
    with figures.paper_figure(*paths) as ax:
        draw(ax, rows)
    print("\n".join(str(path) for path in paths))
    return 0


@dataclass(frozen=True)
class TrainingCurve:
    """Draw the curve of a training, whether it has ended or not."""

    run_directory: Annotated[Path, tyro.conf.Positional]
    """What --out of the training was."""

    out: tuple[Path, ...] = ()
    """Files to write, in the format of their suffix; by default curve.png and curve.pdf in the directory."""

    def run(self) -> int:
        """Write the figure.

        Raises:
            OptionError: If the directory holds no training.
        """
        return write_curve(self.run_directory, self.out, training_curve)
