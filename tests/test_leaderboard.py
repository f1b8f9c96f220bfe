"""The leaderboard: what is compared, ranked and said, and a page that nobody's names can break."""

import hashlib
import json
import re
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from vla_bench.leaderboard import Source, blocks_of, leaderboard_df, render
from vla_bench.leaderboard.blocks import Block
from vla_bench.leaderboard.headline import headline
from vla_bench.leaderboard.table import COLUMNS, records
from vla_bench.submission.evidence import Evidence
from vla_bench.tables import Results

RELEASED = Path(__file__).parent.parent / "results" / "released"

NASTY = "</script><img src=x onerror=\"document.title='hit'\">"


def episodes(method: str, n: int, ms: float, lost: int = 0, noise: float = 0.0, **change: str) -> pd.DataFrame:
    """Return `n` starts of a method that loses the first `lost` and takes about `ms` a control step."""
    rng = np.random.default_rng(len(method))
    frame = pd.DataFrame({"task": np.arange(n) % 3, "init_state": np.arange(n) // 3})
    starts = zip(frame["task"], frame["init_state"], strict=True)
    frame["init_state_sha256"] = [hashlib.sha256(f"{start}".encode()).hexdigest() for start in starts]
    frame = frame.assign(run="r", suite="toy@1", policy="toy", method=method, seed=0, division="lossy", error="")
    frame["success"] = np.arange(n) >= lost
    frame["outcome"] = np.where(frame["success"], "success", "timeout")
    frame["policy_ms_per_step"] = ms * np.exp(noise * rng.standard_normal(n))
    return frame.assign(n_steps=8, n_queries=2, policy_ms_total=frame["policy_ms_per_step"] * 8, **change)


def queries(played: pd.DataFrame, decoder: float = 0.6) -> pd.DataFrame:
    """Return two queries of 4 steps each for every episode; the first has other times."""
    asked = played.loc[played.index.repeat(2), ["run", "method", "task", "init_state", "seed", "policy_ms_per_step"]]
    whole = asked.pop("policy_ms_per_step").to_numpy() * 4
    asked = asked.assign(is_warmup=False, is_first_step=np.tile([True, False], len(played)), n_executed=4)
    asked["policy_ms"] = np.where(asked["is_first_step"], 99.0, whole)
    asked["step_ms"] = asked["policy_ms"] + 20
    asked["stage_ms prefill"] = decoder * whole
    return asked.reset_index(drop=True)


def results(*played: pd.DataFrame, timed: pd.DataFrame | None = None, **conditions: str) -> Results:
    run = {"run": "r", "plan suite": "toy@1", "protocol": "toy-1", "policy": "f", "processor": "CPU 1",
           "accelerator": "none", "began": "2026-01-02T03:04:05+00:00", "commit": "0123456789abcdef"}  # fmt: skip
    asked = pd.concat([queries(one) for one in played], ignore_index=True) if timed is None else timed
    return Results(pd.DataFrame([run | conditions]), pd.concat(played, ignore_index=True), asked)


def some() -> Results:
    """Return a winner, one that ties, one that is worse and one of too few pairs, beside full."""
    return results(
        episodes("full", 150, 10, division="exact"),
        episodes("quick:1", 150, 5),
        episodes("same", 150, 10),
        episodes("lossy", 150, 4, lost=60),
        episodes("young", 5, 5, division="trained"),
    )


def block_of(found: Results) -> Block:
    (block,) = blocks_of([Source("here", found, Evidence.SELF_REPORTED)])
    return block


@cache
def some_block() -> Block:
    return block_of(some())


def page_of(*found: Results) -> str:
    sources = [Source(f"s{number}", one, Evidence.RECOMPUTED) for number, one in enumerate(found)]
    return render(blocks_of(sources))


def test_a_row_holds_the_comparison_at_all_three_boundaries() -> None:
    rows = some_block().rows.set_index("method").to_dict("index")
    row = rows["quick:1"]
    assert (row["pairs"], row["success"], row["verdict"], row["speedup"]) == (150, 1, "wins", 2)
    assert (row["policy_ms_p50"], row["step_ms_p50"]) == (20, 40)
    assert (row["decoder_ms_p50"], row["decoder_speedup"]) == (pytest.approx(12), pytest.approx(2))
    assert row["step_speedup"] == 60 / 40
    assert np.isnan([rows["full"][name] for name in ("decoder_speedup", "step_speedup", "speedup")]).all()


def test_stages_that_a_query_skips_take_no_time_and_those_nobody_reports_are_unknown() -> None:
    full, reused, silent = episodes("full", 20, 10), episodes("reused", 20, 5), episodes("silent", 20, 5)
    asked = pd.concat([queries(full), queries(reused), queries(silent).drop(columns="stage_ms prefill")])
    asked.loc[(asked["method"] == "reused") & (asked["init_state"] > 1), "stage_ms prefill"] = np.nan
    rows = block_of(results(full, reused, silent, timed=asked)).rows.set_index("method")
    assert rows["decoder_ms_p50"].reindex(["reused", "silent"]).fillna(-1).tolist() == [0, -1]
    assert rows["decoder_speedup"].isna().all()


def test_results_without_queries_have_no_latency_and_no_stages() -> None:
    block = block_of(results(episodes("full", 9, 10), episodes("quick", 9, 5), timed=pd.DataFrame()))
    assert block.rows[["policy_ms_p50", "decoder_ms_p50", "step_ms_p50"]].isna().all(axis=None)
    assert not re.search(r"\bnan\b|<NA>|&lt;NA", render([block]))


def test_sources_are_never_compared_with_each_other() -> None:
    fast = results(episodes("full", 20, 1), episodes("quick", 20, 0.9), processor="CPU 2")
    slow = results(episodes("full", 20, 100), episodes("quick", 20, 90))
    blocks = blocks_of([Source("a", fast, Evidence.REPLAYED), Source("b", slow, Evidence.SELF_REPORTED)])
    frame = leaderboard_df(blocks)
    assert frame["device"].tolist() == ["CPU 1", "CPU 1", "CPU 2", "CPU 2"]
    assert frame["evidence"].tolist() == ["self-reported"] * 2 + ["replayed"] * 2
    assert frame.loc[frame["method"] == "quick", "speedup"].tolist() == pytest.approx([1.11, 1.11], abs=0.01)


def test_a_block_is_one_suite_and_policy_and_says_where_it_is_from() -> None:
    other = [episodes(method, 9, 5, policy="other") for method in ("full", "quick")]
    found = results(*other, episodes("full", 9, 5), accelerator="GPU 3", commit="0123456789abcdef-dirty")
    blocks = blocks_of([Source("here", found, Evidence.SELF_REPORTED)])
    assert [block.facts["policy"] for block in blocks] == ["other", "toy"]
    assert blocks[0].facts == {
        "source": "here", "suite": "toy@1", "policy": "other", "evidence": "self-reported", "device": "GPU 3",
        "protocol": "toy-1", "date": "2026-01-02", "commit": "0123456789abcdef-dirty",
    }  # fmt: skip
    assert "0123456789-dirty" in render(blocks)
    assert "uncommitted changes" in render(blocks)


def test_a_reference_alone_is_shown_without_a_rank() -> None:
    block = block_of(results(episodes("full", 9, 10)))
    (row,) = block.rows.to_dict("records")
    assert (row["success"], row["policy_ms_p50"], row["verdict"]) == (1, 40, "reference")
    assert pd.isna(row["rank"])
    assert headline(block).lead == "Only the reference was played: nothing to compare."
    assert "Only the reference was played" in render([block])


def test_the_frame_holds_columns_and_facts_and_the_data_no_number_that_is_none() -> None:
    frame = leaderboard_df([some_block()])
    assert [*frame.columns[: len(COLUMNS)]] == [*COLUMNS]
    rows = records(frame)
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    assert rows[0][:4] == [1, "quick:1", "wins", 2.0]


def plain(text: str) -> str:
    return text.replace("\N{MULTIPLICATION SIGN}", "x").replace("\N{MINUS SIGN}", "-")


def test_the_headline_says_what_is_faster_where_and_at_what_cost() -> None:
    said = headline(some_block())
    assert said.lead == (
        "1 of 4 methods is faster from observation to action and loses less than 2 points of success; 1 is undecided."
    )
    assert [plain(str(one)) for one in said.sentences] == [
        "Faster, success kept: 1: quick:1 2.00x [2.00, 2.00] as fast, success +0.0 [-2.5, +2.5] points.",
        "Faster, success lost: 1: lossy 2.50x [2.50, 2.50] as fast, success -40.0 [-48.0, -32.5] points.",
        "Not shown to be faster: 1: same as fast as full.",
        "Undecided: 1: young needs 128 more starts.",
        "Too few pairs: 1: young has 5 of at least 8 pairs.",
    ]


def test_the_headline_names_what_is_faster_at_the_decoder_only() -> None:
    full, inner = episodes("full", 150, 10), episodes("inner", 150, 10)
    asked = pd.concat([queries(full, 0.6), queries(inner, 0.3)], ignore_index=True)
    said = headline(block_of(results(full, inner, timed=asked)))
    assert said.lead == (
        "The only method is not, or not yet, shown to be faster from observation to action and to keep its success."
    )
    assert [plain(str(one)) for one in said.sentences] == [
        "Faster at the decoder only: 1: inner decoder 2.00x [2.00, 2.00] as fast, as a whole 1.00x [1.00, 1.00]."
    ]


def test_a_sentence_names_three_methods_and_counts_the_rest() -> None:
    many = [episodes(f"m{number}", 150, 9 - number) for number in range(5)]
    (sentence,) = headline(block_of(results(episodes("full", 150, 10), *many))).sentences
    assert [method for method, _ in sentence.items] == ["m4", "m3", "m2"]
    assert str(sentence).endswith("; 2 more.")
