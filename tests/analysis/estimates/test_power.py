"""Power against published tables, against simulation, and what the advice says where nothing can be told."""

import math
from dataclasses import replace

import numpy as np
import pytest

from gbn.analysis.estimates import power
from gbn.analysis.estimates.decisions import p_of_signs
from gbn.analysis.estimates.estimate import Estimate
from gbn.analysis.estimates.pairs import mean_interval, median_of_bounds


@pytest.mark.parametrize(("effect", "n"), [(0.2, 199), (0.5, 34), (0.8, 15), (1.0, 10)])
def test_sample_sizes_are_the_published_ones(effect, n):
    # Cohen's effect sizes, paired t test, two-sided 5 %, power 80 %: G*Power's manual
    assert power.seeds_needed(1.0, math.exp(effect)) == n


def test_power_is_what_simulated_pairs_show():
    rng, n = np.random.default_rng(0), 7
    samples = rng.normal(math.log(1.3), 0.2, (4000, n))
    t = samples.mean(axis=1) / samples.std(axis=1, ddof=1) * math.sqrt(n)
    found = float(np.mean(np.abs(t) > 2.4469))
    assert power.power(n, 0.2, 1.3) == pytest.approx(found, abs=3 * math.sqrt(0.25 / 4000))


def test_power_is_symmetric_in_the_logarithm_and_is_the_error_rate_at_one():
    assert power.power(8, 0.2, 1.3) == pytest.approx(power.power(8, 0.2, 1 / 1.3))
    assert power.power(8, 0.2, 1.0) == pytest.approx(0.05)
    assert power.power(8, 0.2, 1.0, tests=10) == pytest.approx(0.005)
    assert power.power(8, 0.0, 1.01) == 1
    assert power.power(50, 0.001, 10.0) == 1  # far beyond where the distribution function underflows


@pytest.mark.parametrize("n", [3, 8, 40])
@pytest.mark.parametrize("tests", [1, 10])
def test_the_smallest_effect_needs_just_these_seeds(n, tests):
    ratio = power.smallest_effect(n, 0.2, tests=tests)
    assert power.power(n, 0.2, ratio, tests=tests) == pytest.approx(0.8, abs=1e-6)
    assert power.seeds_needed(0.2, ratio * 1.0001, tests=tests) == n
    assert power.smallest_effect(n, 0.0) == 1


def test_more_tests_a_smaller_effect_and_more_power_need_more_seeds():
    base = power.seeds_needed(0.2, 1.2)
    assert base < power.seeds_needed(0.2, 1.2, tests=10)
    assert base < power.seeds_needed(0.2, 1.1)
    assert base < power.seeds_needed(0.2, 1.2, power=0.95)
    assert base < power.seeds_needed(0.3, 1.2)
    assert power.seeds_needed(0.2, 1.0) == 1_000_000
    assert power.seeds_needed(0.0, 1.2) == 2


def test_the_upper_limit_of_a_standard_deviation_covers_as_often_as_it_says():
    rng = np.random.default_rng(1)
    sds = rng.standard_normal((4000, 5)).std(axis=1, ddof=1)
    factor = power.sd_upper(1.0, 5)
    assert factor == pytest.approx(1.557, abs=1e-3)  # sqrt(4 / 1.6488), chi-squared's 20 % quantile
    assert float(np.mean(sds * factor >= 1)) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("share", [0.7, 0.9])
def test_seeds_for_signs_have_that_power_and_one_fewer_has_not(share):
    def power_of(n):
        return sum(
            math.comb(n, k) * share**k * (1 - share) ** (n - k)
            for k in range(n // 2 + 1, n + 1)
            if p_of_signs(k, n - k, n) <= 0.05
        )

    n = power.seeds_for_signs(share)
    assert power_of(n) >= 0.8
    assert all(power_of(fewer) < 0.8 for fewer in range(1, n))
    assert power.seeds_for_signs(1 - share) == n


def test_where_all_pairs_agree_the_sign_test_needs_its_smallest_p():
    assert power.seeds_for_signs(1.0) == 6
    assert power.seeds_for_signs(1.0, tests=10) == 9
    assert power.seeds_for_signs(0.5) == 1_000_000
    assert power.share_of_signs(5, 0) == pytest.approx(6 / 7)


def speedup(logs):
    mean = mean_interval(logs)
    ratio = math.exp(mean.value_low)
    return Estimate(ratio, ratio, 0.0, 9.0, mean.n, "paired t", mean.sd)


def test_advice_names_the_seeds_and_what_more_noise_would_need():
    given = speedup([0.3, -0.1, 0.2, 0.15, 0.05])
    needed = power.seeds_needed(given.sd, given.value_low)
    worst = power.seeds_needed(power.sd_upper(given.sd, 5), given.value_low)
    assert 5 < needed < worst
    assert power.advice(given) == f"inconclusive at n = 5, about {needed} to {worst} seeds would decide"


def with_misses(above, below, n):
    """A median over n pairs, of which so many are known to lie above and below 1."""
    ratios = [(1.5, math.inf)] * above + [(0.0, 0.5)] * below + [(0.0, math.inf)] * (n - above - below)
    return replace(median_of_bounds(ratios), ratios=tuple(ratios))


def test_advice_is_honest_about_an_effect_near_nothing():
    assert power.advice(speedup([0.2, -0.2, 0.1, -0.1, 0.001])) == (
        "inconclusive at n = 5, more than 1,000 seeds would decide a ratio so near 1"
    )
    assert power.advice(with_misses(0, 0, 4)) == "inconclusive at n = 4: misses leave every pair open"
    assert power.advice(with_misses(4, 1, 5)) == (
        f"inconclusive at n = 5, about {power.seeds_for_signs(5 / 7)} seeds would decide by the sign test"
    )
    assert power.advice(with_misses(3, 3, 6)) == ("inconclusive at n = 6, more than 1,000 seeds would decide")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sd_of_log_ratio": math.nan, "ratio": 1.2}, "sd_of_log_ratio=nan"),
        ({"sd_of_log_ratio": 0.1, "ratio": 0.0}, "ratio=0.0"),
        ({"sd_of_log_ratio": 0.1, "ratio": 1.2, "tests": 0}, "tests=0"),
        ({"sd_of_log_ratio": 0.1, "ratio": 1.2, "power": 80}, "power=80"),
    ],
)
def test_what_cannot_be_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        power.seeds_needed(**arguments)
    with pytest.raises(ValueError, match="n=1"):
        power.power(1, 0.1, 1.2)
    with pytest.raises(ValueError, match="share=2"):
        power.seeds_for_signs(2)
