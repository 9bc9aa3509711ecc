# mypy: ignore-errors
# Compiled by numba: a language of its own that only looks like Python.
"""Expectile and Huber location of one channel: the solvers of :mod:`gbn.risk`, one pass per step.

``view`` is (x, start, planes, stride, length), see :mod:`.search`; ``part`` is Huber's, an :class:`.encode.Part` with
the threshold and whether it is scaled; tau, mean and variance are float64.
"""

from __future__ import annotations

import math

import numpy as np

from . import sums
from .compiling import compiled
from .memory import load_first
from .record import put_point
from .search import extent, key_of, of_key, samples
from .simd import LANES, highest, lowest, maximum, minimum, splat, where

__all__ = ["expectile", "huber", "huber_statistic"]

_EPS = float(np.finfo(np.float32).eps)
_INF = np.float32(math.inf)

#: As in gbn.risk: bounds that only guard against rounding cycles.
_NEWTON_STEPS, _SAFE_STEPS = 64, 100


@compiled
def expectile(view, tau, mean):
    """Return the expectile, float64, by Newton's method from the mean.

    It converges monotonically and is exact as soon as the set above stays the same.
    """
    e = mean
    before = -1
    for _ in range(_NEWTON_STEPS):
        level = np.float32(e)
        s, excess, _, _ = sums.sides(view, level)
        over, _ = sums.above(view, level)
        # the sums were taken about the float32 level, so the step starts there, not at e
        force = (2.0 * tau - 1.0) * excess + (1.0 - tau) * s
        e = np.float64(level) + force / ((2.0 * tau - 1.0) * over + (1.0 - tau) * samples(view))
        # as many samples above as before: the equation is linear there, and solved; NaN would loop on
        if over == before or e != e:
            break
        before = over
    return e


@compiled
def _neighbors(view, place):
    """Return the largest sample not above a place, and the smallest not below it."""
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
def _solve(view, part, mean, variance, solved):
    """Return location, reach and threshold, as in :mod:`gbn.risk.huber`.

    solved      (4,) float64: location, reach, threshold, and 1 if set; keeps the result for the pair's other part
    """
    n = samples(view)
    threshold = np.float32(part.number * math.sqrt(variance) if part.scaled != 0.0 else part.number)
    # statistic and deviation with the same threshold have the same solution
    if solved[3] == 1.0 and np.float32(solved[2]) == threshold:
        return np.float32(solved[0]), solved[1], threshold
    least, greatest, _ = extent(view)
    low, high = of_key(key_of(least) - 1), of_key(key_of(greatest) + 1)
    location = np.float32(mean)
    # safeguarded Newton: a step that leaves the bracket is replaced by a bisection
    for _ in range(_SAFE_STEPS):
        force, _, _, inside = sums.clipped(view, location, threshold)
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
    under, over = _neighbors(view, location)
    gap = min(np.float64(location) - under, np.float64(over) - location)
    rounding = 16.0 * _EPS * (abs(location) + threshold)  # the location may be at an end of the flat part
    reach = np.float64(threshold)
    # no sample within the threshold on either side: the loss is flat between the neighbors, so take its middle
    if gap >= threshold - rounding and threshold > rounding:
        reach = 0.5 * (np.float64(over) - under) * (1.0 + 16.0 * _EPS)
        location = np.float32(0.5 * (np.float64(over) + under))
    elif gap >= threshold:
        reach = 0.0  # samples closer together than rounding resolves count as a constant channel
    solved[0], solved[1], solved[2], solved[3] = location, reach, threshold, 1.0
    return location, reach, threshold


@compiled
def huber_statistic(view, part, mean, variance, solved, record):
    """Return Huber's location and write its part of the record.

    The derivative is uniform over the samples within the reach, minus what the threshold moves.

    record      (HEAD + POINT * points,) float32; breakpoints 0 to 2 are written
    solved      (4,) float64, of :func:`_solve`
    """
    n = samples(view)
    s, reach, threshold = _solve(view, part, mean, variance, solved)
    left, right = np.float32(s - reach), np.float32(s + reach)
    if reach == 0.0:
        left, right = -_INF, _INF  # a constant channel: all samples have the same share
    over_left, _ = sums.above(view, left)
    over_place, at_place = sums.above(view, s)
    over_right, at_right = sums.above(view, right)
    inside = over_left - over_right - at_right
    n_above, n_below = over_place - over_right - at_right, over_left - over_place - at_place
    level, slope = 1.0 / max(inside, 1), 0.0
    flat = reach > threshold and n_above > 0 and n_below > 0
    if flat:
        # two samples (and ties with them) on either side of a flat minimum: each side has half
        level = 0.25 / n_below + 0.25 / n_above
        slope = 0.25 / n_above - 0.25 / n_below
    put_point(record, 0, left, 0.0, level - slope, 0.0, 0.0)
    put_point(record, 1, s, slope, 2.0 * slope, 0.0, 0.0)
    put_point(record, 2, right, -(level + slope), -(level + slope), 0.0, 0.0)
    if part.scaled != 0.0 and not flat and variance > 0.0:
        force, _, _, _ = sums.clipped(view, s, threshold)
        within = force if reach > 0.0 else n * (mean - s)
        if reach > 0.0:  # the sum of the samples within the reach: leave out those that are cut
            within -= threshold * (over_right + at_right - (n - over_left))
        pull = within / max(inside, 1) / (n * variance)
        record[0] -= (np.float64(s) - mean) * pull
        record[1] -= pull
    return s


@compiled
def huber(view, part, s, mean, variance, solved, record, point):
    """Return the mean Huber loss about Huber's location, as a deviation, and write its record from ``point`` on.

    record, solved as in :func:`huber_statistic`; ``s`` is float32.
    """
    n = samples(view)
    location, _, threshold = _solve(view, part, mean, variance, solved)
    if threshold == 0.0:
        return 0.0
    _, spread, loss, _ = sums.clipped(view, location, threshold)
    each = 1.0 / (n * np.float64(threshold))
    record[2] = -1.0 / n
    put_point(record, point, location - threshold, 0.0, 0.0, each, 2.0 * threshold)
    if part.scaled != 0.0 and variance > 0.0:
        # per unit of b the loss falls by (min(abs(z), b) / b)^2 / 2; per unit of s, b changes by b / s
        fall = 0.5 * spread / n / (threshold * variance * n)
        record[2] -= (np.float64(s) - mean) * fall
        record[3] -= fall
    return loss / n / threshold
