"""Figures, tested by what they draw."""

from pathlib import Path

import matplotlib
import pandas as pd
import pytest
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer

from vla_bench import figures
from vla_bench.errors import ResultsWriteError

matplotlib.use("Agg")


def row(method: str, success: float, ms: float, **change: object) -> dict[str, object]:
    return {
        "suite": "toy@1", "policy": "toy", "method": method, "episodes": 50, "errors": 2,
        "success": success, "success_low": success - 0.1, "success_high": min(1.0, success + 0.1),
        "policy_ms_per_step": ms, "policy_ms_per_step_low": ms - 1, "policy_ms_per_step_high": ms + 2,
    } | change  # fmt: skip


SUMMARY = pd.DataFrame([row("full", 0.8, 10), row("action-reuse:2", 0.7, 5), row("token-cache:0", 0.8, 7)])


@pytest.fixture
def ax():
    with figures.paper_figure() as axes:
        yield axes


def drawn(ax: Axes) -> dict[str, ErrorbarContainer]:
    return {container.get_label(): container for container in ax.containers}


def colour(container: ErrorbarContainer) -> str:
    return colors.to_hex(container.lines[0].get_color()).upper()


def test_every_method_is_a_point_with_both_intervals(ax: Axes) -> None:
    figures.success_against_latency(ax, SUMMARY)
    assert list(drawn(ax)) == ["full (n=48)", "action-reuse:2 (n=48)", "token-cache:0 (n=48)"]
    point, _, (horizontal, vertical) = drawn(ax)["full (n=48)"].lines
    assert (point.get_xdata().tolist(), point.get_ydata().tolist()) == ([10], [80])
    assert horizontal.get_segments()[0][:, 0].tolist() == [9, 12]
    assert vertical.get_segments()[0][:, 1].tolist() == pytest.approx([70, 90])


def test_a_full_success_rate_is_drawn(ax: Axes) -> None:
    perfect = row("full", 1.0, 10, success_low=0.93)
    figures.success_against_latency(ax, pd.DataFrame([perfect]))
    assert ax.get_ylim() == (-4, 105)
    assert drawn(ax)["full (n=48)"].lines[2][1].get_segments()[0][:, 1].tolist() == [93, 100]


def test_methods_without_a_timed_query_are_left_out(ax: Axes) -> None:
    figures.success_against_latency(ax, pd.DataFrame([row("full", 0.8, 10), row("cold", 0.8, float("nan"))]))
    assert list(drawn(ax)) == ["full (n=48)"]


def test_a_method_has_one_colour_and_methods_have_different_ones(ax: Axes) -> None:
    figures.success_against_latency(ax, pd.concat([SUMMARY, SUMMARY.assign(policy="other")]))
    by_label = {label: colour(container) for label, container in drawn(ax).items()}
    assert len(by_label) == 6
    assert by_label["toy@1 toy full (n=48)"] == by_label["toy@1 other full (n=48)"] == figures.COLOURS[0]
    assert len(set(by_label.values())) == 3


def test_full_has_the_first_colour_whatever_else_there_is() -> None:
    assert figures.method_colours(pd.Series(["b", "full", "a", "full"])) == {
        "full": figures.COLOURS[0],
        "a": figures.COLOURS[1],
        "b": figures.COLOURS[2],
    }


def test_axes_say_what_they_show_and_begin_at_zero(ax: Axes) -> None:
    figures.success_against_latency(ax, SUMMARY)
    assert "[ms]" in ax.get_xlabel()
    assert "[%]" in ax.get_ylabel()
    assert ax.get_xlim()[0] == 0
    assert len(ax.get_legend().get_texts()) == 3


def test_a_figure_is_written_in_every_format_that_is_asked_for(tmp_path: Path) -> None:
    paths = [tmp_path / "new" / f"figure.{suffix}" for suffix in ("pdf", "png", "svg")]
    with figures.paper_figure(*paths) as ax:
        figures.success_against_latency(ax, SUMMARY)
    assert [path.read_bytes()[:5] for path in paths] == [b"%PDF-", b"\x89PNG\r", b"<?xml"]


def test_a_figure_that_cannot_be_written_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsWriteError, match="cannot write"), figures.paper_figure(tmp_path / "file" / "a.pdf"):
        pass


def test_drawing_leaves_no_figure_and_no_style_behind(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    with figures.paper_figure(tmp_path / "a.pdf"):
        pass
    assert matplotlib.pyplot.get_fignums() == []
    assert dict(matplotlib.rcParams) == before
