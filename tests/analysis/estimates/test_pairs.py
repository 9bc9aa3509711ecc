"""Estimators against closed forms, textbook numbers, brute force, and their own coverage."""

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gbn.analysis.estimates.pairs import (
    aa_fixed_target,
    aa_maximum,
    log_ratios,
    mean_interval,
    median_of_bounds,
    paired_difference,
    sign_test_rank,
    signs,
    smallest_ratio,
    speedup,
    t_quantile,
)
from gbn.analysis.estimates.targets import Time

INF = math.inf


def hit(value):
    return Time(value, value)


def missed(end=100.0):
    return Time(end, INF)


NEVER = Time(INF, INF)


def test_t_quantiles_are_the_tables():
    assert t_quantile(0.975, 7) == pytest.approx(2.3646, abs=1e-4)
    assert t_quantile(0.975, 1) == pytest.approx(12.7062, abs=1e-4)


def test_mean_interval_is_the_textbook_one():
    estimate = mean_interval([1.0, 2.0, 3.0, 4.0])
    half = 3.18245 * math.sqrt(5 / 3) / 2
    assert estimate.value_low == estimate.value_high == 2.5
    assert estimate.low == pytest.approx(2.5 - half, abs=1e-4)
    assert estimate.high == pytest.approx(2.5 + half, abs=1e-4)
    assert estimate.sd == pytest.approx(math.sqrt(5 / 3))


def test_one_value_has_no_interval_and_none_has_nothing():
    one = mean_interval([0.5])
    assert (one.value_low, one.n) == (0.5, 1)
    assert math.isnan(one.low)
    assert math.isnan(one.sd)
    assert mean_interval([]).n == 0
    assert speedup([], []).n == 0


def test_a_speedup_is_reference_over_arm():
    estimate = speedup([hit(50), hit(100)], [hit(100), hit(200)])
    assert estimate.value_low == pytest.approx(2)
    assert estimate.method == "paired t"
    assert speedup([hit(100)], [hit(50)]).value_low == pytest.approx(0.5)


def test_a_constant_ratio_has_no_width_however_the_seeds_spread():
    reference = [hit(10), hit(1000), hit(77)]
    estimate = speedup([hit(r.low / 1.3) for r in reference], reference)
    assert estimate.low == pytest.approx(1.3)
    assert estimate.high == pytest.approx(1.3)


times = st.floats(1, 1e4)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(times, times, st.booleans(), st.booleans()), min_size=1, max_size=9))
def test_exchanging_arm_and_reference_inverts_everything(pairs):
    arm = [missed(a) if m else hit(a) for a, _, m, _ in pairs]
    reference = [missed(r) if m else hit(r) for _, r, _, m in pairs]
    there, back = speedup(arm, reference), speedup(reference, arm)

    def inverse(value):
        return INF if value == 0 else 1 / value

    assert there.value_low == pytest.approx(inverse(back.value_high))
    assert there.value_high == pytest.approx(inverse(back.value_low))
    if not math.isnan(there.low):
        assert there.low == pytest.approx(inverse(back.high))
    assert (there.arm_misses, there.reference_misses) == (back.reference_misses, back.arm_misses)


def test_an_arm_that_misses_leaves_an_upper_bound():
    estimate = speedup([missed(100)], [hit(50)])
    assert (estimate.value_low, estimate.value_high) == (0, 0.5)
    assert estimate.method == "median"


def test_a_reference_that_misses_leaves_a_lower_bound():
    estimate = speedup([hit(50)], [missed(100)])
    assert (estimate.value_low, estimate.value_high) == (2, INF)


def test_where_both_miss_nothing_is_known():
    estimate = speedup([missed()], [missed()])
    assert (estimate.value_low, estimate.value_high) == (0, INF)
    assert (estimate.arm_misses, estimate.reference_misses) == (1, 1)


def test_a_diverged_arm_is_infinitely_slow_and_a_diverged_reference_infinitely_slower():
    assert speedup([NEVER], [hit(50)]).value_high == 0
    assert speedup([hit(50)], [NEVER]).value_low == INF


