"""Figures, tested by what they draw."""

from pathlib import Path

import matplotlib
import pandas as pd
import pytest
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer

from vla_bench import cli, figures
from vla_bench.errors import ResultsWriteError
from vla_bench.figures.cache import AGE, NothingToDrawError
from vla_bench.figures.paper import FAMILIES

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


def test_a_name_with_dollar_signs_is_drawn_as_it_is(tmp_path: Path) -> None:
    with figures.paper_figure(tmp_path / "figure.svg") as ax:
        figures.success_against_latency(ax, pd.DataFrame([row("$x^$:1", 0.8, 10)]))
    assert "<!-- $x^$:1 (n=48) -->" in (tmp_path / "figure.svg").read_text()


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


def test_a_method_looks_the_same_in_every_company_and_its_budgets_alike() -> None:
    assert figures.look("random:0.4") == figures.look("random:0.8") == figures.look("random")
    assert figures.look("random:0.4+refresh:8") != figures.look("random:0.4")
    assert figures.look("somebody-elses:1") == figures.look("somebody-elses:2")
    assert figures.look("full") == figures.Look(figures.COLOURS[0], figures.MARKERS[0])


def test_known_methods_are_told_apart_by_marker_and_colour() -> None:
    looks = [figures.look(name) for name in FAMILIES]
    assert len({(look.colour, look.marker) for look in looks}) == len(looks)
    assert len({look.marker for look in looks[:11]}) == 11  # in grey


def test_budgets_are_joined_and_the_front_is_a_stair(ax: Axes) -> None:
    budgets = [row("full", 0.8, 10), row("random:0.6", 0.5, 6), row("random:0.4", 0.7, 8), row("keyframe:2", 0.4, 7)]
    figures.success_against_latency(ax, pd.DataFrame(budgets))
    lines = {(tuple(line.get_xdata()), tuple(line.get_ydata())) for line in ax.lines if len(line.get_xdata()) > 1}
    assert lines == {((6, 8), (50, 70)), ((6, 8, 10), (50, 70, 80))}


QUERIES = pd.DataFrame(
    {
        "run": "r", "method": method, "recording": 0, "task": 0, "init_state": 0, "seed": 0, "step": 8 * index,
        "is_warmup": False, "is_first_step": index == 0, "policy_ms": 20.0, "stage_ms vision": 8.0,
        "stage_ms prefill": 11.0 if method == "full" else 5.0, "stage_ms gate": 0.0 if method == "full" else 1.0,
        "cache effective": share * (index > 0), "cache age_max": age * index,
    }
    for method, share, age in (("full", 0.0, 0), ("random:0.6", 0.6, 1), ("keyframe:100", 1.0, 1))
    for index in range(6)
)  # fmt: skip


def test_stages_add_up_to_the_policy_time(ax: Axes) -> None:
    figures.stage_bars(ax, QUERIES)
    widths = {container.get_label(): [bar.get_width() for bar in container] for container in ax.containers}
    assert [label.get_text() for label in ax.get_yticklabels()][-1] == "full"
    assert widths["vision"] == [8, 8, 8]
    assert widths["prefill"] == [5, 5, 11]
    assert [sum(stage) for stage in zip(*widths.values(), strict=True)] == pytest.approx([20, 20, 20])
    assert widths["rest"] == pytest.approx([6, 6, 1])


def test_a_query_that_skips_a_stage_has_none_of_it_in_the_mean(ax: Axes) -> None:
    queries = (
        QUERIES[QUERIES["method"] == "full"]
        .assign(**{"stage_ms gate": [None, 4.0] * 3})
        .astype({"stage_ms gate": float})
    )
    figures.stage_bars(ax, queries)
    widths = {container.get_label(): [bar.get_width() for bar in container] for container in ax.containers}
    asked = queries[~queries["is_warmup"] & ~queries["is_first_step"]]
    assert widths["gate"] == pytest.approx([asked["stage_ms gate"].sum() / len(asked)])
    assert 0 < widths["gate"][0] < 4


def test_twenty_methods_have_a_legend_that_fits_above_axes_of_the_usual_size(ax: Axes) -> None:
    figures.success_against_latency(ax, SUMMARY)
    ax.figure.draw_without_rendering()
    usual = ax.get_window_extent().height
    ax.clear()
    long = [row(f"a-method-with-a-long-name-{index}:1", 0.8, 10) for index in range(20)]
    figures.success_against_latency(ax, pd.DataFrame(long))
    ax.figure.draw_without_rendering()
    legend = ax.get_legend().get_window_extent()
    assert len(ax.get_legend().get_texts()) == 20
    assert 0 <= legend.x0 < legend.x1 <= ax.figure.bbox.width
    assert legend.y1 <= ax.figure.bbox.height
    assert ax.get_window_extent().height > 0.8 * usual


