# mypy: ignore-errors
# Compiled by numba: a language of its own in Python's clothes.
"""Expectile and Huber's location of one channel: the solvers of :mod:`gbn.risk`, pass by pass."""

from __future__ import annotations

import math

import numpy as np

from . import sums
from .compiling import compiled
from .memory import load_first
from .record import put_point
from .search import extent, key_of, of_key
from .simd import LANES, highest, lowest, maximum, minimum, splat, where

__all__ = ["expectile", "huber", "huber_statistic"]

_EPS = float(np.finfo(np.float32).eps)
_INF = np.float32(math.inf)

#: As in gbn.risk: bounds that only guard against cycles of rounding.
_NEWTON_STEPS, _SAFE_STEPS = 64, 100


@compiled
def expectile(view, tau, mean):
    """Newton's method from the mean: monotone, and exact as soon as the set above stays the same."""
    x, start, planes, stride, length = view
    e = mean
    before = -1
    for _ in range(_NEWTON_STEPS):
        level = np.float32(e)
        s, excess, _, _ = sums.sides(x, start, planes, stride, length, level)
        over, _ = sums.above(x, start, planes, stride, length, level)
        # about the float32 level, where the sums were taken
        force = (2.0 * tau - 1.0) * excess + (1.0 - tau) * s
        e = np.float64(level) + force / ((2.0 * tau - 1.0) * over + (1.0 - tau) * planes * length)
        if over == before or e != e:
            break
        before = over
    return e


@compiled
def _neighbours(view, place):
    """The largest sample not above a place, and the smallest not below it."""
    x, start, planes, stride, length = view
    limit, infinite, minus = splat(place), splat(_INF), splat(-_INF)
    under, over = minus, infinite
    for plane in range(planes):
        end = start + plane * stride + length
        for i in range(start + plane * stride, end, LANES):
            v = load_first(x, i, end - i, infinite)
            under = maximum(where(v <= limit, v, minus), under)
            over = minimum(where(v >= limit, v, infinite), over)
    return highest(under), lowest(over)


@compiled
def _solve(view, b, scaled, mean, variance, solved):
    """Location, reach and threshold, as in :mod:`gbn.risk.huber`; kept in ``solved`` for the pair's other part."""
    x, start, planes, stride, length = view
    n = planes * length
    threshold = np.float32(b * math.sqrt(variance) if scaled != 0.0 else b)
    if solved[3] == 1.0 and np.float32(solved[2]) == threshold:
        return np.float32(solved[0]), solved[1], threshold
    least, greatest, _ = extent(x, start, planes, stride, length)
    low, high = of_key(key_of(least) - 1), of_key(key_of(greatest) + 1)
    location = np.float32(mean)
    for _ in range(_SAFE_STEPS):
        force, _, _, inside = sums.clipped(x, start, planes, stride, length, location, threshold)
        if force >= 0.0:
            low = location
        if force <= 0.0:
            high = location
        proposal = np.float32(0.5 * (np.float64(low) + np.float64(high)))
        if inside > 0:
            newton = np.float32(location + force / inside)
            if low < newton < high:
                proposal = newton
        if abs(force) <= 4.0 * _EPS * n * threshold or proposal == location or force != force:
            break
        location = proposal
    under, over = _neighbours(view, location)
    gap = min(np.float64(location) - under, np.float64(over) - location)
    rounding = 16.0 * _EPS * (abs(location) + threshold)  # the place may stand at an end of the flat part
    reach = np.float64(threshold)
    if gap >= threshold - rounding and threshold > rounding:
        reach = 0.5 * (np.float64(over) - under) * (1.0 + 16.0 * _EPS)
        location = np.float32(0.5 * (np.float64(over) + under))
    elif gap >= threshold:
        reach = 0.0  # samples closer to each other than rounding resolves count as a constant channel
    solved[0], solved[1], solved[2], solved[3] = location, reach, threshold, 1.0
    return location, reach, threshold


@compiled
def huber_statistic(view, b, scaled, mean, variance, solved, record):
    """Huber's location; its derivative is even over the samples within the reach, less what the threshold moves."""
    x, start, planes, stride, length = view
    n = planes * length
    s, reach, threshold = _solve(view, b, scaled, mean, variance, solved)
    left, right = np.float32(s - reach), np.float32(s + reach)
    if reach == 0.0:
        left, right = -_INF, _INF
    over_left, _ = sums.above(x, start, planes, stride, length, left)
    over_place, at_place = sums.above(x, start, planes, stride, length, s)
    over_right, at_right = sums.above(x, start, planes, stride, length, right)
    inside = over_left - over_right - at_right
    n_above, n_below = over_place - over_right - at_right, over_left - over_place - at_place
    level, slope = 1.0 / max(inside, 1), 0.0
    flat = reach > threshold and n_above > 0 and n_below > 0
    if flat:
        # two samples (and those tied with them) on either side of a flat minimum: each side has half
        level = 0.25 / n_below + 0.25 / n_above
        slope = 0.25 / n_above - 0.25 / n_below
    put_point(record, 0, left, 0.0, level - slope, 0.0, 0.0)
    put_point(record, 1, s, slope, 2.0 * slope, 0.0, 0.0)
    put_point(record, 2, right, -(level + slope), -(level + slope), 0.0, 0.0)
    if scaled != 0.0 and not flat and variance > 0.0:
        force, _, _, _ = sums.clipped(x, start, planes, stride, length, s, threshold)
        within = force if reach > 0.0 else n * (mean - s)
        if reach > 0.0:  # the sum of the samples within the reach: without those that are cut
            within -= threshold * (over_right + at_right - (n - over_left))
        pull = within / max(inside, 1) / (n * variance)
        record[0] -= (np.float64(s) - mean) * pull
        record[1] -= pull
    return s


@compiled
def huber(view, b, scaled, s, mean, variance, solved, record, point):
    """The mean Huber loss about Huber's location, as a deviation, and its record from ``point`` on."""
    x, start, planes, stride, length = view
    n = planes * length
    location, _, threshold = _solve(view, b, scaled, mean, variance, solved)
    if threshold == 0.0:
        return 0.0
    _, spread, loss, _ = sums.clipped(x, start, planes, stride, length, location, threshold)
    each = 1.0 / (n * np.float64(threshold))
    record[2] = -1.0 / n
    put_point(record, point, location - threshold, 0.0, 0.0, each, 2.0 * threshold)
    if scaled != 0.0 and variance > 0.0:
        # the loss falls by (min(abs(z), b) / b)^2 / 2 a unit of b, and b by b / s a unit of s
        fall = 0.5 * spread / n / (threshold * variance * n)
        record[2] -= (np.float64(s) - mean) * fall
        record[3] -= fall
    return loss / n / threshold
