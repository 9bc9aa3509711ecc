"""p values against scipy's, Holm against its own definition and textbook numbers."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from gbn.analysis.estimates import decisions
from gbn.analysis.estimates.estimate import Estimate
from gbn.analysis.estimates.pairs import median_of_bounds

NAN = math.nan


@pytest.mark.parametrize("sample", [[0.1, 0.3, -0.05], [0.2, 0.21], [-1.0, -2.0, -1.5, -0.2, 3.0]])
def test_p_of_t_is_scipys(sample):
    expected = stats.ttest_1samp(sample, 0).pvalue
    mean, sd = sum(sample) / len(sample), float(stats.tstd(sample))
    assert decisions.p_of_t(mean, sd, len(sample)) == pytest.approx(expected, rel=1e-9)


def test_p_of_t_where_there_is_nothing_to_test_or_no_noise():
    assert math.isnan(decisions.p_of_t(0.1, NAN, 1))
    assert math.isnan(decisions.p_of_t(NAN, 0.1, 5))
    assert decisions.p_of_t(0.2, 0.0, 3) == 0
    # one computation under two names differs by rounding, always the same way: that is no effect
    assert decisions.p_of_t(1e-15, 1e-17, 8) == 1


@pytest.mark.parametrize(("above", "n"), [(0, 5), (8, 8), (7, 8), (5, 10), (3, 4), (15, 20)])
def test_p_of_signs_is_scipys(above, n):
    assert decisions.p_of_signs(above, n - above, n) == pytest.approx(stats.binomtest(above, n).pvalue)


def test_what_is_open_counts_against_either_side():
    # of 8 pairs 6 are above and 2 are open: as if these were below
    assert decisions.p_of_signs(6, 0, 8) == decisions.p_of_signs(6, 2, 8)
    assert decisions.p_of_signs(0, 0, 8) == 1
    assert math.isnan(decisions.p_of_signs(0, 0, 0))
    with pytest.raises(ValueError, match="above=3, below=3: counts of n=5"):
        decisions.p_of_signs(3, 3, 5)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0.2, 5), min_size=1, max_size=14), st.sampled_from([0.9, 0.95, 0.99]))
def test_the_sign_tests_interval_excludes_one_exactly_where_its_p_is_small(ratios, level):
    estimate = median_of_bounds([(x, x) for x in ratios], level=level)
    excludes = estimate.low > 1 or estimate.high < 1
    p = decisions.p_of_signs(sum(x > 1 for x in ratios), sum(x < 1 for x in ratios), len(ratios))
    assert excludes == (p <= 1 - level + 1e-9)


def test_the_smallest_p_is_two_over_two_to_the_n():
    assert decisions.smallest_p(5) == 0.0625
    assert decisions.smallest_p(8) == decisions.p_of_signs(8, 0, 8)
    assert math.isnan(decisions.smallest_p(0))


def test_holm_on_textbook_numbers():
    # Holm's method worked by hand: 4 x 0.005, 3 x 0.01, 2 x 0.03, then monotone
    assert decisions.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert decisions.holm([]) == []
    assert decisions.holm([0.7, 0.9]) == [1, 1]


def test_a_comparison_without_a_test_counts_in_the_family():
    adjusted = decisions.holm([0.02, NAN])
    assert adjusted[0] == pytest.approx(0.04)
    assert math.isnan(adjusted[1])
    assert decisions.holm_levels([0.02, NAN])[0] == pytest.approx(0.975)


def by_definition(p, alpha):
    """Step down: reject in order of p while p <= alpha / (tests left)."""
    rejected = set()
    for index in sorted(range(len(p)), key=lambda i: p[i]):
        if p[index] > alpha / (len(p) - len(rejected)):
            break
        rejected.add(index)
    return rejected


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 0.2), min_size=1, max_size=9))
def test_adjusted_p_and_levels_decide_what_stepping_down_decides(p):
    rejected = by_definition(p, 0.05)
    near = any(abs(x - 0.05 / k) < 1e-9 for x in p for k in range(1, len(p) + 1))
    if near:  # either side of a boundary is right within rounding
        return
    assert {i for i, value in enumerate(decisions.holm(p)) if value <= 0.05} == rejected
    assert {i for i, level in enumerate(decisions.holm_levels(p)) if p[i] <= 1 - level} == rejected


def test_holm_never_decides_more_than_each_test_alone_nor_less_than_bonferroni():
    rng = random.Random(0)
    for _ in range(200):
        p = [rng.random() ** 3 for _ in range(6)]
        for raw, adjusted in zip(p, decisions.holm(p), strict=True):
            assert raw <= adjusted <= min(1, 6 * raw) + 1e-12


def test_an_alpha_that_is_none():
    with pytest.raises(ValueError, match=r"alpha=95"):
        decisions.holm_levels([0.1], 95)


@pytest.mark.parametrize(("tests", "pairs"), [(1, 6), (2, 7), (8, 9), (10, 9), (20, 10)])
def test_how_many_pairs_a_sign_test_needs(tests, pairs):
    assert decisions.pairs_for_signs(tests) == pairs
    assert decisions.smallest_p(pairs) <= 0.05 / tests < decisions.smallest_p(pairs - 1)
    with pytest.raises(ValueError, match="tests=0"):
        decisions.pairs_for_signs(0)


@pytest.mark.parametrize(
    ("n", "tests", "says"),
    [
        (
            5,
            8,
            "they can decide nothing here (6 pairs are needed to decide one comparison, 9 to decide the",
        ),
        (8, 8, "they can decide a comparison alone but none after Holm over 8"),
        (9, 8, "2/2^9 = 0.0039; they can decide after Holm over 8"),
        (6, 1, "they can decide (6 pairs are needed to decide one comparison)."),
    ],
)
def test_reach(n, tests, says):
    assert says in decisions.reach(n, tests)
    assert decisions.reach(n, tests).startswith(f"{n} pairs: the smallest p")


def estimate(value, low, high, p, p_holm=NAN, holm=(NAN, NAN)):
    return Estimate(value, value, low, high, 8, "paired t", 0.1, 0, 0, p, p_holm, *holm)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (estimate(1.3, 1.1, 1.5, 0.004), "faster"),
        (estimate(0.8, 0.7, 0.9, 0.004), "slower"),
        (estimate(1.3, 1.1, 1.5, 0.004, 0.08, (0.97, 1.7)), "inconclusive"),
        (estimate(1.3, 1.1, 1.5, 0.004, 0.03, (1.05, 1.6)), "faster"),
        (estimate(1.01, 0.98, 1.03, 0.4), "equal within 5 %"),
        (estimate(1.01, 0.98, 1.03, 0.4, 1.0, (0.94, 1.08)), "inconclusive"),
        (estimate(1.01, NAN, NAN, NAN), "inconclusive"),
    ],
)
def test_decisions(given, says):
    assert decisions.decision(given) == says