def test_success_by_task_shows_every_rate_and_the_whole(ax: Axes) -> None:
    found = [("full", 0, True), ("full", 0, True), ("full", 1, False), ("lac", 0, True), ("lac", 0, False)]
    episodes = pd.DataFrame(found, columns=["method", "task", "success"]).assign(outcome="success")
    broken = pd.DataFrame({"method": ["lac"], "task": [1], "success": [False], "outcome": ["error"]})
    figures.success_by_task(ax, pd.concat([episodes, broken]))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["full", "lac"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1", "all"]
    assert ax.get_title() == "success [%], 1 to 2 episodes a task"
    assert [text.get_text() for text in ax.texts] == ["100", "0", "67", "50", "50"]  # what ended in an error is no rate


def test_reuse_and_ages_over_an_episode_are_a_line_a_method_that_reuses(ax: Axes) -> None:
    figures.reuse_over_episode(ax, QUERIES)
    shares = {line.get_label(): line.get_ydata().tolist() for line in ax.lines}
    assert shares == {"random:0.6": [0] + 5 * [60], "keyframe:100": [0] + 5 * [100]}
    ax.clear()
    figures.age_over_episode(ax, QUERIES)
    assert [line.get_ydata().tolist() for line in ax.lines] == 2 * [[0, 1, 2, 3, 4, 5]]


def test_several_episodes_are_not_drawn_as_one(ax: Axes) -> None:
    with pytest.raises(ValueError, match="several queries at a step"):
        figures.reuse_over_episode(ax, pd.concat([QUERIES, QUERIES]))


def test_results_without_a_cache_say_so(ax: Axes) -> None:
    with pytest.raises(NothingToDrawError, match="no query that reports a cache to draw: the figure needs"):
        figures.reuse_over_episode(ax, QUERIES.drop(columns=["cache effective", "cache age_max"]))


def aged(queries: pd.DataFrame) -> pd.DataFrame:
    """Say of each query that all it reuses is as old as its index: nothing, 1, 2 to 3 twice, 4 to 7 twice."""
    ones = {0: [0] * 6, 1: [9, 0, 0, 0, 0, 0], 2: [0, 9, 0, 0, 0, 0], 3: [0, 9, 0, 0, 0, 0]}
    return queries.assign(**{"cache age_counts": [ones.get(age, [0, 0, 9, 0, 0, 0]) for age in queries[AGE]]})


def test_distance_is_of_the_steps_that_a_query_serves(ax: Axes) -> None:
    """Ten recordings; what is `n` inferences old is `n` mm off in the first step that it serves, and `n + 2` after."""
    queries = pd.concat([QUERIES[QUERIES["method"] == "random:0.6"].assign(recording=one) for one in range(10)])
    steps = pd.DataFrame(
        {"method": "random:0.6", "recording": one, "step": step, "distance_mm": step // 8 + (2.0 if step % 8 else 0.0)}
        for one in range(10)
        for step in range(48)
    )
    figures.distance_against_age(ax, steps, aged(queries))
    (container,) = ax.containers
    assert container.lines[0].get_xdata().tolist() == pytest.approx([0, 1, 2])
    assert container.lines[0].get_ydata().tolist() == pytest.approx([age + 14 / 8 for age in (1, 2.5, 4.5)])
    assert [label.get_text() for label in ax.get_xticklabels()][:3] == ["1", "2 to 3", "4 to 7"]


def test_settings_of_one_method_are_told_apart_where_their_ages_are_drawn(ax: Axes) -> None:
    names = ("random:0.4", "random:0.8")
    own = QUERIES[QUERIES["method"] == "random:0.6"]
    queries = pd.concat([own.assign(method=name, recording=one) for name in names for one in range(5)])
    steps = queries[["method", "recording", "step"]].assign(distance_mm=1.0)
    figures.distance_against_age(ax, steps, aged(queries))
    first, second = (container.lines[0] for container in ax.containers)
    assert first.get_linestyle() != second.get_linestyle()
    assert (first.get_xdata() < second.get_xdata()).all()


def test_methods_that_reuse_nothing_have_no_age_to_draw(ax: Axes) -> None:
    full = QUERIES[QUERIES["method"] == "full"]
    steps = full[["method", "recording", "step"]].assign(distance_mm=0.0)
    with pytest.raises(NothingToDrawError, match="no reused row to draw"):
        figures.distance_against_age(ax, steps, aged(full.assign(**{AGE: 0})))


FAMILIES_FRAME = pd.DataFrame(
    {
        "suite": "toy@1", "policy": "toy", "family": name, "starts": 40, "reference_success": 0.8,
        **{f"{read_out}{limit}": value + change for read_out, value in values.items()
           for limit, change in (("", 0.0), ("_low", -0.1), ("_high", 0.1))},
    }
    for name, values in (
        ("token-cache", {"hypervolume": 0.24, "success_at_90": 0.8, "success_at_75": 0.8, "success_at_50": 0.1}),
        ("action-reuse", {"hypervolume": 0.35, "success_at_90": 0.7, "success_at_75": 0.7, "success_at_50": 0.7}),
    )
)  # fmt: skip


def test_the_legend_of_the_frontier_says_each_familys_hypervolume_once(ax: Axes) -> None:
    figures.success_against_latency(
        ax, pd.concat([SUMMARY, SUMMARY.tail(1).assign(method="token-cache:1")]), FAMILIES_FRAME
    )
    labels = [label for label in drawn(ax) if "HV" in label]
    assert labels == ["action-reuse:2 (HV 0.35)", "token-cache:0 (HV 0.24)"]
    assert ax.get_legend().get_title().get_text() == "n=48 each; HV: hypervolume"


def test_a_family_of_many_budgets_is_one_entry_of_the_legend_and_each_a_point(ax: Axes) -> None:
    budgets = [row(f"random:0.{tenths}", 0.8, 10 - tenths, episodes=50 + tenths) for tenths in (2, 4, 6)]
    figures.success_against_latency(ax, pd.DataFrame([row("full", 0.8, 10), *budgets]))
    assert len(ax.containers) == 4
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["full (n=48)", "random, 3 budgets (n=50 to 54)"]


def test_where_methods_have_different_numbers_of_starts_each_says_its_own(ax: Axes) -> None:
    figures.success_against_latency(ax, pd.DataFrame([row("full", 0.8, 10), row("token-cache:0", 0.8, 7, errors=0)]))
    assert list(drawn(ax)) == ["full (n=48)", "token-cache:0 (n=50)"]
    ax.clear()
    uneven = pd.DataFrame([row("full", 0.8, 10), row("token-cache:0", 0.8, 7, errors=0)])
    figures.success_against_latency(ax, uneven, FAMILIES_FRAME)
    assert list(drawn(ax)) == ["full (n=48)", "token-cache:0 (n=50, HV 0.24)"]


def test_success_at_equal_latency_is_three_points_a_family_beside_the_reference(ax: Axes) -> None:
    figures.success_at_equal_latency(ax, FAMILIES_FRAME)
    points = [container.lines[0] for container in ax.containers]
    places = [(float(one.get_xdata()[0]), float(one.get_ydata()[0])) for one in points]
    expected = [70, 0.24, 70, 0, 70, -0.24, 80, 1.24, 80, 1, 10, 0.76]
    assert [one for place in places for one in place] == pytest.approx(expected)
    assert [one.get_fillstyle() for one in points[:3]] == ["none", "left", "full"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["action-reuse (HV 0.35)", "token-cache (HV 0.24)"]
    assert [line.get_xdata() for line in ax.lines if len(line.get_xdata()) == 2] == [[80, 80]]
    assert len(ax.get_legend().get_texts()) == 4
    with pytest.raises(NothingToDrawError, match="no family of methods to draw: the figure needs 8 timed starts"):
        figures.success_at_equal_latency(ax, pd.DataFrame())


def test_the_command_draws_the_methods_that_are_asked_for(tmp_path: Path, capsys) -> None:
    demo, out = Path(__file__).parent.parent / "results" / "released" / "demo", tmp_path / "figure.svg"
    words = ["figure", str(demo), "--kind", "equal-latency", "--out", str(out)]
    assert cli.main([*words, "--method", "fastv:0.5", "--method", "random:0.4"]) == 0
    text = out.read_text()
    assert ("<!-- fastv (HV" in text, "<!-- random (HV" in text, "vla-pruner" in text) == (True, True, False)
    assert cli.main([*words, "--method", "fastv:0.4"]) == 2
    assert "no method in these results named 'fastv:0.4'. Did you mean 'fastv:0.5'?" in capsys.readouterr().err


def test_marks_do_not_all_fall_on_the_refreshes_of_a_method_that_alternates(ax: Axes) -> None:
    steps = range(0, 208, 2)
    queries = pd.DataFrame(
        {
            "method": "lac+refresh:2",
            "step": steps,
            "cache age_max": 0,
            "cache effective": [0.0, 0.8] * (len(steps) // 2),
        }
    )
    figures.reuse_over_episode(ax, queries)
    (line,) = ax.lines
    assert set(line.get_ydata()[:: line.get_markevery()]) == {0, 80}


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
