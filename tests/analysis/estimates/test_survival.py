"""Kaplan-Meier and restricted means against scipy, lifelines, and what complete data give by hand."""

import math

import numpy as np
import pytest
from scipy import stats

from gbn.analysis.estimates import survival
from gbn.analysis.estimates.targets import Time

INF = math.inf
NEVER = Time(INF, INF)


def hit(value):
    return Time(float(value), float(value))


def missed(end):
    return Time(float(end), INF)


def drawn(n, seed, end=1.2):
    rng = np.random.default_rng(seed)
    # rounded, so that there are ties between events and between events and censorings
    times, ends = rng.exponential(size=n).round(1) + 0.1, rng.uniform(0.3, end, n).round(1)
    return [hit(t) if t <= e else missed(e) for t, e in zip(times, ends, strict=True)]


@pytest.fixture(scope="module")
def lifelines():
    return pytest.importorskip("lifelines")


def fitted(lifelines, times, level=0.95):
    fitter = lifelines.KaplanMeierFitter(alpha=1 - level)
    return fitter.fit([t.low for t in times], [t.reached for t in times])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("level", [0.95, 0.8])
def test_curve_and_interval_are_lifelines(lifelines, seed, level):
    times = drawn(12, seed)
    curve, other = survival.kaplan_meier(times, level), fitted(lifelines, times, level)
    np.testing.assert_allclose(curve.survival, other.survival_function_at_times(curve.time), rtol=1e-12)
    interval = other.confidence_interval_.loc[curve.time].to_numpy()
    inside = (curve.survival > 0) & (curve.survival < 1)
    np.testing.assert_allclose(curve.low[inside], interval[inside, 0], rtol=1e-6)
    np.testing.assert_allclose(curve.high[inside], interval[inside, 1], rtol=1e-6)
    assert np.isnan(curve.low[~inside]).all()


@pytest.mark.parametrize("seed", range(5))
def test_curve_is_scipys(seed):
    times = drawn(15, seed)
    data = stats.CensoredData(
        uncensored=[t.low for t in times if t.reached], right=[t.low for t in times if not t.reached]
    )
    sf = stats.ecdf(data).sf
    curve = survival.kaplan_meier(times)
    np.testing.assert_allclose(curve.time, sf.quantiles)
    np.testing.assert_allclose(curve.survival, sf.probabilities)
    assert [curve.at(t) for t in curve.time] == curve.survival.tolist()
    assert curve.at(0.0) == 1


@pytest.mark.parametrize("seed", range(5))
def test_the_median_and_its_interval_are_lifelines(lifelines, seed):
    from lifelines.utils import median_survival_times

    times = drawn(30, seed, end=4)
    curve, other = survival.kaplan_meier(times), fitted(lifelines, times)
    assert curve.median == other.median_survival_time_
    low, high = median_survival_times(other.confidence_interval_).to_numpy()[0]
    assert curve.median_interval == (low, high if math.isfinite(high) else None)


def test_a_median_that_is_not_reached_is_none():
    curve = survival.kaplan_meier([hit(1), missed(3), missed(3), missed(3)])
    assert curve.median is None
    assert curve.median_interval[1] is None
    assert (curve.n, curve.misses, curve.never) == (4, 3, 0)


def test_a_diverged_run_stays_at_risk_to_the_end():
    # dropped, it would leave 1 of 2 at time 1 and the curve would come down to 0
    curve = survival.kaplan_meier([hit(1), hit(2), NEVER])
    assert curve.survival.tolist() == pytest.approx([2 / 3, 1 / 3])
    assert curve.follow_up == INF
    all_of_them = survival.kaplan_meier([NEVER, NEVER])
    assert (all_of_them.median, all_of_them.at(1e9), all_of_them.follow_up) == (None, 1, INF)
    assert survival.restricted_mean([NEVER, NEVER], 50.0) == survival.RestrictedMean(50.0, 0.0, 50.0)


