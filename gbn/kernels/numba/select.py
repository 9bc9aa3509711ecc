# mypy: ignore-errors
# Compiled by numba: a language of its own that only looks like Python.
"""Exact order statistics of a channel at the cost of about one pass over it.

A sample of the channel, some hundred or thousand values, brackets each wanted rank. One pass counts what is below the
brackets of neighboring ranks and collects what is inside; a search by counting finds each order statistic there.
Where a bracket misses (one in eighty, or adversarial data), the same search runs over the whole channel. So the time
depends on luck, the result never does.

The idea is that of Floyd and Rivest (Expected time bounds for selection, CACM 1975): a sample of n^(2/3) values says
where to look, and only few values have to be looked at again. Views are those of :mod:`.search`.
"""

from __future__ import annotations

import math

import numpy as np

from .compiling import compiled, inlined
from .memory import ahead, compress, load, load_first, prefetch, store
from .search import count_about, extent, row, samples, search
from .simd import LANES, as_float, fma, highest, maximum, splat, tallied, tally, total_narrow, where, zeros32

__all__ = ["SLACK", "room_to_select", "select"]

#: Up to this many values times ranks a channel is searched directly: a sample would cost what it saves.
_SHORT = 4096

#: Samples that are ranked by comparing each with each; channels up to this length get no larger sample.
_FEW, _LONG = 128, 8192

#: Half the width of a bracket in standard deviations of a sample's rank. One in 80 misses on independent samples,
#: which costs less than wider brackets would.
_SPREAD = 2.5

#: Floats that a scratch array needs beyond its values, because whole vectors are written.
SLACK = 2 * LANES

#: Ranks at most this share of n apart, and at most so many of them, are bracketed together.
_NEAR, _GROUP = 0.35, 8

_NAN = np.float32(math.nan)
_INF = np.float32(math.inf)
_ZERO = np.float32(0.0)


def room_to_select(n: int) -> int:
    """Return the floats of scratch for :func:`select` among n values: brackets, sample, and twice all values."""
    return 4 * SLACK + _FEW + max(math.ceil(n ** (2 / 3)) + LANES, _FEW) + 2 * (n + SLACK)


