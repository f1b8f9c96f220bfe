"""Which episodes pair, what is said of them, and what is refused."""

import hashlib
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import toy  # noqa: F401 - registers the toy suite and policy

from vla_bench import Cell, EpisodeRecord, Outcome, Query, cli, journal, provenance, tables
from vla_bench.compare import compare_df, latency
from vla_bench.compare.command import Compare
from vla_bench.compare.paired import mid_p_mcnemar, tango
from vla_bench.compare.pairs import MissingReferenceError, NothingToCompareError
from vla_bench.compare.power import likely_discordant, mid_p_power
from vla_bench.compare.tables import judgement
from vla_bench.compare.text import to_text
from vla_bench.compare.verdict import MIN_PAIRS, Judgement, Speed, Success, Verdict, exit_status, judge
from vla_bench.errors import MixedRunsError, NoResultsError, OptionError, UnknownNameError
from vla_bench.stats import Interval
from vla_bench.tables import Results

CONDITIONS = {"protocol": "toy-1", "policy": "toy-2", "processor": "one", "accelerator": "none", "environment gl": "a"}


def query(step: int, policy_ms: float, is_warmup: bool = False) -> Query:
    return Query(step, 1, 1, 1.0, policy_ms, policy_ms + 1, 2.0, is_first_step=step == 0, is_warmup=is_warmup)


def episode(method: str, cell: Cell, success: bool = True, ms: float = 10.0) -> EpisodeRecord:
    """Return an episode of 4 steps: a first query of 99 ms, one of warm-up of 500 ms, and two of `ms`."""
    return EpisodeRecord(
        suite="toy@1",
        method=method,
        policy="toy",
        cell=cell,
        outcome=Outcome.SUCCESS if success else Outcome.TIMEOUT,
        n_steps=4,
        init_state_sha256=sha(cell),
        protocol="toy-1",
        path_m=0.5,
        jerk=0.0,
        wall_s=1.0,
        queries=(query(0, 99), query(1, 500, is_warmup=True), query(2, ms), query(3, ms)),
    )


def sha(cell: Cell) -> str:
    return hashlib.sha256(f"{cell.task} {cell.init_state}".encode()).hexdigest()


def broken(method: str, cell: Cell) -> EpisodeRecord:
    found = episode(method, cell)
    return replace(found, outcome=Outcome.ERROR, error="E: e", init_state_sha256="", queries=())


