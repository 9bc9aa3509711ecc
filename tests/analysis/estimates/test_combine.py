import math

import numpy as np
import pytest
from scipy import stats

from gbn.analysis.estimates.combine import Summand, sum_of_independent


def term(values, weight=1.0):
    return Summand(float(np.mean(values)), float(np.std(values, ddof=1)), len(values), weight)


def test_a_difference_is_welchs_test_as_scipy_has_it():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.3, 1, 7), rng.normal(0, 3, 19)
    ours = sum_of_independent([term(a), term(b, weight=-1)])
    theirs = stats.ttest_ind(a, b, equal_var=False)
    interval = theirs.confidence_interval(0.95)
    assert ours.degrees == pytest.approx(theirs.df)
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high))
    assert ours.value / ours.standard_error == pytest.approx(theirs.statistic)


def test_one_term_is_the_one_sample_t():
    values = [0.1, 0.4, -0.2, 0.3]
    ours = sum_of_independent([term(values)], level=0.9)
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert ours.degrees == pytest.approx(3)
    assert (ours.low, ours.high) == pytest.approx((interval.low, interval.high))


def test_a_term_without_noise_moves_the_sum_and_widens_nothing():
    noisy = term([0.1, 0.4, -0.2, 0.3])
    alone, both = sum_of_independent([noisy]), sum_of_independent([noisy, Summand(2.0, 0.0, 5)])
    assert both.value == pytest.approx(alone.value + 2)
    assert both.high - both.low == pytest.approx(alone.high - alone.low)
    assert both.degrees == pytest.approx(3)
    exact = sum_of_independent([Summand(2.0, 0.0, 5), Summand(1.0, 0.0, 2)])
    assert (exact.value, exact.low, exact.high) == (3.0, 3.0, 3.0)


def test_tiny_variances_do_not_underflow():
    tiny = sum_of_independent([Summand(0.0, 1e-150, 4), Summand(0.0, 1e-150, 4)])
    assert tiny.degrees == pytest.approx(6)
    assert tiny.low < tiny.value < tiny.high


def test_without_a_spread_there_is_no_interval():
    single = sum_of_independent([Summand(1.0, math.nan, 1), Summand(0.5, 0.1, 5)])
    assert single.value == 1.5
    assert math.isnan(single.low)
    with pytest.raises(ValueError, match="at least one term"):
        sum_of_independent([])


def test_it_covers_as_often_as_it_says():
    """Two terms of very different noise and number: 2,000 intervals, 95 % of them cover, within 3 binomial sd."""
    rng, n, true = np.random.default_rng(1), 2000, 0.5
    hits = 0
    for _ in range(n):
        found = sum_of_independent([term(rng.normal(0.3, 0.2, 5)), term(rng.normal(0.2, 0.05, 8))])
        hits += found.low <= true <= found.high
    assert abs(hits / n - 0.95) < 3 * math.sqrt(0.95 * 0.05 / n)
