"""Estimates lie in their intervals, and intervals are those of the literature."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from scipy.stats import binom, binomtest

from vla_bench import stats
from vla_bench.stats import (
    Interval,
    clopper_pearson,
    clustered_median,
    mean,
    median,
    ratio_of_paired_medians,
    tail,
    wilson,
)

settings.register_profile("patient", deadline=None)  # the machine may be shared
settings.load_profile("patient")

TIMES = st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=60)


@st.composite
def counts(draw) -> tuple[int, int]:
    trials = draw(st.integers(1, 100_000))
    return draw(st.integers(0, trials)), trials


@given(counts())
def test_a_rate_lies_in_its_interval_and_the_interval_in_0_to_1(count: tuple[int, int]) -> None:
    interval = wilson(*count)
    assert 0 <= interval.low <= interval.value <= interval.high <= 1
    assert interval.low < interval.high


@given(counts())
def test_wilson_equals_scipys(count: tuple[int, int]) -> None:
    expected = binomtest(*count).proportion_ci(method="wilson")
    assert (wilson(*count).low, wilson(*count).high) == pytest.approx((expected.low, expected.high), abs=1e-12)


@given(counts())
def test_failures_are_successes_mirrored(count: tuple[int, int]) -> None:
    successes, trials = count
    one, other = wilson(successes, trials), wilson(trials - successes, trials)
    assert (one.low, one.high) == pytest.approx((1 - other.high, 1 - other.low), abs=1e-12)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0000, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_limits(successes: int, trials: int, low: float, high: float) -> None:
    """Newcombe 1998, Statistics in Medicine 17:857, table I, method 3."""
    interval = wilson(successes, trials)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


@given(counts())
def test_the_exact_interval_equals_scipys_and_contains_wilsons_estimate(count: tuple[int, int]) -> None:
    found, expected = clopper_pearson(*count), binomtest(*count).proportion_ci(method="exact")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert 0 <= found.low <= wilson(*count).value <= found.high <= 1


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(81, 263, 0.2527, 0.3676), (15, 148, 0.0578, 0.1617), (0, 20, 0.0000, 0.1684), (1, 29, 0.0009, 0.1776)],
)
def test_the_exact_interval_has_the_published_limits(successes: int, trials: int, low: float, high: float) -> None:
    """Newcombe 1998, Statistics in Medicine 17:857, table I, method 5."""
    interval = clopper_pearson(successes, trials)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.95])
def test_the_exact_interval_never_covers_the_true_rate_too_seldom(rate: float) -> None:
    seen = np.arange(41)
    covered = [clopper_pearson(int(n), 40).low <= rate <= clopper_pearson(int(n), 40).high for n in seen]
    assert binom.pmf(seen, 40, rate)[covered].sum() >= 0.95


def test_a_typical_libero_result() -> None:
    interval = wilson(475, 500)
    assert (interval.value, round(interval.low, 5), round(interval.high, 5)) == (0.95, 0.92723, 0.96591)


@pytest.mark.parametrize("trials", [1, 10, 50, 500])
def test_the_interval_is_not_empty_at_the_ends(trials: int) -> None:
    assert wilson(trials, trials).high == 1 > wilson(trials, trials).low
    assert wilson(0, trials).low == 0 < wilson(0, trials).high


def test_more_trials_and_less_confidence_narrow_the_interval() -> None:
    widths = [interval.high - interval.low for interval in (wilson(8, 10), wilson(80, 100), wilson(80, 100, 0.8))]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (1, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match=f"^{successes} successes of {trials} trials$"):
        wilson(successes, trials)
    with pytest.raises(ValueError, match="successes of"):
        clopper_pearson(successes, trials)


@pytest.mark.parametrize("rate", [0.5, 0.9, 0.97])
def test_wilson_covers_the_true_rate_in_about_95_percent_of_experiments(rate: float) -> None:
    drawn = np.random.default_rng(0).binomial(200, rate, 3000)
    intervals = {int(successes): wilson(int(successes), 200) for successes in set(drawn)}
    covered = np.mean([intervals[int(successes)].low <= rate <= intervals[int(successes)].high for successes in drawn])
    assert 0.93 < covered < 0.975


@given(TIMES, st.integers(0, 100))
def test_a_median_lies_in_its_interval(values: list[float], seed: int) -> None:
    interval = median(np.array(values), np.random.default_rng(seed), resamples=50)
    assert min(values) <= interval.low <= interval.value <= interval.high <= max(values)
    assert interval.value == np.median(values)


@given(st.lists(st.tuples(st.floats(1e-3, 1e6), st.floats(1e-3, 1e6)), min_size=1, max_size=60), st.integers(0, 100))
def test_a_ratio_lies_in_its_interval(pairs: list[tuple[float, float]], seed: int) -> None:
    reference, other = np.array(pairs).T
    interval = ratio_of_paired_medians(reference, other, np.random.default_rng(seed), resamples=50)
    assert interval.low <= interval.value <= interval.high


@given(TIMES)
def test_a_method_is_as_fast_as_itself(values: list[float]) -> None:
    times = np.array(values)
    assert ratio_of_paired_medians(times, times, np.random.default_rng(0), resamples=50) == Interval(1.0, 1.0, 1.0)


def test_half_the_time_is_a_speedup_of_two() -> None:
    times = np.random.default_rng(0).lognormal(size=50)
    assert ratio_of_paired_medians(times, times / 2, np.random.default_rng(0)) == Interval(2.0, 2.0, 2.0)


def ratio_to_its_mirror(values: np.ndarray, rng: np.random.Generator) -> Interval:
    return ratio_of_paired_medians(values, values[::-1] + 1, rng)


@pytest.mark.parametrize("estimate", [median, ratio_to_its_mirror])
def test_the_bootstrap_uses_the_generator_it_is_given(estimate) -> None:
    values = np.random.default_rng(7).lognormal(size=500)
    one, same, other = (estimate(values, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_the_bootstrap_draws_the_same_in_blocks_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(7).lognormal(size=500)
    at_once = median(values, np.random.default_rng(1))
    monkeypatch.setattr(stats, "BLOCK", 1300)  # two rows at a time
    assert median(values, np.random.default_rng(1)) == at_once


@pytest.mark.parametrize("n", [8, 41])
def test_the_bootstrap_covers_the_true_median_in_about_95_percent_of_experiments(n: int) -> None:
    rng = np.random.default_rng(0)
    intervals = [median(rng.lognormal(size=n), rng, resamples=200) for _ in range(500)]
    covered = np.mean([interval.low <= 1 <= interval.high for interval in intervals])
    assert 0.90 < covered < 0.99


def test_a_resample_of_few_values_is_cut_less_at_its_ends() -> None:
    assert tail(1) == 0
    assert tail(5) == pytest.approx(0.000955, abs=2e-6)  # as t of 4 degrees of freedom, 2.776, times the root of 5/4
    assert [tail(n) for n in (5, 10, 100)] == sorted(tail(n) for n in (5, 10, 100))
    assert tail(100_000) == pytest.approx(0.025, abs=1e-5)


def queries_of_like_episodes(n: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return 15 to 30 times of each of `n` episodes, whose own medians differ as much as times within one."""
    return [np.exp(rng.normal(0, 0.1) + rng.normal(0, 0.1, rng.integers(15, 30))) for _ in range(n)]


