# mypy: ignore-errors
# Compiled by numba: a language of its own that only looks like Python.
"""Measure S and D of one channel and the record of their derivatives (:mod:`gbn.kernels.plan`), for every pair.

Two separate entry points, which forward passes call once per channel, so that they compile in parallel with those
instead of after them. ``rare`` is None or True: without and with the pairs that few networks use.

The formulas are those of :mod:`gbn.risk`; scalars are float64. A channel with a non-finite value gives NaN
throughout.

Arguments of all functions:

    view                (x, start, planes, stride, length): the channel's n samples, see :mod:`.search`
    part                S or D in the plan, an :class:`.encode.Part`; its terms are :class:`.encode.Term`
    moments             (mean, variance), float64; (0, 0) where no part needs them
    levels              (values, below, at): (ranks,) float32, int64, int64, of :func:`.select.select`
    windows             (2 * terms,) float64: mean and variance of each window
    tail                (4,) float64: level, sum of x - level, sum of its positive part, 1 if these are set
    solved              (4,) float64, see :mod:`.locations`
    record              (HEAD + POINT * points,) float32, zeroed beforehand
    point               int64, the next free breakpoint
"""

from __future__ import annotations

import ctypes
import math

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
from .encode import TERM, part_at, plan_at, term_at
from .locations import expectile, huber, huber_statistic
from .memory import ahead, doubles, floats, int64s, integers, reader
from .record import put_point
from .search import extent, samples
from .select import select

__all__ = ["Job", "job_at", "measure", "measure_any"]


class Job(ctypes.Structure):
    """The argument of a measurement: one table per channel, of numbers and addresses."""

    _fields_ = int64s(
        "source",  # float32; with the next four a view, see .search
        "start",
        "planes",
        "stride",
        "length",
        "plan",  # a .encode.Encoded
        "room",  # float32 scratch: one per rank, then what .select.room_to_select says
        "places",  # int64 scratch: two per rank
        "wide",  # float64 scratch: eight, then two per term
        "record",  # float32 (HEAD + POINT * points,), written
        "s",  # float32, written
        "d",  # float32, written
    )


job_at = reader(Job)

_NAN = np.float32(math.nan)
_INF = np.float32(math.inf)


@compiled
def _rank_sum(view, part, levels, windows, tail):
    """Return a weighted sum of order statistics or of window means, plus the mean's part; fill the windows' moments.

    ``tail`` receives the sums of x - level and of its positive part about ``tail[0]``, which the pass over a
    window yields for free.
    """
    values, below, at = levels
    value = np.float64(0.0)
    for t in range(part.count):
        term = term_at(part.terms + t * TERM)
        if part.mode in (SMOOTHED, WINDOW_CENTRED):
            low, high = values[term.low_place], values[term.high_place]
            width = term.high - term.low + 1
            tail[1], tail[2], cuts, squares = sums.tail_and_window(view, np.float32(tail[0]), low, high)
            tail[3] = 1.0
            # the pass counted every sample tied with the upper edge; take off those whose rank is above the window
            tied = below[term.high_place] + at[term.high_place] - term.high
            size = np.float64(np.float32(high - low))
            cuts -= tied * size
            squares -= tied * size * size
            windows[2 * t] = low + cuts / width
            windows[2 * t + 1] = max(squares / width - (cuts / width) ** 2, 0.0)
        value += term.weight * (windows[2 * t] if part.mode == SMOOTHED else values[term.place])
    mean_weight = part.number
    if mean_weight != 0.0:
        # the mean of differences, so that a constant channel gives 0 whatever the rounding
        anchor = np.float32(-value / mean_weight)
        s, _ = sums.moments(view, anchor)
        value = max(mean_weight * (s / samples(view)) + (value + mean_weight * anchor), 0.0)
    return value


