# mypy: ignore-errors
# Compiled by numba: a language of its own that only looks like Python.
"""Sums over a channel: one pass each, vectors of float32 within a piece, float64 across pieces.

A value near the samples is subtracted first, so that a common offset cancels exactly. Where float32 cannot hold a
sum, it is taken again in a larger unit, so that the result is non-finite only if a sample is. The steps of each loop
are written once and used both for whole vectors and for the rest of a plane, whose missing lanes are filled with a
value that adds nothing.

The first argument of every function is a view (:mod:`.search`); center, level, low, high, place and threshold are
float32. Sums are float64, counts int64.
"""

from __future__ import annotations

import math

import numpy as np

from .compiling import compiled, inlined
from .convert import exp
from .memory import first, load, load_first, prefetch
from .search import samples
from .simd import (
    LANES,
    count,
    fma,
    maximum,
    minimum,
    splat,
    tallied,
    tally,
    total,
    where,
    widen,
    zeros32,
    zeros64,
)

__all__ = ["about", "above", "clipped", "exponentials", "moments", "sides", "tail_and_window"]

#: Samples summed in float32 before the sum goes to float64: 128 additions per lane, whose rounding errors (half an
#: ulp each, of random sign) stay below 128 x 6e-8 in the worst case and typically near 7e-7.
PIECE = 128 * LANES

#: A unit in which even the largest float32 numbers have squares that float32 can sum, without losing what matters.
_LARGE = np.float32(2.0**-80)

_NAN = np.float32(math.nan)
_INF = math.inf
_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)


@inlined
def _moment_step(v, k, c, s, q):
    u = fma(v, k, c)
    return s + u, fma(u, u, q)


@compiled
def _moments(view, center, unit):
    # u = x unit - center unit in one fma; a missing lane holds the center, so its u is 0
    x, start, planes, stride, length = view
    k, c = splat(unit), splat(-center * unit)
    zero, nothing = splat(_ZERO), splat(center)
    sums, squares = zeros64(), zeros64()
    for plane in range(planes):
        end = start + plane * stride + length
        for begin in range(start + plane * stride, end, PIECE):
            stop = min(begin + PIECE, end)
            whole = begin + (stop - begin) // LANES * LANES
            s, q = zero, zero
            for i in range(begin, whole, LANES):
                # planes are not contiguous: the hardware prefetcher does not know the next one
                prefetch(x, i + stride)
                s, q = _moment_step(load(x, i), k, c, s, q)
            if whole < stop:
                s, q = _moment_step(load_first(x, whole, stop - whole, nothing), k, c, s, q)
            # close the piece: from here on the sum is exact to float64
            sums = sums + widen(s)
            squares = squares + widen(q)
    size = 1.0 / np.float64(unit)
    return total(sums) * size, total(squares) * size * size


@compiled
def moments(view, center):
    """Return the sums of u = x - center and of its square."""
    s, q = _moments(view, center, _ONE)
    if not q < _INF:
        # squares overflowed float32: again in a unit in which they cannot
        s, q = _moments(view, center, _LARGE)
    return s, q


@compiled
def about(view):
    """Return the mean in float64 and the mean square about it; NaN where a sample is not finite."""
    x, start, planes, stride, length = view
    n = samples(view)
    # a rough center: the mean of up to 16 samples from different planes and columns
    near = np.float64(0.0)
    for plane in range(min(planes, LANES)):
        near += x[start + plane * stride + plane % length]
    center = np.float32(near / min(planes, LANES))
    s, q = moments(view, center)
    if not q < _INF:
        return math.nan, math.nan
    shift = s / n
    if shift * shift > 8.0 * (q / n - shift * shift):
        # the center was far off: float32's rounding of the squares would dominate what is left of them
        center = np.float32(center + shift)
        s, q = moments(view, center)
        shift = s / n
    # Steiner: q / n is about the center, not yet about the mean. With a center near the mean one pass loses no digits
    # (Chan, Golub, LeVeque: Algorithms for computing the sample variance, 1983).
    variance = q / n - shift * shift
    return np.float64(center) + shift, max(variance, 0.0)


@inlined
def _side_step(v, k, c, zero, s, p, q, r):
    u = fma(v, k, c)
    part = maximum(u, zero)
    return s + u, p + part, fma(u, u, q), fma(part, part, r)


@compiled
def _sides(view, level, unit):
    x, start, planes, stride, length = view
    k, c = splat(unit), splat(-level * unit)
    # two first and two second moments in one pass: half the traffic of two passes
    zero, nothing = splat(_ZERO), splat(level)
    sums, parts, squares, part_squares = zeros64(), zeros64(), zeros64(), zeros64()
    for plane in range(planes):
        end = start + plane * stride + length
        for begin in range(start + plane * stride, end, PIECE):
            stop = min(begin + PIECE, end)
            whole = begin + (stop - begin) // LANES * LANES
            s, p, q, r = zero, zero, zero, zero
            for i in range(begin, whole, LANES):
                prefetch(x, i + stride)
                s, p, q, r = _side_step(load(x, i), k, c, zero, s, p, q, r)
            if whole < stop:
                v = load_first(x, whole, stop - whole, nothing)
                s, p, q, r = _side_step(v, k, c, zero, s, p, q, r)
            sums = sums + widen(s)
            parts = parts + widen(p)
            squares = squares + widen(q)
            part_squares = part_squares + widen(r)
    size = 1.0 / np.float64(unit)
    return (
        total(sums) * size,
        total(parts) * size,
        total(squares) * size * size,
        total(part_squares) * size * size,
    )