def test_one_run():
    assert survival.kaplan_meier([hit(5)]).median == 5
    assert survival.kaplan_meier([missed(5)]).median is None
    with pytest.raises(ValueError, match="at least one run"):
        survival.kaplan_meier([])


@pytest.mark.parametrize("seed", range(4))
def test_the_restricted_mean_is_lifelines(lifelines, seed):
    from lifelines.utils import restricted_mean_survival_time

    times = drawn(20, seed)
    found = survival.restricted_mean(times, 0.8)
    assert found.value == pytest.approx(restricted_mean_survival_time(fitted(lifelines, times), t=0.8))


def test_complete_data_give_the_mean_of_what_was_watched():
    times, horizon = [hit(2), hit(3), hit(7), missed(10), NEVER], 8.0
    watched = np.array([2, 3, 7, 8, 8])
    found = survival.restricted_mean(times, horizon)
    assert found.value == pytest.approx(watched.mean())
    assert found.standard_error == pytest.approx(watched.std() / math.sqrt(5))
    np.testing.assert_allclose(survival.pseudo_values(times, horizon), watched)


def test_the_standard_error_is_what_repetition_shows():
    rng, values, errors = np.random.default_rng(0), [], []
    for _ in range(800):
        times, ends = rng.exponential(1, 40), rng.uniform(0.8, 3, 40)
        sample = [hit(t) if t <= e else missed(e) for t, e in zip(times, ends, strict=True)]
        one = (
            survival.restricted_mean(sample, 0.9) if survival.kaplan_meier(sample).follow_up >= 0.9 else None
        )
        if one:
            values.append(one.value)
            errors.append(one.standard_error)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.08)
    assert np.mean(values) == pytest.approx(1 - math.exp(-0.9), rel=0.015)


def test_a_horizon_beyond_what_is_known_is_refused():
    times = [hit(1), missed(3)]
    with pytest.raises(ValueError, match="horizon=5: must be positive and at most 3"):
        survival.restricted_mean(times, 5)
    with pytest.raises(ValueError, match="horizon=0"):
        survival.restricted_mean(times, 0)
    assert survival.restricted_mean([hit(1), hit(3)], 5).value == 2  # all are there: nothing is unknown


def test_the_common_horizon_is_the_first_end_of_a_run():
    assert survival.common_horizon([hit(1), missed(9)], [missed(7), NEVER]) == 7
    assert survival.common_horizon([hit(1), hit(4)], [hit(3), NEVER]) == 4
    assert math.isnan(survival.common_horizon([NEVER]))


def test_the_difference_of_restricted_means_is_paired():
    reference = [hit(10), hit(40), hit(90), missed(100)]
    arm = [hit(8), hit(38), hit(88), hit(98)]
    found = survival.restricted_mean_difference(arm, reference, 100.0)
    assert found.value_low == pytest.approx(-2)
    assert found.high == pytest.approx(-2)  # each pair differs by 2, however the seeds spread
    assert (found.n, found.arm_misses, found.reference_misses, found.method) == (4, 0, 1, "restricted mean")
    assert survival.restricted_mean_difference(arm[:1], reference[:1], 100.0).n == 0
    with pytest.raises(ValueError, match="4 and 3 times"):
        survival.restricted_mean_difference(arm, reference[:3], 100.0)


def test_the_difference_covers_the_truth():
    rng, covered = np.random.default_rng(3), 0
    true = (1 - math.exp(-1.3)) / 1.3 - (1 - math.exp(-1))  # E min(T, 1) at rates 1.3 and 1
    for _ in range(300):
        reference = rng.exponential(1, 10)
        arm = rng.exponential(1 / 1.3, 10)
        both = [[hit(t) if t <= 1 else missed(1) for t in own] for own in (arm, reference)]
        found = survival.restricted_mean_difference(*both, 1.0)
        covered += found.low <= true <= found.high
    assert 0.92 <= covered / 300 <= 0.98