@compiled
def _rank_record(part, levels, windows, record, point):
    """Write the breakpoints of a weighted sum of order statistics, from breakpoint ``point`` on.

    The modes are those of :mod:`gbn.risk.ranks`: a point for ``exact``, the two edges of the window for the modes
    with one, nothing for the others.
    """
    values, below, at = levels
    for t in range(part.count):
        term = term_at(part.terms + t * TERM)
        weight = term.weight
        if part.mode == EXACT:
            # tied samples share the weight
            put_point(record, point, values[term.place], weight / at[term.place], 0.0, 0.0, 0.0)
            point += 1
        elif part.mode != EVEN and part.mode != DETACHED:
            low, high, width = term.low_place, term.high_place, term.high - term.low + 1
            lower, upper = np.float64(values[low]), np.float64(values[high])
            if lower < upper:
                mean, tilt = 0.0, 0.0
                if part.mode == WINDOW_CENTRED:
                    mean, variance = windows[2 * t], windows[2 * t + 1]
                    tilt = (values[term.place] - mean) / variance if variance > 0.0 else 0.0
                each = weight / width
                rise, bend = np.float32(each * (1.0 + tilt * (lower - mean))), np.float32(each * tilt)
                span = np.float32(upper - lower)
                end = rise + bend * span  # float32, as the kernel adds it up at and beyond the upper edge
                # ranks of the window that belong to samples tied with an edge
                ranks_lower = below[low] + at[low] - (term.low - 1)
                ranks_upper = term.high - below[high]
                at_lower = ranks_lower / at[low] * each * (1.0 + tilt * (lower - mean))
                at_upper = ranks_upper / at[high] * each * (1.0 + tilt * (upper - mean)) - end
                put_point(record, point, lower, at_lower, rise, bend, span)
                put_point(record, point + 1, upper, at_upper, -end, 0.0, 0.0)
            else:
                # the whole window is one tied value: a point, and an empty slot, since the plan promises two
                put_point(record, point, lower, weight / at[low], 0.0, 0.0, 0.0)
                put_point(record, point + 1, upper, 0.0, 0.0, 0.0, 0.0)
            point += 2


@compiled
def _tails(view, part, levels, tail, record, point):
    """Return the sum of the superquantile deviations and the base of its derivative; write its breakpoints.

    Superquantile minus mean is mean [x - q]_+ / (1 - alpha) - mean (x - q) (:func:`gbn.risk.tails.tail_deviation`).
    """
    values, below, at = levels
    n = samples(view)
    value, base = np.float64(0.0), np.float64(0.0)
    for t in range(part.count):
        term = term_at(part.terms + t * TERM)
        weight, place = term.weight, term.place
        level = values[place]
        # one pass gives both sums; a window about the same level may have provided them already
        if tail[3] == 0.0 or tail[0] != level:
            tail[0], tail[3] = level, 1.0
            tail[1], tail[2], _, _ = sums.sides(view, level)
        each = 1.0 / (n * (1.0 - term.alpha))
        # at the level itself the samples share what is left of the tail's weight 1 - alpha
        if term.mirrored:
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
def _expectile_point(view, e, tau, record, point):
    """Write the breakpoint of the expectile e, float32, whose derivative is w / sum w; return its value below e.

    w is tau above e and 1 - tau below it (:mod:`gbn.risk.expectiles`); a tie with e gets the middle of the
    subdifferential.
    """
    over, at = sums.above(view, e)
    total = tau * over + 0.5 * at + (1.0 - tau) * (samples(view) - over - at)
    put_point(record, point, e, (tau - 0.5) / total, (2.0 * tau - 1.0) / total, 0.0, 0.0)
    return (1.0 - tau) / total


@compiled
def _log_mean_exp(view):
    """Return (top, rest): log mean exp x = top + rest, top the maximum, so that no exponential overflows."""
    _, top, _ = extent(view)
    return top, math.log(sums.exponentials(view, top) / samples(view))


@compiled
def _statistic(view, part, moments, levels, windows, tail, solved, record, rare):
    """Return S, float32, and write its part of the record, from breakpoint 0 on."""
    n, kind = samples(view), part.kind
    mean, variance = moments
    if kind == MEAN:
        record[0] = 1.0 / n
        return np.float32(mean)
    if kind == RANKS:
        s = np.float32(_rank_sum(view, part, levels, windows, tail))
        if part.mode == EVEN:
            record[0] = 1.0 / n  # the weights of a statistic sum to 1
        _rank_record(part, levels, windows, record, 0)
        return s
    if rare is not None:
        if kind == EXPECTILE:
            s = np.float32(expectile(view, part.number, mean))
            record[0] = _expectile_point(view, s, part.number, record, 0)
            return s
        if kind == HUBER:
            return huber_statistic(view, part, mean, variance, solved, record)
        # ENTROPIC
        top, rest = _log_mean_exp(view)
        s = np.float32(top + rest)
        record[4], record[5] = s, 1.0 / n
        return s
    return _NAN