def test_one_miss_among_many_leaves_a_median():
    arm = [hit(50), hit(40), hit(100), hit(80), missed(100)]
    estimate = speedup(arm, [hit(100)] * 5)
    assert estimate.method == "median"
    assert estimate.arm_misses == 1
    # ratios 2, 2.5, 1, 1.25 and one at most 1: the median is 1.25 wherever it lies
    assert estimate.value_low == estimate.value_high == 1.25


def test_the_median_of_ratios_is_geometric_between_two():
    assert median_of_bounds([(0.5, 0.5), (2.0, 2.0)]).value_low == pytest.approx(1)


beyond = st.floats(1, 1e3)  # how far behind the end of a run its true time lies


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(times, times, st.booleans(), st.booleans(), beyond, beyond), min_size=1, max_size=9)
)
def test_bounds_hold_for_any_true_times_behind_the_misses(pairs):
    arm = [missed(a) if m else hit(a) for a, _, m, _, _, _ in pairs]
    reference = [missed(r) if k else hit(r) for _, r, _, k, _, _ in pairs]
    if not any(m or k for _, _, m, k, _, _ in pairs):
        return
    estimate = speedup(arm, reference)
    true = [(r * (y if k else 1)) / (a * (x if m else 1)) for a, r, m, k, x, y in pairs]
    median = math.exp(float(np.median(np.log(true))))
    assert estimate.value_low <= median * (1 + 1e-9)
    assert estimate.value_high >= median * (1 - 1e-9)


@pytest.mark.parametrize(("n", "rank"), [(1, 0), (5, 0), (6, 1), (8, 1), (9, 2), (20, 6)])
def test_sign_test_ranks_are_the_tables(n, rank):
    assert sign_test_rank(n) == rank


def test_the_sign_interval_covers_the_median():
    rng = random.Random(0)
    covered = 0
    for _ in range(2000):
        sample = sorted(rng.expovariate(1) for _ in range(9))
        rank = sign_test_rank(9)
        covered += sample[rank - 1] <= math.log(2) <= sample[9 - rank]
    assert 0.95 <= covered / 2000 <= 0.975  # the exact coverage is 0.961


def test_the_paired_interval_covers_the_truth():
    rng = random.Random(1)
    covered = 0
    for _ in range(1000):
        reference = [hit(math.exp(rng.gauss(5, 1))) for _ in range(8)]
        arm = [hit(r.low / 1.4 * math.exp(rng.gauss(0, 0.1))) for r in reference]
        estimate = speedup(arm, reference)
        covered += estimate.low <= 1.4 <= estimate.high
    assert 0.93 <= covered / 1000 <= 0.97


def test_paired_differences_leave_pairs_without_a_number_out():
    estimate = paired_difference([0.9, 0.8, math.nan], [0.8, 0.7, 0.6])
    assert estimate.n == 2
    assert estimate.value_low == pytest.approx(0.1)


def test_smallest_ratio_is_the_half_width_as_a_factor():
    reference, arm = [hit(100)] * 6, [hit(100 * x) for x in (0.9, 1.1, 1.0, 0.95, 1.05, 1.02)]
    estimate = speedup(arm, reference)
    assert smallest_ratio(estimate.sd, 6) == pytest.approx(estimate.high / estimate.value_low)
    assert math.isnan(smallest_ratio(0.1, 1))
    assert math.isnan(smallest_ratio(math.nan, 8))


def test_aa_for_a_fixed_target_is_centered_on_one_with_the_noise_of_two_groups():
    logs = [0.1, -0.1, 0.3, -0.3]
    estimate = aa_fixed_target([hit(math.exp(x)) for x in logs])
    half = 3.18245 * float(np.std(logs, ddof=1)) * math.sqrt(2 / 4)
    assert estimate.value_low == 1
    assert math.log(estimate.high) == pytest.approx(half, abs=1e-4)
    assert math.log(estimate.low) == pytest.approx(-half, abs=1e-4)
    assert aa_fixed_target([hit(1)]).n == 0


