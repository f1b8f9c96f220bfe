"""Paired tests give the published values, intervals cover what they say, and power is what is then found."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, norm

from vla_bench.compare.paired import (
    cochran_q,
    exact_mcnemar,
    holm,
    is_inferior,
    is_non_inferior,
    mid_p_mcnemar,
    not_told_from_best,
    score,
    score_limits,
    strata,
    stratified_difference,
    tango,
)
from vla_bench.compare.power import mid_p_power, minimum_detectable_effect, non_inferiority_power, pairs_needed
from vla_bench.stats import Interval, ratio_of_paired_medians, wilson

settings.register_profile("patient", deadline=None)  # the machine may be shared
settings.load_profile("patient")

DISCORDANT = (0.02, 0.05, 0.1, 0.2, 0.4, 0.7)
"""Shares of pairs that disagree, over which coverage is checked."""

SIDES = (-0.9, -0.5, 0.0, 0.5, 0.9)
"""Differences over which coverage is checked, as a fraction of the discordant share."""


@st.composite
def outcomes(draw) -> tuple[int, int, int]:
    n = draw(st.integers(1, 3000))
    gained = draw(st.integers(0, n))
    return gained, draw(st.integers(0, n - gained)), n


def all_outcomes(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return every pair of counts that `n` pairs may have, as two square arrays; impossible ones count no lost pair."""
    gained, lost = np.meshgrid(np.arange(n + 1), np.arange(n + 1), indexing="ij")
    return gained, np.where(gained + lost <= n, lost, 0)


def chances(n: int, difference: float, discordant: float) -> np.ndarray:
    """Return the trinomial probability of every pair of counts; 0 for impossible ones."""
    p_gained, p_lost = (discordant + difference) / 2, (discordant - difference) / 2
    gained, lost = np.arange(n + 1)[:, None], np.arange(n + 1)[None, :]
    chance = binom.pmf(gained, n, p_gained) * binom.pmf(lost, n - gained, p_lost / (1 - p_gained))
    return chance * (gained + lost <= n)


@pytest.mark.parametrize(
    ("gained", "lost", "n", "exact", "mid", "low", "high"),
    [
        (12, 3, 100, 0.035156, 0.021271, 0.01598, 0.17374),
        (25, 10, 500, 0.016674, 0.01133, 0.00720, 0.05516),
        (40, 20, 2000, 0.013489, 0.00985, 0.00249, 0.01806),
        (0, 0, 50, 1, 1, -0.07135, 0.07135),
        (5, 0, 40, 0.0625, 0.03125, 0.02643, 0.26112),
    ],
)
def test_reference_values(gained: int, lost: int, n: int, exact: float, mid: float, low: float, high: float) -> None:
    assert exact_mcnemar(gained, lost) == pytest.approx(exact, abs=5e-7)
    assert mid_p_mcnemar(gained, lost) == pytest.approx(mid, abs=5e-6)
    interval = tango(gained, lost, n)
    assert (interval.value, round(interval.low, 5), round(interval.high, 5)) == ((gained - lost) / n, low, high)


def test_the_published_example_of_mid_p() -> None:
    """Fagerland, Lydersen and Laake 2013, BMC Medical Research Methodology 13:91: 1 against 7 discordant pairs."""
    assert (round(exact_mcnemar(1, 7), 4), round(mid_p_mcnemar(1, 7), 4)) == (0.0703, 0.0391)


def test_wilson_of_a_typical_result() -> None:
    interval = wilson(475, 500)
    assert (round(interval.low, 5), round(interval.high, 5)) == (0.92723, 0.96591)


@given(outcomes())
def test_methods_swapped_are_the_same_test_and_the_mirrored_interval(counts: tuple[int, int, int]) -> None:
    gained, lost, n = counts
    assert 0 <= mid_p_mcnemar(gained, lost) <= exact_mcnemar(gained, lost) <= 1
    assert mid_p_mcnemar(gained, lost) == mid_p_mcnemar(lost, gained)
    one, other = tango(gained, lost, n), tango(lost, gained, n)
    assert -1 <= one.low <= one.value <= one.high <= 1
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-9)


@given(outcomes(), st.floats(0.001, 0.5))
def test_the_limit_and_the_score_say_the_same_of_a_margin(counts: tuple[int, int, int], margin: float) -> None:
    statistic = float(score(*counts, -margin))
    if abs(abs(statistic) - norm.ppf(0.95)) > 1e-6:
        assert is_non_inferior(*counts, margin) == (statistic > norm.ppf(0.95))
        assert is_inferior(*counts, margin) == (statistic < norm.ppf(0.05))


