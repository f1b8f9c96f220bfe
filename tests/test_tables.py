"""From a journal to the summary: what counts, what is left out, and what may not stand together."""

import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import toy  # noqa: F401 - registers the toy suite and policy

import vla_bench
from vla_bench import Cell, EpisodeRecord, Outcome, Query, RunPlan, cli, journal, provenance, runner, tables
from vla_bench.errors import MixedRunsError, NoResultsError, OptionError, ResultsWriteError
from vla_bench.stats import wilson

CONDITIONS = {"protocol": "toy-1", "policy": "toy-2", "processor": "one", "accelerator": "none", "environment gl": "a"}
CELLS = [Cell(task, init_state, 0) for task in range(2) for init_state in range(3)]


def query(step: int, policy_ms: float, n_executed: int, is_warmup: bool = False) -> Query:
    first = step == 0
    return Query(
        step, n_executed, n_executed, 1.0, policy_ms, policy_ms + 1, 2.0, is_first_step=first, is_warmup=is_warmup
    )


def episode(method: str, cell: Cell, outcome: Outcome, repeats: int) -> EpisodeRecord:
    """Return 10 control steps: a first query of 99 ms, one of warm-up of 500 ms, and the rest of 10 ms."""
    steps = range(0, 10, repeats)
    times = [99.0, 500.0, *[10.0] * (len(steps) - 2)]
    queries = [query(step, ms, repeats, ms == 500) for step, ms in zip(steps, times, strict=True)]
    return EpisodeRecord(
        suite="toy@1",
        method=method,
        policy="toy",
        cell=cell,
        outcome=outcome,
        n_steps=10,
        init_state_sha256=64 * "0",
        protocol="toy-1",
        path_m=0.5,
        jerk=0.0,
        wall_s=1.0,
        queries=tuple(queries),
        error="RuntimeError: broken" if outcome is Outcome.ERROR else None,
    )


def toy_journal() -> list[EpisodeRecord]:
    """Return six episodes of two methods; `full` ends once in an error, after queries of a second each."""
    full = [episode("full", cell, Outcome.SUCCESS, 1) for cell in CELLS[:4]]
    full += [episode("full", CELLS[4], Outcome.TIMEOUT, 1), episode("full", CELLS[5], Outcome.ERROR, 1)]
    slow = [replace(one, policy_ms=1000.0, is_warmup=False, is_first_step=False) for one in full[5].queries]
    full[5] = replace(full[5], queries=tuple(slow))
    reuse = [episode("action-reuse:2", cell, Outcome.SUCCESS, 2) for cell in CELLS]
    return [*full, replace(reuse[0], outcome=Outcome.TIMEOUT), *reuse[1:]]


def write(directory: Path, records: list[EpisodeRecord], **change: str) -> Path:
    with journal.writing(directory) as pages:
        for record in records:
            pages.append(record)
    provenance.write(directory, {"suite": records[0].suite}, CONDITIONS | change)
    return directory


def summary_of(directory: Path, records: list[EpisodeRecord]) -> pd.DataFrame:
    return tables.summarise(tables.load(write(directory, records))).set_index("method")


GOLDEN = """\
suite,policy,method,episodes,errors,success,steps_to_success,queries_per_step,timed_queries,policy_ms,policy_ms_p90,\
policy_ms_per_step,pairs,speedup
toy@1,toy,full,6,1,0.8,10,1.0,40,10,10,10,5,1.0
toy@1,toy,action-reuse:2,6,0,0.8333333333333334,10,0.5,18,10,,5,5,2.0
"""


def test_the_summary_of_the_toy_journal_is_the_golden_one(tmp_path: Path) -> None:
    summary = tables.summarise(tables.load(write(tmp_path, toy_journal())))
    golden = pd.read_csv(StringIO(GOLDEN))
    pd.testing.assert_frame_equal(summary[golden.columns], golden, check_dtype=False)


def test_intervals_in_the_summary_are_those_of_stats(tmp_path: Path) -> None:
    full = summary_of(tmp_path, toy_journal()).loc["full"]
    expected = wilson(4, 5)
    assert (full["success"], full["success_low"], full["success_high"]) == (0.8, expected.low, expected.high)
    for name in ("policy_ms", "policy_ms_per_step", "speedup"):
        assert full[f"{name}_low"] == full[name] == full[f"{name}_high"]  # all values are equal here