def cells(n: int) -> list[Cell]:
    return [Cell(index % 3, index // 3, 0) for index in range(n)]


def write(directory: Path, records: list[EpisodeRecord], **change: str) -> Path:
    with journal.writing(directory) as pages:
        for record in records:
            pages.append(record)
    plan = {"suite": "toy@1", "policy": "toy"}
    provenance.write(directory, plan, CONDITIONS | change)
    return directory


def two_methods(n: int, gained: int = 0, lost: int = 0, ms: float = 5.0) -> list[EpisodeRecord]:
    """Return `n` starts under `full` (10 ms) and `cheap`: the first `lost` and the next `gained` ones differ."""
    found = []
    for index, cell in enumerate(cells(n)):
        by_full, by_cheap = not lost <= index < lost + gained, index >= lost
        found += [episode("full", cell, by_full), episode("cheap", cell, by_cheap, ms)]
    return found


def compared(*sources: Path | Results, **options) -> pd.DataFrame:
    return compare_df(*sources, **options).set_index("method")


def test_the_row_of_a_method_holds_the_statistics_of_its_pairs(tmp_path: Path) -> None:
    row = compared(write(tmp_path, two_methods(60, gained=2, lost=7))).loc["cheap"]
    assert (row["pairs"], row["interleaved"], row["gained"], row["lost"]) == (60, 60, 2, 7)
    assert (row["success"], row["reference_success"]) == (53 / 60, 58 / 60)
    expected = tango(2, 7, 60)
    assert (row["difference"], row["difference_low"], row["difference_high"]) == (
        expected.value,
        expected.low,
        expected.high,
    )
    assert row["bootstrap_low"] < row["bootstrap"] == row["difference"] < row["bootstrap_high"]
    assert row["p_mid"] == row["p_holm"] == mid_p_mcnemar(2, 7)
    assert (row["speedup_low"], row["speedup"], row["speedup_high"]) == (2, 2, 2)
    assert row["policy_ms_per_step"] == 5


def test_the_minimum_detectable_effect_is_that_of_the_pairs_and_of_how_often_they_disagree(tmp_path: Path) -> None:
    frame = compare_df(write(tmp_path, two_methods(60, gained=2, lost=7)))
    drop = frame.set_index("method").loc["cheap", "drop_found"]
    discordant = likely_discordant(9, 60)
    assert 9 / 60 < discordant < 0.2
    assert mid_p_power(60, -drop, max(drop, discordant)) == pytest.approx(0.8, abs=1e-6)
    assert f" {100 * drop:.1f} " in to_text(frame)
    assert np.isnan(frame.set_index("method").loc["full", "drop_found"])
    nothing_to_lose = [replace(one, outcome=Outcome.TIMEOUT) for one in two_methods(9)]
    assert np.isnan(compared(write(tmp_path / "none", nothing_to_lose)).loc["cheap", "drop_found"])


def test_the_references_own_row_compares_nothing(tmp_path: Path) -> None:
    frame = compared(write(tmp_path, two_methods(20)))
    assert frame.index.tolist() == ["full", "cheap"]
    assert frame.loc["full", "verdict"] == "reference"
    assert frame.loc["full", "success"] == 1
    assert frame.loc["full", ["pairs", "gained", "p_mid", "difference", "speedup"]].isna().all()
    assert judgement(frame.loc["full"]) is None


def test_errors_are_in_no_pair_and_are_counted(tmp_path: Path) -> None:
    whole, failing = cells(22)[:20], cells(22)[20:]
    records = [episode(method, cell) for cell in whole for method in ("full", "cheap")]
    records += [broken("cheap", failing[0]), episode("full", failing[0], success=False), broken("full", failing[1])]
    records += [episode("cheap", failing[1])]
    frame = compared(write(tmp_path, records))
    assert frame["errors"].tolist() == [1, 1]
    assert frame["episodes"].tolist() == [21, 21]
    assert frame.loc["cheap", ["pairs", "gained", "lost"]].tolist() == [20, 0, 0]
    assert "cheap: 1 of 21 finished episodes have no partner." in to_text(frame.reset_index())


def test_an_error_that_was_mended_later_is_none(tmp_path: Path) -> None:
    records = [*two_methods(10)[2:], broken("cheap", cells(1)[0]), *two_methods(1)]
    frame = compared(write(tmp_path, records))
    assert frame.loc["cheap", ["pairs", "errors"]].tolist() == [10, 0]
    write(tmp_path / "one", [*two_methods(10)[2:], broken("cheap", cells(1)[0])])
    write(tmp_path / "two", two_methods(1))
    frame = compared(tmp_path / "one", tmp_path / "two")
    assert frame.loc["cheap", ["pairs", "errors"]].tolist() == [10, 0]


def test_initial_states_pair_by_their_bytes_and_not_by_their_index(tmp_path: Path) -> None:
    records = two_methods(12)
    moved = [
        replace(one, cell=replace(one.cell, init_state=one.cell.init_state + 50))
        for one in records
        if one.method == "cheap"
    ]
    frame = compared(write(tmp_path, [one for one in records if one.method == "full"] + moved))
    assert frame.loc["cheap", "pairs"] == 12


def test_another_seed_or_task_is_no_partner(tmp_path: Path) -> None:
    records = [one for one in two_methods(12) if one.method == "full"]
    records += [episode("cheap", replace(cell, seed=1)) for cell in cells(12)]
    frame = compare_df(write(tmp_path, records))
    assert frame.set_index("method").loc["cheap", "pairs"] == 0
    assert frame["verdict"].tolist() == ["reference", "undecided"]
    assert "undecided (needs 133 more episodes)" in to_text(frame)


def test_one_index_with_two_contents_is_refused(tmp_path: Path) -> None:
    records = two_methods(12)
    records[3] = replace(records[3], init_state_sha256=64 * "0")
    with pytest.raises(
        MixedRunsError, match=r"initial state 0 of task 1 in toy@1: 000000000000 against [0-9a-f]{12}: "
    ):
        compare_df(write(tmp_path, records))


@pytest.mark.parametrize("condition", ["protocol", "processor", "accelerator", "environment gl", "policy"])
def test_runs_of_other_conditions_are_refused_naming_what_differs(tmp_path: Path, condition: str) -> None:
    full, cheap = ([one for one in two_methods(12) if one.method == name] for name in ("full", "cheap"))
    write(tmp_path / "one", full)
    write(tmp_path / "other", cheap, **{condition: "changed"})
    message = rf"{condition}: {CONDITIONS[condition]} \(one\) against changed \(other\)|{condition}: changed \(other\)"
    with pytest.raises(MixedRunsError, match=message):
        compare_df(tmp_path / "one", tmp_path / "other")


def test_runs_may_pair_across_each_other_and_that_is_said(tmp_path: Path) -> None:
    full, cheap = ([one for one in two_methods(12) if one.method == name] for name in ("full", "cheap"))
    frame = compare_df(write(tmp_path / "one", full), write(tmp_path / "other", cheap))
    row = frame.set_index("method").loc["cheap"]
    assert (row["pairs"], row["interleaved"]) == (12, 0)
    assert "cheap: 12 of 12 pairs are of two runs, not in turns: the machine may have changed" in to_text(frame)


def test_pairs_of_one_run_come_before_pairs_across_runs(tmp_path: Path) -> None:
    write(tmp_path / "turns", two_methods(12))
    write(tmp_path / "later", [episode("full", cell, success=False, ms=1.0) for cell in cells(12)])
    row = compared(tmp_path / "turns", tmp_path / "later").loc["cheap"]
    assert (row["pairs"], row["interleaved"], row["gained"], row["speedup"]) == (12, 12, 0, 2)


def test_exported_frames_compare_like_their_runs(tmp_path: Path) -> None:
    results = tables.load(write(tmp_path / "run", two_methods(30, gained=1, lost=4)))
    tables.export(results, tmp_path / "released")
    frames = [compare_df(source) for source in (tmp_path / "run", tmp_path / "released", results)]
    pd.testing.assert_frame_equal(frames[0], frames[1])
    pd.testing.assert_frame_equal(frames[0], frames[2])


def test_results_given_twice_count_once(tmp_path: Path) -> None:
    results = tables.load(write(tmp_path / "run", two_methods(30, gained=1, lost=4)))
    tables.export(results, tmp_path / "released")
    pd.testing.assert_frame_equal(compare_df(tmp_path / "run", tmp_path / "released"), compare_df(results))


def test_a_directory_of_runs_stands_for_all_of_them(tmp_path: Path) -> None:
    write(tmp_path / "one", two_methods(12))
    write(tmp_path / "two", [replace(one, cell=replace(one.cell, seed=1)) for one in two_methods(12)])
    assert compared(tmp_path).loc["cheap", "pairs"] == 24


def test_the_comparison_is_the_same_every_time(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    records = [replace(one, queries=(query(2, float(rng.lognormal())),)) for one in two_methods(30, 3, 4)]
    results = tables.load(write(tmp_path, records))
    one, same, other = (compare_df(results, seed=seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(one, same)
    assert one["speedup_low"].tolist() != other["speedup_low"].tolist()
    assert one["difference_low"].tolist()[1] == other["difference_low"].tolist()[1]


def test_several_methods_are_adjusted_and_the_best_ones_named(tmp_path: Path) -> None:
    records = two_methods(60)
    records += [episode("bad", cell, success=index % 2 == 0) for index, cell in enumerate(cells(60))]
    frame = compare_df(write(tmp_path, records))
    rows = frame.set_index("method")
    assert rows.loc["bad", "p_holm"] == pytest.approx(2 * rows.loc["bad", "p_mid"])
    assert rows["may_be_best"].to_dict() == {"full": True, "bad": False, "cheap": True}
    assert rows["blocks"].tolist() == [60, 60, 60]
    assert rows["cochran_q"].iloc[0] == pytest.approx(60)  # 30 starts in which one of three fails
    text = to_text(frame)
    assert "All 3 methods, 60 starts that all finished: Cochran Q 60.00, p <0.0001." in text
    assert "Not told from the best: full, cheap." in text


def test_warm_up_and_first_queries_are_told_apart(tmp_path: Path) -> None:
    row = compared(write(tmp_path, two_methods(20))).loc["cheap"]
    assert (row["timed_queries"], row["policy_ms_p50"], row["policy_ms_p90"]) == (40, 5, 5)
    assert (row["first_queries"], row["first_ms_p50"]) == (20, 99)
    assert (row["warmup_queries"], row["warmup_ms_p50"]) == (20, 500)
    assert np.isnan(row["policy_ms_p99"])


def test_percentiles_and_deadlines_need_enough_queries() -> None:
    def described(n: int) -> dict[str, float]:
        times = np.linspace(10, 220, n)
        return latency.describe(pd.DataFrame({"policy_ms": times, "is_warmup": False, "is_first_step": False}))

    assert np.isnan(described(29)["policy_ms_p90"])
    assert described(30)["policy_ms_p90"] == pytest.approx(199)
    assert np.isnan(described(299)["policy_ms_p99"])
    assert described(300)["policy_ms_p99"] == pytest.approx(217.9)
    late = [described(300)[f"misses_{hz}hz"] for hz in (5, 10, 20, 30)]
    assert late == pytest.approx([20 / 210, 120 / 210, 170 / 210, (220 - 1000 / 30) / 210], abs=0.005)
    assert np.isnan(latency.nothing()["misses_5hz"])


def test_speed_of_few_pairs_is_not_shown(tmp_path: Path) -> None:
    frame = compare_df(write(tmp_path, two_methods(MIN_PAIRS - 1, ms=20.0)))
    row = frame.set_index("method").loc["cheap"]
    assert (row["timed_pairs"], row["speed_shows"], row["verdict"]) == (7, "open", "undecided")
    assert np.isnan(row["speedup"])
    assert compared(write(tmp_path / "one more", two_methods(MIN_PAIRS, ms=20.0))).loc["cheap", "verdict"] == "worse"


SAME, FASTER, SLOWER = Interval(1.0, 0.97, 1.03), Interval(1.5, 1.4, 1.6), Interval(0.8, 0.7, 0.9)
UNCLEAR = Interval(1.1, 0.9, 1.3)


@pytest.mark.parametrize(
    ("gained", "lost", "n", "speedup", "said"),
    [
        (0, 0, 133, FASTER, "wins"),
        (30, 5, 500, FASTER, "wins"),
        (0, 0, 132, FASTER, "undecided (needs 1 more episodes)"),
        (0, 0, 500, SAME, "tie"),
        (0, 0, 500, SLOWER, "worse (slower)"),
        (40, 0, 500, SLOWER, "worse (slower)"),
        (0, 60, 500, FASTER, "worse (success)"),
        (0, 60, 500, SLOWER, "worse (success, slower)"),
        (0, 60, 500, None, "worse (success)"),
        (10, 10, 50, SLOWER, "worse (slower)"),
        (0, 0, 500, UNCLEAR, "undecided (needs 4029 more episodes)"),
        (0, 0, 500, None, "undecided (needs 8 more episodes)"),
        (0, 7, 7, None, "undecided (needs 1 more episodes)"),
        (0, 10, 500, FASTER, "undecided (needs over 99999 more episodes)"),
    ],
)
def test_verdicts(gained: int, lost: int, n: int, speedup: Interval | None, said: str) -> None:
    assert str(judge(gained, lost, n, speedup, 0 if speedup is None else n)) == said


def test_a_wider_margin_lets_fewer_pairs_win() -> None:
    assert judge(0, 0, 60, FASTER, 60, margin=0.05).verdict is Verdict.WINS
    assert judge(0, 0, 60, FASTER, 60, margin=0.02).verdict is Verdict.UNDECIDED


def test_success_that_is_on_its_way_to_inferior_needs_no_speed() -> None:
    alone, with_speed = judge(0, 3, 40, UNCLEAR, 40), judge(0, 3, 40, FASTER, 40)
    assert alone.success is with_speed.success is Success.OPEN
    assert alone.needed == with_speed.needed


def test_the_episodes_that_are_said_to_be_needed_decide_if_all_goes_on() -> None:
    first = judge(6, 8, 200, FASTER, 200)
    factor = (200 + first.needed) / 200
    then = judge(round(6 * factor), round(8 * factor), round(200 * factor), FASTER, 200)
    assert (first.verdict, then.verdict) == (Verdict.UNDECIDED, Verdict.WINS)
    speed = judge(0, 0, 200, UNCLEAR, 200)
    shrunk = np.sqrt((200 + speed.needed) / 200)
    narrow = Interval(1.1, 1.1 * (0.9 / 1.1) ** (1 / shrunk), 1.1 * (1.3 / 1.1) ** (1 / shrunk))
    assert judge(0, 0, 200, narrow, 200).verdict is Verdict.WINS


def test_no_verdict_can_be_another_one_too() -> None:
    found = [Judgement(success, speed, 0.0).verdict for success in Success for speed in Speed]
    assert sorted(found.count(verdict) for verdict in Verdict) == [1, 1, 4, 6]


@pytest.mark.parametrize(
    ("verdicts", "status"), [("w", 0), ("wtx", 0), ("tx", 10), ("x", 11), ("xx", 11), ("wu", 12), ("u", 12)]
)
def test_the_exit_status_tells_the_outcomes_apart(verdicts: str, status: int) -> None:
    made = {
        "w": Judgement(Success.NON_INFERIOR, Speed.FASTER, 0.0),
        "t": Judgement(Success.NON_INFERIOR, Speed.EQUAL, 0.0),
        "x": Judgement(Success.INFERIOR, Speed.FASTER, 0.0),
        "u": Judgement(Success.OPEN, Speed.FASTER, 9.0),
    }
    assert exit_status(made[letter] for letter in verdicts) == status


@pytest.mark.parametrize(
    ("n", "lost", "ms", "status"), [(150, 0, 5, 0), (150, 0, 10, 10), (20, 15, 5, 11), (20, 0, 5, 12)]
)
def test_the_command_prints_writes_and_exits(tmp_path: Path, capsys, n: int, lost: int, ms: float, status: int) -> None:
    write(tmp_path, two_methods(n, lost=lost, ms=ms))
    assert cli.main(["compare", str(tmp_path)]) == status
    said = capsys.readouterr().out
    word = {0: "wins", 10: "tie", 11: "worse (success)", 12: "undecided (needs 113 more episodes)"}[status]
    assert f" {word}\n" in said
    assert "against full, margin 2 points" in said
    written = pd.read_csv(tmp_path / "comparison.csv")
    assert written["verdict"].tolist() == ["reference", word.partition(" ")[0]]
    assert written["pairs"].tolist()[1] == n


def test_reference_margin_and_file_can_be_chosen(tmp_path: Path, capsys) -> None:
    write(tmp_path / "run", two_methods(60))
    out = tmp_path / "table.csv"
    words = ["compare", str(tmp_path / "run"), "--reference", "cheap", "--margin", "5", "--out", str(out)]
    assert cli.main(words) == 11
    assert "worse (slower)" in capsys.readouterr().out
    assert pd.read_csv(out)["margin"].tolist() == [0.05, 0.05]
    assert not (tmp_path / "run" / "comparison.csv").exists()


def test_real_results_are_compared(tmp_path: Path, capsys) -> None:
    main, out = Path(__file__).parent.parent / "results" / "released" / "main", tmp_path / "out.csv"
    assert cli.main(["compare", str(main), "--margin", "5", "--out", str(out)]) == 12
    said, found = capsys.readouterr().out, pd.read_csv(out)
    assert all(method in said for method in found["method"])
    assert found.groupby("policy").size().tolist() == [20, 3]
    found = found[found["policy"] == "reference-oft:execute=2,ensemble"].set_index("method")
    assert found.loc["pixel-difference:0.4", "verdict"] == "worse"
    assert found.loc["full-eager", "verdict"] == "undecided"  # ten starts say nothing about a few points


def test_two_thousand_pairs_are_compared_in_less_than_a_second(tmp_path: Path) -> None:
    results = many_episodes(10, 50, 4)
    spent = []
    for _ in range(3):
        start = time.process_time()
        frame = compare_df(results)
        to_text(frame)
        spent.append(time.process_time() - start)
    assert frame["pairs"].tolist()[1] == 2000
    assert min(spent) < 1


def many_episodes(n_tasks: int, n_states: int, n_seeds: int, n_queries: int = 28) -> Results:
    """Return frames of two methods, as LIBERO's four suites and chunks of 8 actions make them."""
    rng = np.random.default_rng(0)
    index = pd.MultiIndex.from_product([["full", "cheap"], range(n_tasks), range(n_states), range(n_seeds)])
    episodes = index.to_frame(index=False, name=["method", "task", "init_state", "seed"])
    episodes = episodes.assign(run="r", suite="s@1", policy="p", division="", success=rng.random(len(index)) < 0.95)
    episodes["outcome"] = np.where(episodes["success"], "success", "timeout")
    episodes["policy_ms_per_step"] = rng.lognormal(size=len(index))
    start = zip(episodes["task"], episodes["init_state"], strict=True)
    episodes["init_state_sha256"] = [sha(Cell(task, state, 0)) for task, state in start]
    queries = episodes.loc[episodes.index.repeat(n_queries), ["run", "method", "task", "init_state", "seed"]]
    queries = queries.assign(is_warmup=False, is_first_step=np.tile(np.arange(n_queries) == 0, len(episodes)))
    queries["policy_ms"] = rng.lognormal(size=len(queries))
    runs = pd.DataFrame([{"run": "r", "plan suite": "s@1", "protocol": "x", "policy": "f", "began": "1"}])
    return Results(runs, episodes, queries.reset_index(drop=True))


def test_what_cannot_be_compared_is_refused_with_what_to_do(tmp_path: Path) -> None:
    records = two_methods(3)
    alone = write(tmp_path / "alone", [one for one in records if one.method == "full"])
    with pytest.raises(NothingToCompareError) as caught:
        compare_df(alone)
    assert str(caught.value) == (
        "the results hold no other method than 'full': add runs of the same suite and policy with another method, for "
        "example 'vla-bench run --method full --method action-reuse:2'"
    )
    other = write(tmp_path / "other", [replace(one, suite="line@1") for one in records if one.method == "cheap"])
    with pytest.raises(MissingReferenceError) as missing:
        compare_df(alone, other)
    assert str(missing.value) == (
        "no episode of 'full' in line@1, policy toy; found cheap: add results that hold it, or name another method "
        "with --reference"
    )
    with pytest.raises(UnknownNameError, match=r"no method in these results named 'ful'. Did you mean 'full'\?"):
        compare_df(alone, reference="ful")
    with pytest.raises(NoResultsError, match="does not exist"):
        compare_df(tmp_path / "nowhere")
    with pytest.raises(
        OptionError, match=r"--margin is 0\.02; expected percentage points from 0\.1 to 50, for example 2"
    ):
        Compare((alone,), margin=0.02).run()
    with pytest.raises(OptionError, match=r"RESULTS is \(\); expected at least one directory"):
        Compare(()).run()


def test_a_run_in_which_one_method_never_worked_is_shown(tmp_path: Path) -> None:
    records = [one for one in two_methods(9) if one.method == "full"] + [broken("cheap", cell) for cell in cells(9)]
    frame = compare_df(write(tmp_path, records))
    assert frame.set_index("method").loc["cheap", ["episodes", "errors", "pairs", "blocks"]].tolist() == [0, 9, 0, 0]
    assert "nan" not in to_text(frame)


def test_episodes_without_queries_have_no_latency(tmp_path: Path) -> None:
    frame = compare_df(write(tmp_path, [replace(one, queries=()) for one in two_methods(9)]))
    assert frame["timed_queries"].tolist() == [0, 0]
    assert "nan" not in to_text(frame)