@given(outcomes())
def test_limits_of_arrays_are_those_of_each(counts: tuple[int, int, int]) -> None:
    low, high = score_limits(*(np.array([one, one]) for one in counts))
    assert [low[1], high[1]] == pytest.approx([tango(*counts).low, tango(*counts).high], abs=1e-12)


def test_more_pairs_narrow_the_interval_and_none_that_disagree_leave_it_open() -> None:
    widths = [tango(0, 0, n).high - tango(0, 0, n).low for n in (1, 10, 100, 1000)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] > 0
    assert tango(50, 0, 50).high == 1
    assert tango(0, 50, 50).low == -1


@pytest.mark.parametrize("n", [30, 50, 100, 200])
def test_tango_covers_95_percent_over_all_outcomes(n: int) -> None:
    low, high = score_limits(*all_outcomes(n), n)
    covered = []
    for discordant in DISCORDANT:
        for side in SIDES:
            difference = side * discordant
            within = (low <= difference + 1e-12) & (difference - 1e-12 <= high)
            covered.append((chances(n, difference, discordant) * within).sum())
    assert min(covered) > 0.94
    assert 0.95 <= np.mean(covered) < 0.98


@pytest.mark.parametrize("n", [8, 12, 30, 100, 133, 200])
def test_one_sided_limits_err_in_about_5_percent_at_the_margin(n: int) -> None:
    statistic = score(*all_outcomes(n), n, -0.02)
    for discordant in (0.02001, 0.05, 0.1, 0.3, 0.6, 0.9999):
        chance = chances(n, -0.02, discordant)
        assert (chance * (statistic > norm.ppf(0.95))).sum() < 0.09
        assert (chance * (statistic < norm.ppf(0.05))).sum() < 0.09


def test_of_fewer_than_eight_pairs_the_limits_err_too_often() -> None:
    statistic = score(*all_outcomes(3), 3, -0.02)
    assert (chances(3, -0.02, 0.9999) * (statistic < norm.ppf(0.05))).sum() > 0.12


@pytest.mark.parametrize("n", [133, 200, 500, 2000])
def test_non_inferiority_at_two_points_is_claimed_wrongly_in_at_most_7_percent(n: int) -> None:
    risks = [non_inferiority_power(n, -0.02, discordant, 0.02) for discordant in (0.02, 0.03, 0.05, 0.1, 0.3)]
    assert 0.017 < min(risks) <= max(risks) < 0.069


@pytest.mark.parametrize("n", [20, 50, 500])
def test_mid_p_keeps_its_level_over_all_outcomes(n: int) -> None:
    assert max(mid_p_power(n, 0.0, discordant) for discordant in (0.01, *DISCORDANT)) < 0.0505


@pytest.mark.parametrize("n", [20, 100, 500])
def test_wilson_covers_95_percent_over_all_outcomes(n: int) -> None:
    intervals = [wilson(successes, n) for successes in range(n + 1)]
    rates = np.linspace(0.02, 0.98, 49)
    within = np.array([[one.low <= rate <= one.high for one in intervals] for rate in rates])
    covered = (binom.pmf(np.arange(n + 1), n, rates[:, None]) * within).sum(axis=1)
    assert covered.min() > 0.86
    assert 0.945 < covered.mean() < 0.96


def test_the_stratified_bootstrap_covers_about_95_percent() -> None:
    rng = np.random.default_rng(0)
    p_gained, p_lost = np.linspace(0.02, 0.3, 10), np.linspace(0.25, 0.05, 10)
    n = np.full(10, 20)
    covered = []
    for _ in range(600):
        drawn = rng.multinomial(n, np.stack([p_gained, p_lost, 1 - p_gained - p_lost], axis=1))
        interval = stratified_difference(drawn[:, 0], drawn[:, 1], n, rng, resamples=400)
        covered.append(interval.low <= (p_gained - p_lost).mean() <= interval.high)
    assert 0.92 < np.mean(covered) < 0.975


@pytest.mark.parametrize("m", [2, 5, 8])
def test_the_stratified_bootstrap_covers_nearly_as_much_where_tasks_have_few_pairs(m: int) -> None:
    rng = np.random.default_rng(0)
    p_gained, p_lost = np.linspace(0.02, 0.3, 10), np.linspace(0.25, 0.05, 10)
    n = np.full(10, m)
    covered = []
    for _ in range(400):
        drawn = rng.multinomial(n, np.stack([p_gained, p_lost, 1 - p_gained - p_lost], axis=1))
        interval = stratified_difference(drawn[:, 0], drawn[:, 1], n, rng, resamples=400)
        covered.append(interval.low <= (p_gained - p_lost).mean() <= interval.high)
    assert 0.87 < np.mean(covered) < 0.985