def test_errors_are_counted_and_are_never_in_a_rate_or_a_time(tmp_path: Path) -> None:
    with_error = summary_of(tmp_path / "with", toy_journal())
    without = summary_of(tmp_path / "without", [one for one in toy_journal() if one.outcome is not Outcome.ERROR])
    assert (with_error.loc["full", "errors"], without.loc["full", "errors"]) == (1, 0)
    others = without.columns.difference(["errors", "episodes"])
    pd.testing.assert_frame_equal(with_error[others], without[others])


def test_warm_up_and_first_queries_are_left_out_of_latency(tmp_path: Path) -> None:
    results = tables.load(write(tmp_path, toy_journal()[:5]))
    assert sorted(set(results.queries["policy_ms"])) == [10, 99, 500]
    summary = tables.summarise(results)
    for name in ("policy_ms", "policy_ms_high", "policy_ms_p90", "policy_ms_per_step", "policy_ms_per_step_high"):
        assert summary[name].tolist() == [10]


def test_an_episode_without_a_timed_query_counts_for_success_and_not_for_latency(tmp_path: Path) -> None:
    cold = [replace(one, queries=one.queries[:2]) for one in toy_journal()[:5]]
    full = summary_of(tmp_path, cold).loc["full"]
    assert (full["success"], full["timed_queries"], full["pairs"]) == (0.8, 0, 0)
    assert np.isnan([full["policy_ms"], full["policy_ms_per_step"], full["speedup"]]).all()


def test_a_run_in_which_nothing_worked_has_no_rate(tmp_path: Path) -> None:
    broken = [replace(one, outcome=Outcome.ERROR, error="E: e", queries=()) for one in toy_journal()[:3]]
    summary = summary_of(tmp_path, broken)
    assert (summary.loc["full", "episodes"], summary.loc["full", "errors"]) == (3, 3)
    assert np.isnan(summary.loc["full", "success"])
    assert "nan" not in tables.to_text(summary.reset_index()).split("p90")[0]


def test_only_the_last_attempt_counts(tmp_path: Path) -> None:
    retried = replace(toy_journal()[5], outcome=Outcome.SUCCESS, error=None, attempt=2)
    full = summary_of(tmp_path, [*toy_journal(), retried]).loc["full"]
    assert (full["episodes"], full["errors"], full["success"]) == (6, 0, 5 / 6)


def test_speedup_compares_starts_that_both_methods_played(tmp_path: Path) -> None:
    slow_task = [replace(one, policy_ms=1000 * one.policy_ms) for one in toy_journal()[0].queries]
    lonely = replace(toy_journal()[0], cell=Cell(9, 0, 0), queries=tuple(slow_task))
    reuse = summary_of(tmp_path, [*toy_journal(), lonely]).loc["action-reuse:2"]
    assert (reuse["pairs"], reuse["speedup"]) == (5, 2)


def test_the_reference_comes_first_and_is_as_fast_as_itself(tmp_path: Path) -> None:
    summary = summary_of(tmp_path, toy_journal()[::-1])
    assert summary.index.tolist() == ["full", "action-reuse:2"]
    assert summary.loc["full", "speedup"] == 1


