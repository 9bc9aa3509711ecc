# mypy: ignore-errors
# Compiled by numba: a language of its own that only looks like Python.
"""Find one order statistic of a view by counting: exact, and fast where the values are few or nearly bracketed.

A *view* ``(x, start, planes, stride, length)`` says where a channel's values are: ``planes`` runs of ``length``
values each, the first at ``start`` of ``x``, ``stride`` apart. A channel of an (N, C, L) tensor is N runs of L; a row
of scratch is one run (:func:`row`). NaN is never counted, because no comparison with it holds.

Arguments of all functions:

    view                (pointer to float32, four int64)
    level, low, high    float32
    tiny                (3 * 16,) float32 scratch
"""

from __future__ import annotations

import math

import numpy as np

from .compiling import compiled, inlined
from .memory import compress, load, load_first, prefetch
from .simd import (
    LANES,
    as_float,
    bits_of_float,
    float_of_bits,
    fma,
    highest,
    lowest,
    maximum,
    minimum,
    splat,
    tallied,
    tally,
    total_narrow,
    where,
    zeros32,
)

__all__ = ["count_about", "count_upto", "extent", "key_of", "of_key", "row", "samples", "search"]

_NAN = np.float32(math.nan)
_INF = np.float32(math.inf)
_ZERO = np.float32(0.0)

#: Values that are sorted by comparing each with each in registers: two vectors.
_LEFT = 2 * LANES


@inlined
def row(x, n):
    """Return the view of ``n`` adjacent values from a pointer on."""
    return x, 0, 1, 0, n


@inlined
def samples(view):
    """Return how many values a view has."""
    _, _, planes, _, length = view
    return planes * length


@inlined
def key_of(value):
    """Return an integer that orders as the float does; both zeros map to 0."""
    # negative floats order backwards as integers: flip their bits, then shift by one so that -0 coincides with +0
    bits = bits_of_float(value)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)) - (bits >> 31)


@inlined
def of_key(key):
    """Return the float of a key."""
    sign = key >> 63
    return float_of_bits((key + sign) ^ (sign & 0x7FFFFFFF))


@compiled
def count_upto(view, level):
    """Return how many values do not exceed a level."""
    x, start, planes, stride, length = view
    limit = splat(level)
    nothing = splat(_NAN)
    found = zeros32()
    for plane in range(planes):
        begin = start + plane * stride
        end = begin + length
        whole = begin + length // LANES * LANES
        for i in range(begin, whole, LANES):
            prefetch(x, i + stride)
            found = tally(found, load(x, i) <= limit)
        if whole < end:
            found = tally(found, load_first(x, whole, end - whole, nothing) <= limit)
    return tallied(found)


@inlined
def _about_step(values, limit, below, at):
    return tally(below, values < limit), tally(at, values == limit)


@compiled
def count_about(view, level):
    """Return how many values lie below a level, and how many at it."""
    x, start, planes, stride, length = view
    limit = splat(level)
    nothing = splat(_NAN)
    below = zeros32()
    at = zeros32()
    for plane in range(planes):
        begin = start + plane * stride
        end = begin + length
        whole = begin + length // LANES * LANES
        for i in range(begin, whole, LANES):
            below, at = _about_step(load(x, i), limit, below, at)
        if whole < end:
            below, at = _about_step(load_first(x, whole, end - whole, nothing), limit, below, at)
    return tallied(below), tallied(at)


@inlined
def _extent_step(values, zero, low, high, spoilt):
    # 0 times a non-finite number is NaN
    return minimum(values, low), maximum(values, high), fma(values, zero, spoilt)