def test_one_pair_a_task_leaves_the_bootstrap_an_interval() -> None:
    gained, lost = np.array([1, 0, 0, 0, 0, 0, 0, 0, 0, 0]), np.array([0, 1, 1, 1, 0, 0, 0, 0, 0, 0])
    interval = stratified_difference(gained, lost, np.ones(10, dtype=int), np.random.default_rng(0))
    assert interval.low < interval.value - 0.2 < interval.value + 0.2 < interval.high
    pooled = stratified_difference(np.array([1]), np.array([3]), np.array([10]), np.random.default_rng(0))
    assert interval == pooled


def test_tasks_of_eight_pairs_are_strata_of_their_own_and_smaller_ones_are_one() -> None:
    task = np.repeat([3, 5, 7, 9], [8, 2, 7, 9])
    assert strata(task).tolist() == [0] * 8 + [-1] * 9 + [3] * 9


def test_the_stratified_bootstrap_resamples_pairs_within_tasks() -> None:
    gained, lost, n = np.array([4, 0]), np.array([1, 6]), np.array([10, 30])  # 8 or more each
    rng = np.random.default_rng(0)
    pairs = [np.repeat([1, -1, 0], [won, less, m - won - less]) for won, less, m in zip(gained, lost, n, strict=True)]
    drawn = [sum(rng.choice(task, len(task)).sum() for task in pairs) / 40 for _ in range(8000)]
    interval = stratified_difference(gained, lost, n, np.random.default_rng(1), resamples=8000)
    assert interval.value == -3 / 40
    assert [interval.low, interval.high] == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.026)
    again = stratified_difference(gained, lost, n, np.random.default_rng(1), resamples=8000)
    assert again == interval
    assert stratified_difference(lost - lost, lost - lost, n, rng) == Interval(0.0, 0.0, 0.0)


@pytest.mark.parametrize("n", [8, 20, 133])
def test_the_interval_of_a_speed_up_covers_95_percent_from_eight_pairs_on(n: int) -> None:
    assert speed_up_coverage(n) > 0.935


def test_the_interval_of_a_speed_up_of_three_pairs_does_not() -> None:
    assert speed_up_coverage(3) < 0.85


def speed_up_coverage(n: int) -> float:
    """Return how often the interval of a true speed-up of 1.2 holds it, with starts and noise of like spread."""
    rng = np.random.default_rng(n)
    covered = []
    for _ in range(400):
        start = rng.lognormal(0, 0.1, n)
        reference, other = 1.2 * start * rng.lognormal(0, 0.1, n), start * rng.lognormal(0, 0.1, n)
        interval = ratio_of_paired_medians(reference, other, rng, resamples=300)
        covered.append(interval.low <= 1.2 <= interval.high)
    return float(np.mean(covered))


def three_classifiers() -> np.ndarray:
    """Return an example of 100 objects and 3 classifiers with accuracies of 84, 92 and 92 %.

    Source: Kuncheva 2004, Combining Pattern Classifiers, section 1.4.4, as data of mlxtend's documentation.
    """
    wrong = np.zeros((100, 3), dtype=bool)
    wrong[:16, 0] = True
    wrong[[0, 1, 2, 3, 4, 5, 20, 21], 1] = True
    wrong[[0, 1, 2, 6, 20, 21, 98, 99], 2] = True
    return ~wrong


def test_cochran_q_of_a_published_example() -> None:
    q, p = cochran_q(three_classifiers())
    assert (round(q, 4), round(p, 4)) == (7.5294, 0.0232)


def test_cochran_q_of_two_methods_is_mcnemars_statistic() -> None:
    table = three_classifiers()[:, :2]
    gained, lost = (table[:, 0] & ~table[:, 1]).sum(), (table[:, 1] & ~table[:, 0]).sum()
    assert cochran_q(table)[0] == pytest.approx((gained - lost) ** 2 / (gained + lost))
    assert cochran_q(np.ones((5, 3))) == (0.0, 1.0)
    with pytest.raises(ValueError, match=r"successes of shape \(5, 1\); expected"):
        cochran_q(np.ones((5, 1)))


def test_cochran_q_keeps_its_level() -> None:
    rng = np.random.default_rng(0)
    difficulty = rng.uniform(0.2, 1, (1500, 80, 1))
    rejected = [cochran_q(table)[1] <= 0.05 for table in rng.random((1500, 80, 4)) < difficulty]
    assert 0.035 < np.mean(rejected) < 0.065