@pytest.mark.parametrize("n", [8, 20])
def test_the_interval_of_a_median_of_queries_covers_about_95_percent_from_eight_episodes_on(n: int) -> None:
    rng = np.random.default_rng(0)
    intervals = [clustered_median(queries_of_like_episodes(n, rng), rng, resamples=200) for _ in range(200)]
    assert 0.88 < np.mean([interval.low <= 1 <= interval.high for interval in intervals]) < 0.99


def test_resampling_queries_one_by_one_would_cover_far_less() -> None:
    rng = np.random.default_rng(0)
    flat = [np.concatenate(queries_of_like_episodes(8, rng)) for _ in range(100)]
    intervals = [median(values, rng, resamples=200) for values in flat]
    assert np.mean([interval.low <= 1 <= interval.high for interval in intervals]) < 0.6


@pytest.mark.parametrize(("n", "least"), [(5, 0.82), (8, 0.86), (50, 0.89)])
def test_the_interval_of_a_mean_of_skewed_values_covers_nearly_95_percent(n: int, least: float) -> None:
    rng = np.random.default_rng(0)
    intervals = [mean(rng.lognormal(0, 0.5, n), rng, resamples=300) for _ in range(300)]
    assert least < np.mean([interval.low <= np.exp(0.125) <= interval.high for interval in intervals]) < 0.985


def test_no_values_have_no_estimate() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="the median of no values"):
        median(np.array([]), rng)
    with pytest.raises(TypeCheckError, match="whilst typechecking parameter 'other'"):
        ratio_of_paired_medians(np.ones(2), np.ones(1), rng)
    with pytest.raises(ValueError, match="0 and 0 values are not pairs"):
        ratio_of_paired_medians(np.array([]), np.array([]), rng)


def test_an_estimate_outside_of_its_interval_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the estimate 2\.0 lies outside of its interval"):
        Interval(2.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="the estimate nan lies outside of its interval"):
        Interval(float("nan"), 0.0, 1.0)


def test_one_cluster_a_value_is_the_plain_bootstrap() -> None:
    values = np.random.default_rng(0).lognormal(size=30)
    alone = clustered_median([np.array([value]) for value in values], np.random.default_rng(1))
    assert alone == median(values, np.random.default_rng(1))


def test_values_that_only_repeat_within_a_cluster_add_no_precision() -> None:
    values = np.random.default_rng(0).lognormal(size=30)
    repeated = clustered_median([np.full(50, value) for value in values], np.random.default_rng(1))
    plain = median(np.repeat(values, 50), np.random.default_rng(1))
    assert repeated.high - repeated.low > 3 * (plain.high - plain.low)