@compiled
def extent(view):
    """Return minimum and maximum, ignoring NaN, and whether all values are finite."""
    x, start, planes, stride, length = view
    low, high, zero = splat(_INF), splat(-_INF), splat(_ZERO)
    spoilt = zero
    for plane in range(planes):
        begin = start + plane * stride
        end = begin + length
        whole = begin + length // LANES * LANES
        for i in range(begin, whole, LANES):
            low, high, spoilt = _extent_step(load(x, i), zero, low, high, spoilt)
        if whole < end:
            last = load_first(x, whole, end - whole, splat(x[begin]))  # a fill that is in the plane anyway
            low, high, spoilt = _extent_step(last, zero, low, high, spoilt)
    return lowest(low), highest(high), total_narrow(spoilt) == _ZERO


@inlined
def _few_step(v, lower, upper, tiny, found):
    return compress(tiny, found, (v <= upper) ^ (v <= lower), v)


@compiled
def _few(view, low, high, k, tiny):
    """Return the k-th smallest of at most _LEFT values, those above low (NaN: all) and up to high."""
    x, start, planes, stride, length = view
    lower, upper, nothing = splat(low), splat(high), splat(_NAN)
    found = 0
    for plane in range(planes):
        begin = start + plane * stride
        end = begin + length
        whole = begin + length // LANES * LANES
        for i in range(begin, whole, LANES):
            found = _few_step(load(x, i), lower, upper, tiny, found)
        if whole < end:
            found = _few_step(load_first(x, whole, end - whole, nothing), lower, upper, tiny, found)
    # rank by counting smaller ones: 2 _LEFT comparisons of vectors, no branches
    v, w = load_first(tiny, 0, found, nothing), load_first(tiny, LANES, found - LANES, nothing)
    smaller_v, smaller_w = zeros32(), zeros32()
    for j in range(found):
        one = splat(tiny[j])
        smaller_v, smaller_w = tally(smaller_v, one < v), tally(smaller_w, one < w)
    # the largest value with fewer than k smaller ones
    limit, minus = splat(np.float32(k)), splat(-_INF)
    v = where((as_float(smaller_v) < limit) & (v == v), v, minus)
    w = where((as_float(smaller_w) < limit) & (w == w), w, minus)
    return highest(maximum(v, w))


@compiled
def search(view, k, low, high, tiny):
    """Return the k-th smallest of a view's values, all between low and high, by counting.

    It is the least float that k values do not exceed. Interpolation, alternately from above and from below, closes in
    on it until few values are left, which are sorted in registers. After every three passes that do not leave a
    quarter, one bisection of the order of floats bounds the number of passes, whatever the data.

    k           int64, 1 to planes * length
    low, high   float32, known bounds of the values
    """
    a = key_of(low) - 1  # invariant: fewer than k values are at or below a, at least k at or below b
    b = key_of(high)
    below = 0
    upto = samples(view)
    turn = 0
    goal = upto
    zero, half, one = np.float32(0.0), np.float32(0.5), np.float32(1.0)
    while b - a > 1 and upto - below > _LEFT:
        inside = upto - below
        middle = (a + b) >> 1
        if turn < 3:
            lower = of_key(a) if below > 0 else low
            upper = of_key(b)
            each = one / np.float32(inside)
            share = (np.float32(k - below) - half) * each
            # one standard deviation toward the side that leaves fewer values, every third time toward the other
            away = np.float32(math.sqrt(max(share * (one - share) * each, zero)))
            share += away if (share < half) == (turn != 1) else -away
            guess = lower + (upper - lower) * min(max(share, zero), one)
            if abs(guess) < _INF:  # false for a bracket that ends in infinity
                middle = min(max(key_of(guess), a + 1), b - 1)
            turn += 1
        elif inside > goal // 4:
            turn, goal = 0, inside
        else:
            turn, goal = 0, inside
            continue
        # the one expensive thing: a full pass over the view
        found = count_upto(view, of_key(middle))
        if found >= k:
            b = middle
            upto = found
        else:
            a = middle
            below = found
    if b - a == 1:
        return of_key(b)
    return _few(view, of_key(a), of_key(b), k - below, tiny)
