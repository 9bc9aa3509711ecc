# mypy: ignore-errors
# Compiled by numba: a language of its own that only looks like Python.
"""Measure S and D of one channel and the record of their derivatives (:mod:`gbn.kernels.plan`), for every pair.

Two separate entry points, which forward passes call once per channel, so that they compile in parallel with those
instead of after them. ``rare`` is None or True: without and with the pairs that few networks use.

The formulas are those of :mod:`gbn.risk`; scalars are float64. A channel with a non-finite value gives NaN
throughout.

Arguments of all functions:

    view                (x, start, planes, stride, length), see :mod:`.search`
    integers, reals     int64 and float64, the plan (:mod:`.encode`)
    first, terms        int64, the first term of this part among all terms, and how many it has
    levels              (values, below, at): (ranks,) float32, int64, int64, of :func:`.select.select`
    windows             (2 * terms,) float64: mean and variance of each window
    tail                (4,) float64: level, sum of x - level, sum of its positive part, 1 if these are set
    solved              (4,) float64, see :mod:`.locations`
    record              (HEAD + POINT * points,) float32, zeroed beforehand
    point               int64, the next free breakpoint
"""

from __future__ import annotations

import math
from enum import IntEnum

import numpy as np

from gbn.kernels.plan import (
    DETACHED,
    EVEN,
    EXACT,
    EXPECTILE,
    EXPECTILE_RISK,
    HEAD,
    HUBER,
    MEAN,
    MEAN_MAD,
    POINT,
    RANKS,
    SEMIDEVIATION,
    SMOOTHED,
    STD,
    TAILS,
    WINDOW_CENTRED,
)

from . import sums
from .compiling import compiled, entry_point
from .encode import (
    D_KIND,
    D_MODE,
    D_TERMS,
    INTEGERS,
    POINTS,
    RANK_COUNT,
    REALS,
    S_KIND,
    S_MODE,
    S_TERMS,
    TERM,
)
from .locations import expectile, huber, huber_statistic
from .memory import ahead, doubles, floats
from .memory import integers as ints
from .record import put_point
from .search import extent
from .select import select

__all__ = ["Job", "measure", "measure_any"]


class Job(IntEnum):
    """The argument of a measurement: one table per channel, an address or a number per slot, int64 each."""

    SOURCE = 0  # float32; with the next four a view, see .search
    START = 1
    PLANES = 2
    STRIDE = 3
    LENGTH = 4
    PLAN = 5  # int64; with the next slot, see .encode
    NUMBERS = 6  # float64
    ROOM = 7  # float32 scratch: one per rank, then what .select.room_to_select says
    PLACES = 8  # int64 scratch: two per rank
    WIDE = 9  # float64 scratch: eight, then two per term
    RECORD = 10  # float32 (HEAD + POINT * points,), written
    S = 11  # float32, written
    D = 12  # float32, written


# numba treats plain integers at module level as constants.
SOURCE, START, PLANES, STRIDE, LENGTH, PLAN, NUMBERS, ROOM, PLACES, WIDE, RECORD, S, D = (
    int(place) for place in Job
)

_NAN = np.float32(math.nan)
_INF = np.float32(math.inf)


@compiled
def _rank_sum(view, integers, reals, first, terms, mode, mean_weight, levels, windows, tail):
    """Return a weighted sum of order statistics or of window means, plus the mean's part; fill the windows' moments.

    ``tail`` receives the sums of x - level and of its positive part about ``tail[0]``, which the pass over a
    window yields for free.
    """
    x, start, planes, stride, length = view
    values, below, at = levels
    n = planes * length
    ranks = integers[RANK_COUNT]
    value = np.float64(0.0)
    for t in range(terms):
        term = ahead(integers, INTEGERS + ranks + TERM * (first + t))
        weight = reals[REALS + 2 * (first + t)]
        if mode in (SMOOTHED, WINDOW_CENTRED):
            low, high = values[term[1]], values[term[2]]
            width = term[4] - term[3] + 1
            tail[1], tail[2], cuts, squares = sums.tail_and_window(
                x, start, planes, stride, length, np.float32(tail[0]), low, high
            )
            tail[3] = 1.0
            # the pass counted every sample tied with the upper edge; take off those whose rank is above the window
            tied = below[term[2]] + at[term[2]] - term[4]
            size = np.float64(np.float32(high - low))
            cuts -= tied * size
            squares -= tied * size * size
            windows[2 * t] = low + cuts / width
            windows[2 * t + 1] = max(squares / width - (cuts / width) ** 2, 0.0)
        value += weight * (windows[2 * t] if mode == SMOOTHED else values[term[0]])
    if mean_weight != 0.0:
        # the mean of differences, so that a constant channel gives 0 whatever the rounding
        anchor = np.float32(-value / mean_weight)
        s, _ = sums.moments(x, start, planes, stride, length, anchor)
        value = max(mean_weight * (s / n) + (value + mean_weight * anchor), 0.0)
    return value