def test_holm_of_a_worked_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert len(holm([])) == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_what_its_step_down_procedure_rejects(p_values: list[float]) -> None:
    adjusted = holm(p_values)
    assert all(p <= one <= min(1, len(p_values) * p) + 1e-12 for p, one in zip(p_values, adjusted, strict=True))
    rejected, order = set(), sorted(range(len(p_values)), key=p_values.__getitem__)
    for step, index in enumerate(order):
        if p_values[index] * (len(order) - step) > 0.05:
            break
        rejected.add(index)
    assert {index for index, one in enumerate(adjusted) if one <= 0.05} == rejected


def test_the_truly_best_is_left_out_of_the_best_in_at_most_5_percent() -> None:
    rng = np.random.default_rng(0)
    kept = np.array([not_told_from_best(rng.random((200, 4)) < [0.9, 0.9, 0.9, 0.6]) for _ in range(300)])
    assert kept[:, :3].all(axis=1).mean() >= 0.95
    assert kept[:, 3].mean() < 0.05


def test_methods_that_agree_are_all_among_the_best() -> None:
    assert not_told_from_best(np.zeros((0, 3))).tolist() == [True, True, True]
    assert not_told_from_best(np.ones((50, 1))).tolist() == [True]
    table = np.stack([np.ones(30), np.zeros(30)], axis=1)
    assert not_told_from_best(table).tolist() == [True, False]


def test_power_of_a_typical_plan() -> None:
    assert round(mid_p_power(500, -0.02, 0.06), 3) == 0.435
    assert mid_p_power(500, 0.02, 0.06) == pytest.approx(mid_p_power(500, -0.02, 0.06))


def test_powers_are_sums_over_all_outcomes() -> None:
    n, difference, discordant = 60, -0.15, 0.25
    chance, (gained, lost) = chances(n, difference, discordant), all_outcomes(n)
    found = np.vectorize(mid_p_mcnemar)(gained, lost) <= 0.05
    assert mid_p_power(n, difference, discordant) == pytest.approx((chance * found).sum(), abs=1e-7)
    shown = score(gained, lost, n, -0.1) > norm.ppf(0.95)
    assert non_inferiority_power(n, difference, discordant, 0.1) == pytest.approx((chance * shown).sum(), abs=1e-7)
    assert mid_p_power(n, 0.0, 0.0) == 0


@pytest.mark.parametrize("n", [20, 100, 500])
@pytest.mark.parametrize("discordant", [0.0, 0.05, 0.3])
def test_the_minimum_detectable_effect_is_detected_and_a_smaller_one_is_not(n: int, discordant: float) -> None:
    effect = minimum_detectable_effect(n, discordant)
    assert mid_p_power(n, effect, max(effect, discordant)) == pytest.approx(0.8, abs=1e-6)
    assert mid_p_power(n, 0.97 * effect, max(0.97 * effect, discordant)) < 0.8


def test_too_few_pairs_detect_nothing() -> None:
    assert np.isnan(minimum_detectable_effect(4, 0.1))
    assert np.isnan(minimum_detectable_effect(20, 0.1, most=0.2))


@pytest.mark.parametrize(("difference", "discordant"), [(0.0, 0.1), (0.01, 0.05), (-0.01, 0.04), (0.0, 0.4)])
def test_the_pairs_needed_show_non_inferiority_with_80_percent(difference: float, discordant: float) -> None:
    n = int(pairs_needed(difference, discordant, 0.02))
    assert non_inferiority_power(n, difference, discordant, 0.02) == pytest.approx(0.8, abs=0.035)


def test_the_pairs_needed_show_inferiority_with_80_percent() -> None:
    n = int(pairs_needed(-0.12, 0.2, 0.02))
    statistic = score(*all_outcomes(n), n, -0.02)
    assert (chances(n, -0.12, 0.2) * (statistic < norm.ppf(0.05))).sum() == pytest.approx(0.8, abs=0.035)


def test_two_points_take_133_pairs_even_if_nothing_differs_and_for_ever_on_the_margin() -> None:
    assert pairs_needed(0.0, 0.0, 0.02) == 133
    assert is_non_inferior(0, 0, 133, 0.02)
    assert not is_non_inferior(0, 0, 132, 0.02)
    assert pairs_needed(-0.02, 0.1, 0.02) == np.inf


def test_impossible_counts_and_shares_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^-1 gained and 2 lost$"):
        mid_p_mcnemar(-1, 2)
    with pytest.raises(ValueError, match=r"^3 gained and 2 lost of 4 pairs$"):
        tango(3, 2, 4)
    with pytest.raises(ValueError, match=r"^0 gained and 0 lost of 0 pairs$"):
        tango(0, 0, 0)
    with pytest.raises(ValueError, match="the difference of no pairs"):
        stratified_difference(np.array([]), np.array([]), np.array([]), np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"a difference of -0\.2 with a share of 0\.1 of discordant pairs"):
        mid_p_power(100, -0.2, 0.1)
