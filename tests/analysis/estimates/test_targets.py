"""Times to targets: interpolation, censoring, divergence, areas."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gbn.analysis.estimates.targets import INTERPOLATIONS, Curve, Time

UPDATES = [10, 100, 1000]


def curve_of(points, measure="val_accuracy", diverged=False):
    """The curve of a frame of points; each of its columns may be missing."""
    columns = (points.get(name, pd.Series(np.nan, points.index)) for name in ("update", "seconds", measure))
    return Curve.of_columns(*(column.to_numpy(float) for column in columns), diverged)


def first_update(updates, values, target, interpolation="interpolated", higher_is_better=True):
    """The first update at the target, None if there is none."""
    updates, values = np.asarray(updates, float), np.asarray(values, float)
    made = Curve.of_columns(updates, updates, values, higher_is_better=higher_is_better)
    time = made.time_to(target, interpolation=interpolation)
    return time.low if time.reached else None


def curve(values, updates=UPDATES, diverged=False, **columns):
    points = pd.DataFrame(
        {"update": updates, "seconds": [u / 100 for u in updates], "val_accuracy": values, **columns}
    )
    return curve_of(points, "val_accuracy", diverged)


@pytest.mark.parametrize(
    ("values", "target", "expected"),
    [
        ([0.2, 0.4, 0.6], 0.5, 10**2.5),  # half way on the logarithmic axis
        ([0.2, 0.4, 0.6], 0.4, 100),  # exactly at a point
        ([0.2, 0.4, 0.6], 0.6, 1000),
        ([0.2, 0.4, 0.6], 0.1, 10),  # at or before the first point
        ([0.2, 0.6, 0.3], 0.5, 10 ** (1 + 0.75)),  # the first crossing, though it falls back
        ([0.2, 0.4, 0.6], 0.61, None),
        ([], 0.5, None),
    ],
)
def test_first_update_interpolates_in_log_updates(values, target, expected):
    found = first_update(UPDATES[: len(values)], values, target)
    assert found == (None if expected is None else pytest.approx(expected))


def test_the_first_hit_is_the_point_itself():
    assert first_update(UPDATES, [0.2, 0.4, 0.6], 0.5, "first") == 1000


def test_from_update_zero_it_is_linear():
    assert first_update([0, 100], [0.0, 0.5], 0.25) == 50


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.01, 0.99))
def test_an_interpolated_hit_lies_between_the_neighbors_of_the_first_hit(values, target):
    updates = [5 * 2**k for k in range(len(values))]
    late, soon = (first_update(updates, values, target, how) for how in ("first", "interpolated"))
    assert (late is None) == (soon is None) == all(value < target for value in values)
    if late is not None:
        before = updates[max(updates.index(int(late)) - 1, 0)]
        assert before * (1 - 1e-12) <= soon <= late * (1 + 1e-12)


def test_a_miss_is_censored_at_the_end_of_the_run():
    time = curve([0.2, 0.4, 0.6]).time_to(0.9)
    assert time == Time(1000, math.inf)
    assert not time.reached
    assert curve([0.2, 0.4, 0.6]).time_to(0.9, "seconds") == Time(10, math.inf)


def test_a_diverged_run_never_reaches_what_it_has_not_reached():
    run = curve([0.2, 0.4, None], diverged=True)
    assert run.time_to(0.3).reached
    assert run.time_to(0.5) == Time(math.inf, math.inf)


def test_points_without_the_measure_are_passed_over():
    run = curve([0.2, None, 0.6])
    assert run.time_to(0.4).low == pytest.approx(100)  # from 10 to 1000 directly
    assert run.best == 0.6


def test_seconds_are_read_off_at_the_interpolated_update():
    time = curve([0.2, 0.4, 0.6]).time_to(0.5, "seconds")
    assert time.low == pytest.approx(10**2.5 / 100)


def test_an_empty_curve_and_an_absent_measure_know_nothing():
    for run in (
        curve_of(pd.DataFrame(), "val_accuracy"),
        curve_of(pd.DataFrame({"update": [1]}), "val_accuracy"),
    ):
        assert run.best is None
        assert math.isnan(run.area)
        assert not run.time_to(0.5).reached


def test_area_is_the_mean_over_log_updates():
    assert curve([0.5, 0.5, 0.5]).area == pytest.approx(0.5)
    assert curve([0.0, 0.5, 1.0]).area == pytest.approx(0.5)
    assert curve([0.2, 0.6, 0.6]).area == pytest.approx((0.4 + 0.6) / 2)
    assert curve([0.2, 0.6], updates=[0, 10]).area is not None
    assert math.isnan(curve([0.2, 0.6], updates=[0, 10]).area)  # update 0 has no place on the axis
    dense = np.geomspace(5, 5000, 400)
    assert curve(1 - 1 / dense, updates=dense).area == pytest.approx(
        1 - (1 / 5 - 1 / 5000) / math.log(1000), abs=1e-4
    )


def line_by_line(updates, values, target, interpolation):
    """:func:`first_update` as its docstring reads, point by point."""
    for index, value in enumerate(values):
        if value >= target:
            if index == 0 or interpolation == "first":
                return float(updates[index])
            u0, u1, v0 = float(updates[index - 1]), float(updates[index]), values[index - 1]
            share = (target - v0) / (value - v0)
            return u0 + share * (u1 - u0) if u0 <= 0 else u0 * (u1 / u0) ** share
    return None


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(0, 1), max_size=12),
    st.lists(st.floats(0, 1), min_size=1, max_size=4),
    st.integers(0, 3),
    st.sampled_from(INTERPOLATIONS),
)
def test_the_search_finds_exactly_what_looking_at_every_point_finds(values, targets, first, interpolation):
    updates = [first + 3 * k for k in range(len(values))]
    expected = [line_by_line(updates, values, target, interpolation) for target in targets]
    assert [first_update(updates, values, target, interpolation) for target in targets] == expected
    ends = [updates[-1] if updates else math.inf] * len(targets)
    times = curve(values, updates).times_to(targets, "updates", interpolation)
    assert times == [
        Time(end, math.inf) if at is None else Time(at, at) for at, end in zip(expected, ends, strict=True)
    ]
    for target, time, clock in zip(
        targets, times, curve(values, updates).times_to(targets, "seconds", interpolation), strict=True
    ):
        assert clock == curve(values, updates).time_to(target, "seconds", interpolation)
        assert clock.reached == time.reached
        assert clock.low == (time.low if math.isinf(time.low) else pytest.approx(time.low / 100))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.floats(-2, 2)), max_size=12),
    st.lists(st.floats(-2, 2), min_size=1, max_size=4),
    st.sampled_from(INTERPOLATIONS),
    st.booleans(),
)
def test_a_curve_upside_down_has_the_same_times_where_lower_is_better(values, targets, how, diverged):
    updates = np.array([5.0 * 2**k for k in range(len(values))])
    up = np.array([math.nan if value is None else value for value in values])
    rising = Curve.of_columns(updates, updates / 100, up, diverged)
    falling = Curve.of_columns(updates, updates / 100, -up, diverged, higher_is_better=False)
    negated = [-target for target in targets]
    for unit in ("updates", "seconds"):
        assert falling.times_to(negated, unit, how) == rising.times_to(targets, unit, how)
    assert falling.best == (None if rising.best is None else -rising.best)
    assert falling.area == pytest.approx(-rising.area, nan_ok=True)
    known = np.isfinite(up)
    for target in targets:
        found = first_update(updates[known], -up[known], -target, how, higher_is_better=False)
        assert found == first_update(updates[known], up[known], target, how)


def test_a_lower_target_is_reached_at_or_below_it():
    falling = Curve.of_columns(
        np.array([10.0, 100.0, 1000.0]), np.full(3, np.nan), np.array([0.6, 0.4, 0.2]), higher_is_better=False
    )
    assert falling.time_to(0.3).low == pytest.approx(10**2.5)
    assert falling.time_to(0.2) == Time(1000, 1000)
    assert falling.time_to(0.19) == Time(1000, math.inf)
    assert falling.time_to(0.7) == Time(10, 10)
    assert falling.best == 0.2
