"""Bootstrap and permutation against scipy's own, and against counting by hand."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from gbn.analysis.estimates import resampling
from gbn.analysis.estimates.decisions import smallest_p


def sample(n, kind="exponential"):
    rng = np.random.default_rng(n)
    return (getattr(rng, kind)(size=n) * 0.2 - 0.1).tolist()


@pytest.mark.parametrize("n", [8, 20])
@pytest.mark.parametrize("method", ["percentile", "BCa"])
def test_bootstrap_intervals_are_scipys(n, method):
    x = sample(n)
    found = resampling.bootstrap(x, resamples=40_000)
    expected = stats.bootstrap((x,), np.mean, n_resamples=40_000, method=method, rng=1).confidence_interval
    ours = found.percentile if method == "percentile" else found.bca
    # the ends of two bootstraps differ by their own Monte Carlo error, far less than the interval's width
    tolerance = 0.02 * (expected.high - expected.low)
    assert math.log(ours[0]) == pytest.approx(expected.low, abs=tolerance)
    assert math.log(ours[1]) == pytest.approx(expected.high, abs=tolerance)


def test_bootstrap_is_the_same_every_time_and_follows_its_level():
    x = sample(8)
    assert resampling.bootstrap(x) == resampling.bootstrap(x)
    assert resampling.bootstrap(x) != resampling.bootstrap(x, seed=1)
    wide, narrow = resampling.bootstrap(x, level=0.99), resampling.bootstrap(x, level=0.8)
    for outer, inner in ((wide.percentile, narrow.percentile), (wide.bca, narrow.bca)):
        assert outer[0] < inner[0] < inner[1] < outer[1]


def test_bootstrap_of_the_inverse_is_the_inverse():
    x = sample(9)
    there, back = resampling.bootstrap(x), resampling.bootstrap([-value for value in x])
    assert there.percentile[0] == pytest.approx(1 / back.percentile[1])
    assert there.bca[1] == pytest.approx(1 / back.bca[0], rel=1e-6)


def test_bootstrap_of_too_little():
    assert math.isnan(resampling.bootstrap([0.1]).percentile[0])
    assert math.isnan(resampling.bootstrap([]).bca[1])
    same = resampling.bootstrap([0.1, 0.1, 0.1])
    assert same.percentile == same.bca == pytest.approx((math.exp(0.1),) * 2)


@pytest.mark.parametrize(
    "x", [[0.3, -0.1, 0.2], [0.1, 0.1, 0.1, 0.1], [0.5, -0.5], sample(7, "standard_normal")]
)
def test_sign_flips_are_counted(x):
    sums = [
        abs(sum(s * v for s, v in zip(signs, x, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(x))
    ]
    expected = sum(s >= abs(sum(x)) - 1e-12 for s in sums) / len(sums)
    assert resampling.sign_flip(x) == pytest.approx(expected)


def test_sign_flips_are_scipys():
    x = sample(8, "standard_normal")
    expected = stats.permutation_test((x,), np.sum, permutation_type="samples", n_resamples=np.inf).pvalue
    assert resampling.sign_flip(x) == pytest.approx(expected)


def test_many_pairs_are_sampled():
    x = sample(14, "standard_normal")
    assert resampling.sign_flip(x, exact_up_to=5, draws=40_000) == pytest.approx(
        resampling.sign_flip(x), abs=0.01
    )
    long = sample(40, "standard_normal")
    assert resampling.sign_flip(long) == resampling.sign_flip(long)
    assert resampling.sign_flip([1.0] * 30) == pytest.approx(1 / (resampling.DRAWS + 1))


def test_the_smallest_p_is_reached_and_never_passed():
    assert resampling.sign_flip([0.1, 0.2, 0.3, 0.4, 0.5]) == smallest_p(5) == 0.0625
    assert resampling.sign_flip([0.0, 0.0]) == 1
    assert math.isnan(resampling.sign_flip([]))