@compiled
def _rank_record(n, integers, reals, first, terms, mode, s, levels, windows, record, point):
    """Write the breakpoints of a weighted sum of order statistics about the channel's S; return the next free one."""
    values, below, at = levels
    ranks = integers[RANK_COUNT]
    for t in range(terms):
        term = ahead(integers, INTEGERS + ranks + TERM * (first + t))
        weight = reals[REALS + 2 * (first + t)]
        if mode == EXACT:
            # tied samples share the weight
            put_point(record, point, values[term[0]], weight / at[term[0]], 0.0, 0.0, 0.0)
            point += 1
        elif mode != EVEN and mode != DETACHED:
            low, high, width = term[1], term[2], term[4] - term[3] + 1
            lower, upper = np.float64(values[low]), np.float64(values[high])
            if lower < upper:
                mean, tilt = 0.0, 0.0
                if mode == WINDOW_CENTRED:
                    mean, variance = windows[2 * t], windows[2 * t + 1]
                    tilt = (values[term[0]] - mean) / variance if variance > 0.0 else 0.0
                each = weight / width
                rise, bend = np.float32(each * (1.0 + tilt * (lower - mean))), np.float32(each * tilt)
                span = np.float32(upper - lower)
                end = rise + bend * span  # float32, as the kernel adds it up at and beyond the upper edge
                # ranks of the window that belong to samples tied with an edge
                ranks_lower = below[low] + at[low] - (term[3] - 1)
                ranks_upper = term[4] - below[high]
                at_lower = ranks_lower / at[low] * each * (1.0 + tilt * (lower - mean))
                at_upper = ranks_upper / at[high] * each * (1.0 + tilt * (upper - mean)) - end
                put_point(record, point, lower, at_lower, rise, bend, span)
                put_point(record, point + 1, upper, at_upper, -end, 0.0, 0.0)
            else:
                # the whole window is one tied value: a point, and an empty slot, since the plan promises two
                put_point(record, point, lower, weight / at[low], 0.0, 0.0, 0.0)
                put_point(record, point + 1, upper, 0.0, 0.0, 0.0, 0.0)
            point += 2
    return point


@compiled
def _tails(view, integers, reals, first, terms, levels, tail, record, point):
    """Return the sum of the superquantile deviations and the base of its derivative; write its breakpoints."""
    x, start, planes, stride, length = view
    values, below, at = levels
    n = planes * length
    ranks = integers[RANK_COUNT]
    value, base = np.float64(0.0), np.float64(0.0)
    for t in range(terms):
        place = integers[INTEGERS + ranks + TERM * (first + t)]
        mirrored = integers[INTEGERS + ranks + TERM * (first + t) + 5]
        weight, alpha = reals[REALS + 2 * (first + t)], reals[REALS + 2 * (first + t) + 1]
        level = values[place]
        # one pass gives both sums; a window about the same level may have provided them already
        if tail[3] == 0.0 or tail[0] != level:
            tail[0], tail[3] = level, 1.0
            tail[1], tail[2], _, _ = sums.sides(x, start, planes, stride, length, level)
        each = 1.0 / (n * (1.0 - alpha))
        # at the level itself the samples share what is left of the tail's weight 1 - alpha
        if mirrored:
            value += weight * max((tail[2] - tail[1]) * each + tail[1] / n, 0.0)
            base += weight * (1.0 / n - each)
            share = (1.0 - below[place] * each) / at[place]
            put_point(record, point, level, weight * (each - share), weight * each, 0.0, 0.0)
        else:
            value += weight * max(tail[2] * each - tail[1] / n, 0.0)
            base -= weight / n
            share = (1.0 - (n - below[place] - at[place]) * each) / at[place]
            put_point(record, point, level, weight * share, weight * each, 0.0, 0.0)
        point += 1
    return value, base


