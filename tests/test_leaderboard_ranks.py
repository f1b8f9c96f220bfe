"""Ranks: what shares one, what has none, and what no data may turn round."""

from dataclasses import replace

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st
from test_leaderboard import block_of, episodes, results, some_block

from vla_bench.compare import compare_df, pairs
from vla_bench.compare.verdict import Verdict
from vla_bench.leaderboard.blocks import ranks_of
from vla_bench.leaderboard.ranks import groups, ranks
from vla_bench.leaderboard.table import ranked
from vla_bench.tables import Results


def test_ranks_put_winners_first_then_full_then_what_is_worse() -> None:
    assert ranked(some_block()) == {
        "quick:1": "1",
        "same": "2=",
        "full": "2=",
        "lossy": "4",
        "young": "\N{EN DASH}",
    }


def test_winners_that_cannot_be_told_apart_share_a_rank() -> None:
    noisy = [episodes(name, 150, ms, noise=0.3) for name, ms in (("aa", 5.0), ("bbb", 5.1), ("cccc", 2.0))]
    found = block_of(results(episodes("full", 150, 10), *noisy))
    assert ranked(found) == {"cccc": "1", "aa": "2=", "bbb": "2=", "full": "4"}


def test_a_method_that_is_told_from_neither_neighbour_holds_them_in_one_group() -> None:
    apart = {("a", "c"), ("a", "d"), ("b", "d"), ("c", "d")}
    assert groups("abcd", lambda one, other: (one, other) in apart) == [["a", "b", "c"], ["d"]]
    assert groups("ac", lambda one, other: (one, other) in apart) == [["a"], ["c"]]
    assert groups("", lambda one, other: True) == []


def test_nothing_decided_means_no_rank_for_the_reference_either() -> None:
    assert ranks({"a": Verdict.UNDECIDED}, {}, "full", lambda *_: True) == {"a": None, "full": None}
    assert ranks({}, {}, "full", lambda *_: True) == {"full": None}


WORLDS = st.tuples(st.integers(0, 2**32 - 1), st.integers(8, 160), st.sampled_from([0.0, 0.02, 0.3]), st.integers(2, 4))


def world(seed: int, n: int, noise: float, n_methods: int) -> tuple[Results, dict[str, pd.DataFrame]]:
    """Return methods of chance, each with one that is slower on every start and solves none more."""
    rng = np.random.default_rng(seed)
    played = {"full": episodes("full", n, 10, noise=noise)}
    for number in range(n_methods):
        lost = int(rng.choice([0, 0, 0, n // 20, n // 4]))
        one = episodes(f"m{number}", n, rng.choice([3.0, 5.0, 5.05, 9.9, 10.0, 12.0]), lost)
        one["policy_ms_per_step"] *= np.exp(noise * rng.standard_normal(n))
        factor, more = rng.choice([1.001, 1.05, 1.5]), int(rng.choice([0, 0, n // 10]))
        success = one["success"] & (np.arange(n) >= lost + more)
        slower = one.assign(method=f"m{number}-", policy_ms_per_step=one["policy_ms_per_step"] * factor)
        slower = slower.assign(success=success, outcome=np.where(success, "success", "timeout"))
        played |= {f"m{number}": one, f"m{number}-": slower}
    return results(*played.values(), timed=pd.DataFrame()), played


def rank_by_method(found: Results) -> dict[str, int | None]:
    rows = compare_df(found)
    return dict(zip(rows["method"], ranks_of(rows, pairs.finished(found)), strict=True))


@settings(max_examples=15, deadline=None)
@given(WORLDS)
def test_a_method_that_is_beaten_on_every_start_never_has_the_better_rank(drawn: tuple) -> None:
    found, played = world(*drawn)
    rank = rank_by_method(found)
    for method in (name for name in played if f"{name}-" in played):
        one, beaten = rank[method], rank[f"{method}-"]
        assert one is None or beaten is None or one <= beaten


@settings(max_examples=8, deadline=None)
@given(WORLDS, st.integers(0, 2**32 - 1))
def test_ranks_do_not_depend_on_the_order_of_rows(drawn: tuple, seed: int) -> None:
    found, _ = world(*drawn)
    shuffled = replace(found, episodes=found.episodes.sample(frac=1, random_state=seed, ignore_index=True))
    assert rank_by_method(found) == rank_by_method(shuffled)


@given(st.permutations("abcdef"), st.sets(st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdef"))))
def test_groups_never_part_what_is_not_told_apart(ordered: list[str], apart: set[tuple[str, str]]) -> None:
    found = groups(ordered, lambda one, other: (one, other) in apart)
    assert [method for group in found for method in group] == list(ordered)
    for at, group in enumerate(found):
        later = [method for rest in found[at + 1 :] for method in rest]
        assert all((one, other) in apart for one in group for other in later)