def test_the_summary_is_the_same_every_time(tmp_path: Path) -> None:
    cells = [Cell(0, init_state, 0) for init_state in range(40)]
    results = tables.load(write(tmp_path, [episode("full", cell, Outcome.SUCCESS, 1) for cell in cells]))
    results.queries["policy_ms"] = np.random.default_rng(0).lognormal(size=len(results.queries))
    one, same, other = (tables.summarise(results, seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(one, same)
    assert one["policy_ms_low"].tolist() != other["policy_ms_low"].tolist()
    assert one["policy_ms"].tolist() == other["policy_ms"].tolist()


@pytest.mark.parametrize("condition", ["protocol", "processor", "accelerator", "environment gl"])
def test_runs_of_other_conditions_do_not_stand_in_one_table(tmp_path: Path, condition: str) -> None:
    write(tmp_path / "one", toy_journal())
    write(tmp_path / "other", toy_journal()[:5], **{condition: "another"})
    results = tables.load(tmp_path)
    with pytest.raises(MixedRunsError, match=f"comparison: {condition}: .* against .*: run them again"):
        tables.summarise(results)


def test_two_suites_may_have_their_own_conditions(tmp_path: Path) -> None:
    write(tmp_path / "one", toy_journal())
    write(tmp_path / "other", [replace(one, suite="toy@2") for one in toy_journal()], protocol="toy-2")
    assert tables.summarise(tables.load(tmp_path))["suite"].tolist() == ["toy@1"] * 2 + ["toy@2"] * 2


def test_a_percentile_stands_in_the_table_only_where_queries_support_it(tmp_path: Path) -> None:
    cells = [Cell(0, init_state, 0) for init_state in range(4)]
    records = [episode("full", cell, Outcome.SUCCESS, 1) for cell in cells]
    per_episode = len([one for one in records[0].queries if not (one.is_warmup or one.is_first_step)])
    enough = -(-30 // per_episode)
    few = summary_of(tmp_path / "few", records[: enough - 1]).loc["full"]
    many = summary_of(tmp_path / "many", records[:enough]).loc["full"]
    assert (few["timed_queries"] < 30, np.isnan(few["policy_ms_p90"])) == (True, True)
    assert (many["timed_queries"] >= 30, many["policy_ms_p90"]) == (True, 10)


def test_a_run_says_how_many_threads_it_had(tmp_path: Path) -> None:
    runs = tables.load(write(tmp_path, toy_journal())).runs
    assert runs["threads"].tolist() == [provenance.machine()["OMP_NUM_THREADS"]]


def test_the_table_draws_its_figure_in_the_same_command(tmp_path: Path, capsys) -> None:
    write(tmp_path / "run", toy_journal())
    figure = tmp_path / "new" / "figure.svg"
    assert cli.main(["table", str(tmp_path / "run"), "--figure", str(figure)]) == 0
    said = capsys.readouterr().out
    assert "speed-up" in said
    assert said.endswith(f"{figure}\n")
    assert "action-reuse:2 (n=6" in figure.read_text()


def test_frames_have_a_row_for_everything(tmp_path: Path) -> None:
    results = tables.load(write(tmp_path, toy_journal()))
    assert len(results.runs) == 1
    assert len(results.episodes) == 12
    assert len(results.queries) == 6 * 10 + 6 * 5
    assert results.episodes.loc[results.episodes["outcome"] == "error", "error"].tolist() == ["RuntimeError: broken"]


def test_nothing_to_show_is_said(tmp_path: Path) -> None:
    with pytest.raises(NoResultsError, match=f"^{tmp_path / 'nowhere'} does not exist: make results"):
        tables.load(tmp_path / "nowhere")
    with pytest.raises(NoResultsError, match=f"^{tmp_path} is no run and holds none: make results"):
        tables.load(tmp_path)
    (tmp_path / journal.NAME).write_text("")
    with pytest.raises(NoResultsError, match=f"^{tmp_path} holds no finished episode yet: make results"):
        tables.load(tmp_path)


def test_the_text_shows_rates_with_their_intervals(tmp_path: Path) -> None:
    text = tables.to_text(tables.summarise(tables.load(write(tmp_path, toy_journal()))))
    assert "0.80 [0.38, 0.96]" in text
    assert "2.00 [2.00" in text
    assert tables.LEGEND in text
    assert tables.to_text(pd.DataFrame()) == "no episodes"


def test_exported_frames_give_the_same_summary(tmp_path: Path) -> None:
    results = tables.load(write(tmp_path / "run", toy_journal()))
    tables.export(results, tmp_path / "released")
    again = tables.summarise(tables.read_exported(tmp_path / "released"))
    pd.testing.assert_frame_equal(again, tables.summarise(results))


def test_a_start_that_two_runs_played_counts_once(tmp_path: Path) -> None:
    for episodes in (2, 4):
        plan = RunPlan("toy@1", "toy:1", ("full", "action-reuse:2"), episodes=episodes).resolve()
        runner.run(plan, tmp_path / plan.id)
    summary = tables.summarise(tables.load(tmp_path))
    assert summary["episodes"].tolist() == [12, 12]
    assert (summary["pairs"] <= 12).all()


def test_two_policies_of_one_name_do_not_stand_in_one_table(tmp_path: Path) -> None:
    for policy in ("toy:1", "toy:3"):
        plan = RunPlan("toy@1", policy, ("full",), episodes=1).resolve()
        runner.run(plan, tmp_path / plan.id)
    with pytest.raises(MixedRunsError, match="policy: "):
        tables.summarise(tables.load(tmp_path))


def test_a_run_without_its_conditions_is_no_result(tmp_path: Path) -> None:
    path = write(tmp_path, toy_journal()) / provenance.NAME
    path.write_text(path.read_text()[:40])
    with pytest.raises(NoResultsError, match=r"provenance\.json is damaged \(JSONDecodeError: "):
        tables.load(tmp_path)
    path.unlink()
    with pytest.raises(NoResultsError, match=r"holds a journal and no provenance\.json"):
        tables.load(tmp_path)


def test_a_table_is_written_for_programs_and_for_papers(tmp_path: Path) -> None:
    write(tmp_path / "run", toy_journal())
    out = [tmp_path / "new" / f"table.{suffix}" for suffix in ("csv", "md", "tex")]
    assert cli.main(["table", str(tmp_path / "run"), "--out", *map(str, out)]) == 0
    pd.testing.assert_frame_equal(pd.read_csv(out[0]), vla_bench.summary_df(tmp_path / "run"))
    _, rule, full, reuse = out[1].read_text().splitlines()
    assert set(rule) <= set("|:-")
    assert "| 0.80 [0.38, 0.96] " in full
    assert "| action-reuse:2 " in reuse
    latex = out[2].read_text()
    assert (
        latex.index(r"\toprule")
        < latex.index(r"\midrule")
        < latex.index("action-reuse:2")
        < latex.index(r"\bottomrule")
    )
    assert latex.count(r"\\") == 3


def test_signs_that_latex_knows_are_escaped(tmp_path: Path) -> None:
    tables.write(pd.DataFrame({"late % at 5_Hz": ["a_b & 5 %"]}), tmp_path / "table.tex")
    text = (tmp_path / "table.tex").read_text()
    assert r"late \% at 5\_Hz \\" in text
    assert r"a\_b \& 5 \% \\" in text


def test_a_table_in_no_known_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"table\.docx.*a name that ends in \.csv, \.md, \.tex"):
        tables.write(pd.DataFrame({"a": [1]}), tmp_path / "table.docx")
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsWriteError):
        tables.write(pd.DataFrame({"a": [1]}), tmp_path / "file" / "table.md")


def test_suites_stand_in_one_table_with_a_column_that_tells_them_apart(tmp_path: Path) -> None:
    write(tmp_path / "one", toy_journal())
    write(tmp_path / "other", [replace(one, suite="toy@2") for one in toy_journal()], protocol="toy-2")
    assert tables.shown(tables.summarise(tables.load(tmp_path)))["suite"].tolist() == ["toy@1"] * 2 + ["toy@2"] * 2


def test_the_public_frames_are_those_of_the_results(tmp_path: Path) -> None:
    results = tables.load(write(tmp_path / "run", toy_journal()))
    exported = tables.export(results, tmp_path / "released")[0].parent
    for source in (tmp_path / "run", str(exported)):
        pd.testing.assert_frame_equal(vla_bench.episodes_df(source), results.episodes)
        pd.testing.assert_frame_equal(vla_bench.queries_df(source), results.queries)
        pd.testing.assert_frame_equal(vla_bench.summary_df(source), tables.summarise(results))
        assert vla_bench.compare_df(source)["method"].tolist() == ["full", "action-reuse:2"]
    with pytest.raises(AttributeError, match="no attribute 'episodes'"):
        vla_bench.episodes  # noqa: B018


def test_the_package_is_imported_without_pandas() -> None:
    code = "import sys, vla_bench; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