@compiled
def _take_sample(view, sample):
    """Copy evenly spaced values of a view to ``sample``; return how many, a multiple of 16.

    n^(2/3) of them, or few: the work on the sample and the work inside the brackets then grow alike.
    """
    x, start, planes, stride, length = view
    n = samples(view)
    m = LANES * math.ceil(n ** (2.0 / 3.0) / LANES) if n > _LONG else _FEW
    step = max(n // m, 1)
    step -= 1 - (step & 1)  # odd: an even step could hit the same columns of every image
    place = step // 2
    row = start
    taken = 0
    while taken < m:
        while place >= length:
            place -= length
            row += stride
            planes -= 1
        if planes <= 0:
            break
        sample[taken] = x[row + place]
        taken += 1
        place += step
    return taken // LANES * LANES


@compiled
def _count_smaller(sample, m, smaller):
    """Count, for each of m values (a multiple of 16), how many are smaller; m^2 / 16 comparisons.

    sample, smaller     (m,) float32; ``smaller`` is written, as float32 to be compared without conversion
    """
    # four vectors at a time share each broadcast value
    for i in range(0, m, 4 * LANES):
        v1, v2 = load(sample, i), load(sample, i + LANES)
        v3, v4 = load(sample, i + 2 * LANES), load(sample, i + 3 * LANES)
        n1, n2, n3, n4 = zeros32(), zeros32(), zeros32(), zeros32()
        for j in range(m):
            one = splat(sample[j])
            n1, n2 = tally(n1, one < v1), tally(n2, one < v2)
            n3, n4 = tally(n3, one < v3), tally(n4, one < v4)
        store(smaller, i, as_float(n1))
        store(smaller, i + LANES, as_float(n2))
        store(smaller, i + 2 * LANES, as_float(n3))
        store(smaller, i + 3 * LANES, as_float(n4))


@compiled
def _of_rank(sample, smaller, m, k):
    """Return the k-th smallest: the largest value with fewer than k smaller ones."""
    limit, minus = splat(np.float32(k)), splat(-_INF)
    best = minus
    for i in range(0, m, LANES):
        best = maximum(where(load(smaller, i) < limit, load(sample, i), minus), best)
    return highest(best)


@compiled
def _bracket(sample, m, share, ends, place, smaller, extremes, tiny):
    """Write the two values of the sample between which the order statistic at this share of the ranks is expected.

    sample, smaller     (m,) float32
    ends                float32, written at ``place`` and ``place + 1``
    share               float64, rank / n
    extremes            two float32, bounds of the sample
    """
    reach = _SPREAD * math.sqrt(m * share * (1.0 - share)) + 1.0
    begin = math.floor(m * share - reach)
    end = math.ceil(m * share + reach)
    low, high = extremes
    # beyond the ends of the sample nothing is known: the bracket is open there
    ends[place] = -_INF
    ends[place + 1] = _INF
    if m <= _FEW:
        if begin >= 1:
            ends[place] = _of_rank(sample, smaller, m, begin)
        if end <= m:
            ends[place + 1] = _of_rank(sample, smaller, m, end)
    else:
        if begin >= 1:
            ends[place] = search(row(sample, m), begin, low, high, tiny)
        if end <= m:
            ends[place + 1] = search(row(sample, m), end, low, high, tiny)


@inlined
def _collect_step(v, lower, upper, below, inside, found):
    return tally(below, v < lower), compress(inside, found, (v >= lower) & (v <= upper), v)


@compiled
def _collect(view, low, high, inside):
    """Copy the values from low to high to ``inside``; return their number, that below, and if all are finite.

    low, high       float32, both inclusive
    inside          (n + SLACK,) float32
    """
    x, start, planes, stride, length = view
    lower, upper, nothing, zero = splat(low), splat(high), splat(_NAN), splat(_ZERO)
    below, spoilt = zeros32(), zero  # spoilt: 0 times a non-finite number is NaN
    found = 0
    for plane in range(planes):
        begin = start + plane * stride
        end = begin + length
        whole = begin + length // LANES * LANES
        for i in range(begin, whole, LANES):
            prefetch(x, i + stride)
            v = load(x, i)
            spoilt = fma(v, zero, spoilt)
            below, found = _collect_step(v, lower, upper, below, inside, found)
        if whole < end:
            v = load_first(x, whole, end - whole, nothing)
            # ``nothing`` is NaN, so the check for finite values needs another fill
            spoilt = fma(load_first(x, whole, end - whole, zero), zero, spoilt)
            below, found = _collect_step(v, lower, upper, below, inside, found)
    return found, tallied(below), total_narrow(spoilt) == 0.0


@compiled
def _search_in(buffer, n, k, low, high, tiny):
    """Return the k-th smallest of n collected values; an open bracket first gets their actual extent."""
    if not (low > -_INF and high < _INF):
        low, high, _ = extent(row(buffer, n))
    return search(row(buffer, n), k, low, high, tiny)


@compiled
def select(view, ranks, places, values, below, at, room):
    """Find the order statistics of ``places`` ranks, how many values are below each, and how many are equal to it.

    ranks           (places,) int64, ascending, from 1 to the number of values
    values          (places,) float32, written
    below, at       (places,) int64, written
    room            (room_to_select(n),) float32 scratch

    Returns False, and selects nothing, if any value is not finite.
    """
    n = samples(view)
    m = 0
    # room: 4 x 16 ends, up to 64 values of a search's last step, ranks of the sample, sample, collected, picked
    ends, tiny = room, ahead(room, SLACK)
    smaller = ahead(room, 3 * SLACK)
    sample = ahead(smaller, _FEW)
    inside = ahead(sample, SLACK + max(math.ceil(n ** (2.0 / 3.0)) + LANES, _FEW))
    picked = ahead(inside, n + SLACK)
    extremes = (_INF, -_INF)  # of the sample, or without a sample of all values
    if n * places > _SHORT:
        m = _take_sample(view, sample)
        if m <= _FEW:
            _count_smaller(sample, m, smaller)
        else:
            low, high, _ = extent(row(sample, m))
            extremes = (low, high)
    if m == 0:
        # with a sample, the pass that collects also checks that all values are finite
        low, high, whole = extent(view)
        if not whole:
            return False
        extremes = (low, high)
    first = 0
    while first < places:
        # nearby ranks share one pass over the channel, with one bracket around all of theirs
        last = first + 1
        while last < min(places, first + _GROUP) and ranks[last] - ranks[first] <= _NEAR * n:
            last += 1
        found, less = 0, 0
        if m > 0:
            low, high = _INF, -_INF
            for j in range(first, last):
                _bracket(sample, m, ranks[j] / n, ends, 2 * (j - first), smaller, extremes, tiny)
                low, high = min(low, ends[2 * (j - first)]), max(high, ends[2 * (j - first) + 1])
            found, less, whole = _collect(view, low, high, inside)
            if not whole:
                return False
        for j in range(first, last):
            k = ranks[j]
            if m > 0:
                low, high = ends[2 * (j - first)], ends[2 * (j - first) + 1]
                # several ranks: narrow the shared bracket down to this rank's own
                bracketed, within, under = inside, found, 0
                if last - first > 1:
                    bracketed = picked
                    within, under, _ = _collect(row(inside, found), low, high, picked)
                # a hit: the rank is inside the bracket
                if less + under < k <= less + under + within:
                    values[j] = _search_in(bracketed, within, k - less - under, low, high, tiny)
                    lower, equal = count_about(row(bracketed, within), values[j])
                    below[j] = less + under + lower
                    at[j] = equal
                    continue
            # a miss, or no sample: search the whole channel
            low, high = extremes
            if m > 0:
                low, high, _ = extent(view)
            values[j] = search(view, k, low, high, tiny)
            below[j], at[j] = count_about(view, values[j])
        first = last
    return True