@compiled
def _statistic(view, integers, reals, mean, variance, levels, windows, tail, solved, record, rare):
    """Return S, and write its part of the record."""
    x, start, planes, stride, length = view
    n = planes * length
    kind, mode, terms = integers[S_KIND], integers[S_MODE], integers[S_TERMS]
    if kind == MEAN:
        record[0] = 1.0 / n
        return np.float32(mean)
    if kind == RANKS:
        s = np.float32(_rank_sum(view, integers, reals, 0, terms, mode, 0.0, levels, windows, tail))
        if mode == EVEN:
            record[0] = 1.0 / n  # the weights of a statistic sum to 1
        _rank_record(n, integers, reals, 0, terms, mode, np.float64(s), levels, windows, record, 0)
        return s
    if rare is not None:
        if kind == EXPECTILE:
            tau = reals[0]
            s = np.float32(expectile(view, tau, mean))
            over, at = sums.above(x, start, planes, stride, length, s)
            # a tie with the expectile gets the middle of its subdifferential
            total = tau * over + 0.5 * at + (1.0 - tau) * (n - over - at)
            record[0] = (1.0 - tau) / total
            put_point(record, 0, s, (tau - 0.5) / total, (2.0 * tau - 1.0) / total, 0.0, 0.0)
            return s
        if kind == HUBER:
            return huber_statistic(view, reals[0], reals[1], mean, variance, solved, record)
        # ENTROPIC: subtract the maximum, so that no exponential overflows
        _, top, _ = extent(x, start, planes, stride, length)
        s = np.float32(top + math.log(sums.exponentials(x, start, planes, stride, length, top) / n))
        record[4], record[5] = s, 1.0 / n
        return s
    return _NAN


@compiled
def _deviation(view, integers, reals, s, mean, variance, levels, windows, tail, solved, record, point, rare):
    """Return D, and write its part of the record, from breakpoint ``point`` on."""
    x, start, planes, stride, length = view
    n = planes * length
    kind, mode, terms = integers[D_KIND], integers[D_MODE], integers[D_TERMS]
    first = integers[S_TERMS]
    # a slope is about S, these formulas are about the mean: the base makes up for the difference
    shift = np.float64(s) - mean
    if kind == TAILS:
        d, record[2] = _tails(view, integers, reals, first, terms, levels, tail, record, point)
        return d
    if kind == RANKS:
        d = _rank_sum(view, integers, reals, first, terms, mode, reals[2], levels, windows, tail)
        record[2] = reals[2] / n
        _rank_record(n, integers, reals, first, terms, mode, np.float64(s), levels, windows, record, point)
        return d
    if kind == STD:
        d = math.sqrt(variance)
        if d > 0.0:
            record[2], record[3] = shift / (n * d), 1.0 / (n * d)
        return d
    if kind == MEAN_MAD:
        level = np.float32(mean)
        s1, p, _, _ = sums.sides(x, start, planes, stride, length, level)
        over, at = sums.above(x, start, planes, stride, length, level)
        # d/dx_k mean abs(x - m) = (sign(x_k - m) - mean sign) / n; the base is the value below the level
        record[2] = (-1.0 - (2.0 * over + at - n) / n) / n
        put_point(record, point, level, 1.0 / n, 2.0 / n, 0.0, 0.0)
        return (2.0 * p - s1) / n
    if kind == SEMIDEVIATION:
        s1, p, q, r = sums.sides(x, start, planes, stride, length, np.float32(mean))
        upper = reals[2] > 0.0
        half = (p if upper else p - s1) / n
        d = math.sqrt((r if upper else q - r) / n)
        if d > 0.0:
            each = 1.0 / (n * d)
            if upper:
                record[2] = -half * each
                put_point(record, point, mean, 0.0, 0.0, each, _INF)
            else:
                record[2], record[3] = (shift + half) * each, each
                put_point(record, point, mean, 0.0, 0.0, -each, _INF)
        return d
    if rare is not None:
        if kind in (EXPECTILE, EXPECTILE_RISK):
            tau = reals[2]
            e = expectile(view, tau, mean)
            level = np.float32(e)
            if kind == EXPECTILE_RISK:
                over, at = sums.above(x, start, planes, stride, length, level)
                total = tau * over + 0.5 * at + (1.0 - tau) * (n - over - at)
                record[2] = (1.0 - tau) / total - 1.0 / n
                put_point(record, point, level, (tau - 0.5) / total, (2.0 * tau - 1.0) / total, 0.0, 0.0)
                return max(e - mean, 0.0)
            _, _, q, r = sums.sides(x, start, planes, stride, length, level)
            d = math.sqrt(((1.0 - tau) * q + (2.0 * tau - 1.0) * r) / n)
            each = 1.0 / (n * d) if d > 0.0 else 0.0
            record[2] = (1.0 - tau) * (np.float64(s) - np.float64(level)) * each
            record[3] = (1.0 - tau) * each
            put_point(record, point, level, 0.0, 0.0, (2.0 * tau - 1.0) * each, _INF)
            return d
        if kind == HUBER:
            return huber(view, reals[2], reals[3], s, mean, variance, solved, record, point)
        # ENTROPIC, as in _statistic
        _, top, _ = extent(x, start, planes, stride, length)
        rest = math.log(sums.exponentials(x, start, planes, stride, length, top) / n)
        record[2], record[4], record[6] = -1.0 / n, top + rest, 1.0 / n
        return max(np.float64(top) - mean + rest, 0.0)
    return math.nan