@compiled
def _deviation(view, part, s, moments, levels, windows, tail, solved, record, point, rare):
    """Return D, float64, and write its part of the record, from breakpoint ``point`` on."""
    n, kind = samples(view), part.kind
    mean, variance = moments
    # a slope is about S, these formulas are about the mean: the base makes up for the difference
    shift = np.float64(s) - mean
    if kind == TAILS:
        d, record[2] = _tails(view, part, levels, tail, record, point)
        return d
    if kind == RANKS:
        d = _rank_sum(view, part, levels, windows, tail)
        record[2] = part.number / n
        _rank_record(part, levels, windows, record, point)
        return d
    if kind == STD:
        # d/dx_k = (x_k - mean) / (n D)
        d = math.sqrt(variance)
        if d > 0.0:
            record[2], record[3] = shift / (n * d), 1.0 / (n * d)
        return d
    if kind == MEAN_MAD:
        level = np.float32(mean)
        s1, p, _, _ = sums.sides(view, level)
        over, at = sums.above(view, level)
        # d/dx_k mean abs(x - m) = (sign(x_k - m) - mean sign) / n; the base is the value below the level
        record[2] = (-1.0 - (2.0 * over + at - n) / n) / n
        put_point(record, point, level, 1.0 / n, 2.0 / n, 0.0, 0.0)
        return (2.0 * p - s1) / n
    if kind == SEMIDEVIATION:
        # d/dx_k = +-(p_k - mean p) / (n D), p the part of x - mean on the side that counts
        s1, p, q, r = sums.sides(view, np.float32(mean))
        upper = part.number > 0.0
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
            tau = part.number
            e = expectile(view, tau, mean)
            level = np.float32(e)
            if kind == EXPECTILE_RISK:
                record[2] = _expectile_point(view, level, tau, record, point) - 1.0 / n
                return max(e - mean, 0.0)
            # d/dx_k = w_k (x_k - e) / (n D); e minimizes, so that its own change does not count
            _, _, q, r = sums.sides(view, level)
            d = math.sqrt(((1.0 - tau) * q + (2.0 * tau - 1.0) * r) / n)
            each = 1.0 / (n * d) if d > 0.0 else 0.0
            record[2] = (1.0 - tau) * (np.float64(s) - np.float64(level)) * each
            record[3] = (1.0 - tau) * each
            put_point(record, point, level, 0.0, 0.0, (2.0 * tau - 1.0) * each, _INF)
            return d
        if kind == HUBER:
            return huber(view, part, s, mean, variance, solved, record, point)
        # ENTROPIC
        top, rest = _log_mean_exp(view)
        record[2], record[4], record[6] = -1.0 / n, top + rest, 1.0 / n
        return max(np.float64(top) - mean + rest, 0.0)
    return math.nan


@compiled
def _measure(view, plan, room, places, wide, record, rare):
    """Return S and D of a channel, float32, and fill its record.

    plan                    an :class:`.encode.Encoded`
    room, places, wide      scratch, see :class:`Job`
    """
    ranks, keep = plan.ranks, HEAD + POINT * plan.points
    s_part, d_part = part_at(plan.statistic), part_at(plan.deviation)
    for i in range(keep):
        record[i] = 0.0
    levels = (room, places, ahead(places, ranks))
    whole = True
    # order statistics first: they find non-finite values, and give the tails their levels
    if ranks > 0:
        whole = select(view, integers(plan.wanted), ranks, *levels, ahead(room, ranks))
    mean, variance = np.float64(0.0), np.float64(0.0)
    # one more pass only if a part needs the mean or the variance
    if s_part.kind != RANKS or (d_part.kind != TAILS and d_part.kind != RANKS):
        mean, variance = sums.about(view)
        whole = whole and mean == mean
    if not whole:
        for i in range(keep):
            record[i] = _NAN
        return _NAN, _NAN
    moments = (mean, variance)
    tail, solved, windows = wide, ahead(wide, 4), ahead(wide, 8)
    # the level about which the window's pass collects the tail's sums, so that D may not need a pass of its own
    tail[0] = room[term_at(d_part.terms).place] if d_part.kind == TAILS else mean
    tail[3] = 0.0
    solved[3] = 0.0
    s = _statistic(view, s_part, moments, levels, windows, tail, solved, record, rare)
    d = _deviation(view, d_part, s, moments, levels, windows, tail, solved, record, s_part.points, rare)
    return s, np.float32(d)


@compiled
def _fill(address, rare):
    job = job_at(address)
    view = (floats(job.source), job.start, job.planes, job.stride, job.length)
    scratch = (floats(job.room), integers(job.places), doubles(job.wide))
    s, d = _measure(view, plan_at(job.plan), *scratch, floats(job.record), rare)
    floats(job.s)[0], floats(job.d)[0] = s, d


@entry_point
def measure(address):
    """Measure a channel with a common pair (:func:`gbn.kernels.plan.is_common`): S, D and the record."""
    _fill(address, None)


@entry_point
def measure_any(address):
    """Do the same for any pair."""
    _fill(address, True)