def test_aa_with_a_miss_is_a_median_over_ordered_pairs():
    estimate = aa_fixed_target([hit(100), hit(200), missed(300)])
    # ratios: 0.5, 2, <= 1/3, <= 2/3, >= 3, >= 1.5: the middle two are at most 2/3 and at least 1.5
    assert estimate.value_low <= 1 <= estimate.value_high
    assert estimate.arm_misses == 1
    assert math.isnan(estimate.low)


def test_aa_for_the_maximum_spans_the_rows_that_identical_arms_would_show():
    ratio = {0: 1.0, 1: 2.0, 2: 0.5}  # of run i + k to the maximum of run i
    estimate = aa_maximum([[hit(100 / ratio[(j - i) % 3]) for i in range(3)] for j in range(3)])
    assert estimate.n == 6
    assert estimate.value_low == pytest.approx(1)
    assert (estimate.low, estimate.high) == (pytest.approx(0.5), pytest.approx(2))
    assert aa_maximum([]).n == aa_maximum([[hit(1)]]).n == 0


def test_the_primary_analysis_is_scipys_paired_t_on_logarithms():
    from scipy import stats

    arm, reference = [80.0, 120.0, 95.0, 70.0, 101.0], [100.0, 140.0, 90.0, 99.0, 120.0]
    test = stats.ttest_rel(np.log(reference), np.log(arm))
    for level in (0.8, 0.95, 0.99):
        estimate = speedup([hit(x) for x in arm], [hit(x) for x in reference], level)
        interval = test.confidence_interval(level)
        assert estimate.p == pytest.approx(test.pvalue)
        assert (estimate.low, estimate.high) == pytest.approx(
            (math.exp(interval.low), math.exp(interval.high))
        )
        assert estimate.ratios[0] == (100 / 80, 100 / 80)


def test_differences_have_the_paired_ts_p():
    from scipy import stats

    arm, reference = [0.9, 0.91, 0.93, 0.88], [0.89, 0.9, 0.9, 0.88]
    assert paired_difference(arm, reference).p == pytest.approx(stats.ttest_rel(arm, reference).pvalue)
    assert math.isnan(paired_difference([0.9], [0.8]).p)


def test_where_a_run_missed_p_is_the_sign_tests():
    estimate = speedup([hit(50)] * 5 + [hit(120)], [hit(100)] * 4 + [missed(100), hit(100)])
    assert estimate.p == pytest.approx(2 * (1 + 6) / 2**6)
    assert estimate.ratios[4] == (2, INF)
    assert signs(estimate.ratios) == (5, 1)
    # two open pairs count against the verdict
    assert speedup([missed(100)] * 2 + [hit(50)] * 6, [missed(100)] * 2 + [hit(100)] * 6).p > 0.2


def test_a_stricter_level_takes_more_pairs_or_a_wider_interval():
    assert sign_test_rank(8, 0.95) == 1
    assert sign_test_rank(8, 0.995) == 0
    assert sign_test_rank(6, 1 - 2 / 2**6) == 1  # the level that it has exactly
    assert median_of_bounds([(x, x) for x in range(1, 9)], level=0.5).low == 3
    wild = speedup([hit(1), hit(1)], [hit(1e3), hit(1e-3)], 0.9999)
    assert (wild.low, wild.high) == (0, INF)  # beyond what a float holds


def test_log_ratios_of_a_miss_are_unknown():
    assert log_ratios([hit(50)], [hit(100)]) == pytest.approx([math.log(2)])
    with pytest.raises(ValueError, match="a run missed the target"):
        log_ratios([hit(50)], [missed()])


def test_an_arm_that_is_the_reference_but_for_rounding_shows_no_effect():
    reference = [hit(100.0), hit(200.0), hit(300.0)]
    arm = [hit(r.low * (1 + 1e-15)) for r in reference]
    assert speedup(arm, reference).p == 1