@compiled
def _measure(view, integers, reals, room, places, wide, record, rare):
    """Return S and D of a channel, float32, and fill its record.

    ``room``, ``places`` and ``wide`` are scratch, see :class:`Job`.
    """
    x, start, planes, stride, length = view
    ranks = integers[RANK_COUNT]
    for i in range(HEAD + POINT * integers[POINTS]):
        record[i] = 0.0
    values, below, at = room, places, ahead(places, ranks)
    levels = (values, below, at)
    whole = True
    # order statistics first: they find non-finite values, and give the tails their levels
    if ranks > 0:
        wanted = ahead(integers, INTEGERS)
        whole = select(x, start, planes, stride, length, wanted, ranks, values, below, at, ahead(room, ranks))
    mean, variance = np.float64(0.0), np.float64(0.0)
    s_kind, d_kind = integers[S_KIND], integers[D_KIND]
    # one more pass only if a part needs the mean or the variance
    if s_kind != RANKS or (d_kind != TAILS and d_kind != RANKS):
        mean, variance = sums.about(x, start, planes, stride, length)
        whole = whole and mean == mean
    if not whole:
        for i in range(HEAD + POINT * integers[POINTS]):
            record[i] = _NAN
        return _NAN, _NAN
    tail, solved, windows = wide, ahead(wide, 4), ahead(wide, 8)
    # the level about which the window's pass collects the tail's sums, so that D may not need a pass of its own
    tail[0] = values[integers[INTEGERS + ranks + TERM * integers[S_TERMS]]] if d_kind == TAILS else mean
    tail[3] = 0.0
    solved[3] = 0.0
    s = _statistic(view, integers, reals, mean, variance, levels, windows, tail, solved, record, rare)
    # breakpoints that S has used, as in gbn.kernels.plan
    point = 0
    if s_kind == EXPECTILE:
        point = 1
    elif s_kind == HUBER:
        point = 3
    elif s_kind == RANKS and integers[S_MODE] != EVEN and integers[S_MODE] != DETACHED:
        point = integers[S_TERMS] * (1 if integers[S_MODE] == EXACT else 2)
    d = _deviation(
        view, integers, reals, s, mean, variance, levels, windows, tail, solved, record, point, rare
    )
    return s, np.float32(d)


@compiled
def _fill(address, rare):
    job = ints(address)
    view = (floats(job[SOURCE]), job[START], job[PLANES], job[STRIDE], job[LENGTH])
    numbers = (ints(job[PLAN]), doubles(job[NUMBERS]))
    s, d = _measure(
        view, *numbers, floats(job[ROOM]), ints(job[PLACES]), doubles(job[WIDE]), floats(job[RECORD]), rare
    )
    floats(job[S])[0], floats(job[D])[0] = s, d


@entry_point
def measure(address):
    """Measure a channel with a common pair (:func:`gbn.kernels.plan.is_common`): S, D and the record."""
    _fill(address, None)


@entry_point
def measure_any(address):
    """Do the same for any pair."""
    _fill(address, True)
