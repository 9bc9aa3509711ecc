"""Sums over a channel: one pass each, vectors of float32 within a piece, float64 over the pieces.

Differences are taken from a value near the samples first, so that a common offset cancels exactly. Views are those
of :mod:`.select`; each step is written once and used for whole vectors and for the rest of a plane, whose missing
lanes are filled with a value that adds nothing.
"""

from __future__ import annotations

import math

import numpy as np

from .compiling import compiled, inlined
from .convert import exp
from .memory import first, load, load_first, prefetch
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

#: Samples summed in float32 before the sum goes to float64: 128 additions a lane, whose rounding errors (half an
#: ulp each, of random sign) stay below 128 x 6e-8 in the worst case and near 7e-7 as they fall.
PIECE = 128 * LANES

_NAN = np.float32(math.nan)
_ZERO = np.float32(0.0)


@inlined
def _moment_step(v, c, s, q):
    u = v - c
    return s + u, fma(u, u, q)


@compiled
def moments(x, start, planes, stride, length, centre):
    """Sums of u = x - centre and of its square."""
    c = splat(centre)
    zero = splat(_ZERO)
    sums, squares = zeros64(), zeros64()
    for plane in range(planes):
        end = start + plane * stride + length
        for begin in range(start + plane * stride, end, PIECE):
            stop = min(begin + PIECE, end)
            whole = begin + (stop - begin) // LANES * LANES
            s, q = zero, zero
            for i in range(begin, whole, LANES):
                prefetch(x, i + stride)
                s, q = _moment_step(load(x, i), c, s, q)
            if whole < stop:
                s, q = _moment_step(load_first(x, whole, stop - whole, c), c, s, q)
            sums = sums + widen(s)
            squares = squares + widen(q)
    return total(sums), total(squares)


@compiled
def about(x, start, planes, stride, length):
    """The mean, in float64, and the mean square about it."""
    n = planes * length
    # a rough centre: the mean of one vector a plane
    near = np.float64(0.0)
    for plane in range(min(planes, LANES)):
        near += x[start + plane * stride + plane % length]
    centre = np.float32(near / min(planes, LANES))
    s, q = moments(x, start, planes, stride, length, centre)
    shift = s / n
    if shift * shift > 8.0 * (q / n - shift * shift):
        # the centre was far off: float32's rounding of squares would show in what is left of them
        centre = np.float32(centre + shift)
        s, q = moments(x, start, planes, stride, length, centre)
        shift = s / n
    variance = q / n - shift * shift
    return np.float64(centre) + shift, variance if variance > 0.0 or variance != variance else 0.0


@inlined
def _side_step(v, c, zero, s, p, q, r):
    u = v - c
    part = maximum(zero, u)  # NaN stays
    return s + u, p + part, fma(u, u, q), fma(part, part, r)


@compiled
def sides(x, start, planes, stride, length, level):
    """About a level: sums of u = x - level, of its positive part, and of the squares of both."""
    c = splat(level)
    zero = splat(_ZERO)
    sums, parts, squares, part_squares = zeros64(), zeros64(), zeros64(), zeros64()
    for plane in range(planes):
        end = start + plane * stride + length
        for begin in range(start + plane * stride, end, PIECE):
            stop = min(begin + PIECE, end)
            whole = begin + (stop - begin) // LANES * LANES
            s, p, q, r = zero, zero, zero, zero
            for i in range(begin, whole, LANES):
                prefetch(x, i + stride)
                s, p, q, r = _side_step(load(x, i), c, zero, s, p, q, r)
            if whole < stop:
                s, p, q, r = _side_step(load_first(x, whole, stop - whole, c), c, zero, s, p, q, r)
            sums = sums + widen(s)
            parts = parts + widen(p)
            squares = squares + widen(q)
            part_squares = part_squares + widen(r)
    return total(sums), total(parts), total(squares), total(part_squares)


@inlined
def _tail_step(v, c, zero, lower, upper, s, p, q, r):
    u = v - c
    cut = where(v <= upper, maximum(v - lower, zero), zero)
    return s + u, p + maximum(zero, u), q + cut, fma(cut, cut, r)


@compiled
def tail_and_window(x, start, planes, stride, length, level, low, high):
    """Sums of u = x - level and of its positive part; of x - low and its square, where x is in [low, high]."""
    c = splat(level)
    zero = splat(_ZERO)
    lower = splat(low)
    upper = splat(high)
    sums, parts, cuts, cut_squares = zeros64(), zeros64(), zeros64(), zeros64()
    for plane in range(planes):
        end = start + plane * stride + length
        for begin in range(start + plane * stride, end, PIECE):
            stop = min(begin + PIECE, end)
            whole = begin + (stop - begin) // LANES * LANES
            s, p, q, r = zero, zero, zero, zero
            for i in range(begin, whole, LANES):
                prefetch(x, i + stride)
                s, p, q, r = _tail_step(load(x, i), c, zero, lower, upper, s, p, q, r)
            if whole < stop:
                real = first(stop - whole)
                s2, p2, q2, r2 = _tail_step(
                    load_first(x, whole, stop - whole, c), c, zero, lower, upper, s, p, q, r
                )
                s, p, q, r = s2, p2, where(real, q2, q), where(real, r2, r)
            sums = sums + widen(s)
            parts = parts + widen(p)
            cuts = cuts + widen(q)
            cut_squares = cut_squares + widen(r)
    return total(sums), total(parts), total(cuts), total(cut_squares)


@compiled
def above(x, start, planes, stride, length, level):
    """How many samples lie above a level, and how many at it."""
    limit = splat(level)
    nothing = splat(_NAN)
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
def clipped(x, start, planes, stride, length, place, threshold):
    """About a place, u cut to +- threshold: sums of cut, of its square, of cut (u - cut / 2); samples not cut."""
    c = splat(place)
    upper = splat(threshold)
    lower = splat(-threshold)
    half = splat(np.float32(0.5))
    zero = splat(_ZERO)
    cuts, squares, losses = zeros64(), zeros64(), zeros64()
    inside = 0
    for plane in range(planes):
        end = start + plane * stride + length
        for begin in range(start + plane * stride, end, PIECE):
            stop = min(begin + PIECE, end)
            s, q, r = zero, zero, zero
            for i in range(begin, stop, LANES):
                u = load_first(x, i, stop - i, c) - c
                cut = maximum(lower, minimum(upper, u))
                s = s + cut
                q = fma(cut, cut, q)
                r = fma(cut, u - half * cut, r)
                inside += count((u == cut) & first(stop - i))
            cuts = cuts + widen(s)
            squares = squares + widen(q)
            losses = losses + widen(r)
    return total(cuts), total(squares), total(losses), inside


@compiled
def exponentials(x, start, planes, stride, length, top):
    """The sum of exp(x - top), where no sample exceeds the top."""
    c = splat(top)
    zero = splat(_ZERO)
    sums = zeros64()
    for plane in range(planes):
        end = start + plane * stride + length
        for begin in range(start + plane * stride, end, PIECE):
            stop = min(begin + PIECE, end)
            s = zero
            for i in range(begin, stop, LANES):
                real = first(stop - i)
                s = s + where(real, exp(load_first(x, i, stop - i, c) - c), zero)
            sums = sums + widen(s)
    return total(sums)
