"""What is printed: never a bound as a number, never a number without its uncertainty where there is one."""

import dataclasses
import math

import pytest

from gbn.analysis.estimates.estimate import NOTHING, Estimate
from gbn.analysis.tables import numbers

NAN, INF = math.nan, math.inf


def estimate(low, high=None, ci=(NAN, NAN), n=8, sd=NAN):
    return Estimate(low, low if high is None else high, *ci, n, "x", sd)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (estimate(1.234, ci=(1.1, 1.366)), "1.23 [1.10, 1.37]"),
        (estimate(1.234, n=1), "1.23"),
        (estimate(12.34), "12.3"),
        (estimate(1.5, INF), ">= 1.50"),
        (estimate(0, 0.7), "<= 0.70"),
        (estimate(0, 0.7, ci=(0, 0.9)), "<= 0.70 [0, 0.90]"),
        (estimate(1.1, INF, ci=(0.9, INF)), ">= 1.10 [0.90, inf]"),
        (estimate(0.95, 0.98), "0.95 to 0.98"),
        (estimate(0, INF), "?"),
        (estimate(0), "0 (never reached)"),
        (estimate(INF), "inf"),
        (NOTHING, "-"),
    ],
)
def test_ratios(given, text):
    assert numbers.ratio(given) == text


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (estimate(0.0031, ci=(-0.001, 0.0072)), "+0.31 [-0.10, +0.72]"),
        (estimate(-0.00001), "+0.00"),
        (NOTHING, "-"),
    ],
)
def test_differences_are_signed_points(given, text):
    assert numbers.difference(given) == text


def test_accuracies_are_per_cent_with_their_spread():
    assert numbers.value(estimate(0.98123, sd=0.00214)) == "98.12 ± 0.21"
    assert numbers.value(estimate(0.98123, n=1)) == "98.12"
    assert numbers.value(NOTHING) == "-"


@pytest.mark.parametrize(
    ("given", "unit", "text"),
    [
        (estimate(1234.4), "updates", "1,234"),
        (estimate(3.14159), "seconds", "3.14 s"),
        (estimate(2000, INF), "updates", "> 2,000"),
        (estimate(INF, INF), "updates", "never"),
        (NOTHING, "updates", "-"),
    ],
)
def test_durations(given, unit, text):
    assert numbers.duration(given, unit) == text


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (estimate(2.0), "+50 %"),
        (estimate(0.5), "-100 %"),
        (estimate(0, 0.8), "<= -25 %"),
        (estimate(2.0, INF), ">= +50 %"),
        (estimate(0), "never reached"),
        (NOTHING, "-"),
    ],
)
def test_savings_follow_the_speedup(given, text):
    assert numbers.saving(given) == text


def test_a_star_marks_what_stands_after_the_correction():
    given = dataclasses.replace(estimate(1.234, ci=(1.1, 1.366)), p=0.001, p_holm=0.02)
    assert numbers.ratio(given) == "1.23 [1.10, 1.37]*"
    assert numbers.ratio(dataclasses.replace(given, p_holm=0.06)) == "1.23 [1.10, 1.37]"
    points = dataclasses.replace(estimate(0.0031, ci=(0.001, 0.0052)), p=0.001, p_holm=0.05)
    assert numbers.difference(points) == "+0.31 [+0.10, +0.52]*"


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.5, "0.50"), (0.0346, "0.035"), (0.0009, "< 0.001"), (1.0, "1.00"), (0.0, "< 0.001"), (NAN, "-")],
)
def test_p_values(p, text):
    assert numbers.p_value(p) == text


def test_intervals_and_changes():
    assert numbers.interval(1.1, 1.366) == "[1.10, 1.37]"
    assert numbers.interval(NAN, NAN) == "-"
    change = estimate(-12.4, ci=(-20.1, -4.6))
    assert numbers.change(change, lambda value: f"{value:+.0f}") == "-12 [-20, -5]"
    assert numbers.change(NOTHING, str) == "-"