@compiled
def sides(view, level):
    """Return, about a level, the sums of u = x - level, of its positive part, and of the squares of both."""
    s, p, q, r = _sides(view, level, _ONE)
    if not q < _INF:
        s, p, q, r = _sides(view, level, _LARGE)
    return s, p, q, r


@inlined
def _tail_step(v, k, c, zero, lower, upper, s, p, q, r):
    u = fma(v, k, c)
    # masked above ``high``, clamped below ``low``: only samples in [low, high] contribute to the cut
    cut = where(v <= upper, maximum(fma(v, k, lower), zero), zero)
    return s + u, p + maximum(u, zero), q + cut, fma(cut, cut, r)


@compiled
def _tail_and_window(view, level, low, high, unit):
    x, start, planes, stride, length = view
    k, c, lower = splat(unit), splat(-level * unit), splat(-low * unit)
    zero, nothing, upper = splat(_ZERO), splat(level), splat(high)
    sums, parts, cuts, cut_squares = zeros64(), zeros64(), zeros64(), zeros64()
    for plane in range(planes):
        end = start + plane * stride + length
        for begin in range(start + plane * stride, end, PIECE):
            stop = min(begin + PIECE, end)
            whole = begin + (stop - begin) // LANES * LANES
            s, p, q, r = zero, zero, zero, zero
            for i in range(begin, whole, LANES):
                prefetch(x, i + stride)
                s, p, q, r = _tail_step(load(x, i), k, c, zero, lower, upper, s, p, q, r)
            if whole < stop:
                real = first(stop - whole)  # the fill is at ``level``, which may lie inside [low, high]
                v = load_first(x, whole, stop - whole, nothing)
                s2, p2, q2, r2 = _tail_step(v, k, c, zero, lower, upper, s, p, q, r)
                s, p, q, r = s2, p2, where(real, q2, q), where(real, r2, r)
            sums = sums + widen(s)
            parts = parts + widen(p)
            cuts = cuts + widen(q)
            cut_squares = cut_squares + widen(r)
    size = 1.0 / np.float64(unit)
    return total(sums) * size, total(parts) * size, total(cuts) * size, total(cut_squares) * size * size


@compiled
def tail_and_window(view, level, low, high):
    """Return the sums of u = x - level and of [u]_+, and those of x - low and its square for x in [low, high]."""
    s, p, q, r = _tail_and_window(view, level, low, high, _ONE)
    # no sum of squares of u here, so test what there is
    if not (abs(s) + p + r < _INF):
        s, p, q, r = _tail_and_window(view, level, low, high, _LARGE)
    return s, p, q, r


@compiled
def above(view, level):
    """Return how many samples lie above a level, and how many at it."""
    x, start, planes, stride, length = view
    limit = splat(level)
    nothing = splat(_NAN)  # never counted: no comparison with NaN holds
    over = zeros32()
    at = zeros32()
    for plane in range(planes):
        end = start + plane * stride + length
        for i in range(start + plane * stride, end, LANES):
            values = load_first(x, i, end - i, nothing)
            over = tally(over, values > limit)
            at = tally(at, values == limit)
    return tallied(over), tallied(at)


@compiled
def _clipped(view, place, threshold, unit):
    x, start, planes, stride, length = view
    k, c = splat(unit), splat(-place * unit)
    upper = splat(threshold * unit)
    lower = splat(-threshold * unit)
    half = splat(np.float32(0.5))
    zero, nothing = splat(_ZERO), splat(place)
    cuts, squares, losses = zeros64(), zeros64(), zeros64()
    inside = 0
    for plane in range(planes):
        end = start + plane * stride + length
        for begin in range(start + plane * stride, end, PIECE):
            stop = min(begin + PIECE, end)
            s, q, r = zero, zero, zero
            # one loop for whole vectors and the rest: rare functionals need no second copy of the body
            for i in range(begin, stop, LANES):
                u = fma(load_first(x, i, stop - i, nothing), k, c)
                cut = maximum(lower, minimum(upper, u))
                s = s + cut
                q = fma(cut, cut, q)
                r = fma(cut, u - half * cut, r)
                inside += count((u == cut) & first(stop - i))
            cuts = cuts + widen(s)
            squares = squares + widen(q)
            losses = losses + widen(r)
    size = 1.0 / np.float64(unit)
    return total(cuts) * size, total(squares) * size * size, total(losses) * size * size, inside


@compiled
def clipped(view, place, threshold):
    """Return the sums of cut, cut^2 and cut (u - cut / 2), with u = x - place cut to +- threshold.

    The last number returned is the count of samples that are not cut, int64.
    """
    s, q, r, inside = _clipped(view, place, threshold, _ONE)
    if not (q + r < _INF):
        s, q, r, inside = _clipped(view, place, threshold, _LARGE)
    return s, q, r, inside


@compiled
def exponentials(view, top):
    """Return the sum of exp(x - top), where no sample exceeds ``top`` (float32)."""
    x, start, planes, stride, length = view
    c = splat(top)
    zero = splat(_ZERO)
    sums = zeros64()
    for plane in range(planes):
        end = start + plane * stride + length
        for begin in range(start + plane * stride, end, PIECE):
            stop = min(begin + PIECE, end)
            # every exponent is at most 0, so nothing overflows and the largest term is 1
            s = zero
            for i in range(begin, stop, LANES):
                real = first(stop - i)
                s = s + where(real, exp(load_first(x, i, stop - i, c) - c), zero)
            sums = sums + widen(s)
    return total(sums)
