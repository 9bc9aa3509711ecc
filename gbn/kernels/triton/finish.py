# mypy: disable-error-code="no-untyped-def"
"""Device functions that turn order statistics, counts and sums of one channel into S, D and the record.

Everything is computed in float64, as :mod:`gbn.risk` defines it; the record's layout is :mod:`gbn.kernels.plan`'s.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gbn.kernels import plan

__all__ = ["measures", "pick", "window_moments", "window_points"]

_HEAD = tl.constexpr(plan.HEAD)
_POINT = tl.constexpr(plan.POINT)
_MEAN = tl.constexpr(plan.MEAN)
_STD = tl.constexpr(plan.STD)
_TAILS = tl.constexpr(plan.TAILS)
_EVEN = tl.constexpr(plan.EVEN)
_NUMBERS = tl.constexpr(4)  # per term: schedule.NUMBERS


@triton.jit
def pick(values, places, i):
    """Return the value at index i of a register tensor, as a scalar."""
    return tl.sum(tl.where(places == i, values, tl.zeros_like(values)), axis=0)


@triton.jit
def _put(row, i, value, nan):
    tl.store(row + i, tl.where(nan, float("nan"), value).to(tl.float32))


@triton.jit
def _rank_sum(VALUES: tl.constexpr, TERM: tl.constexpr, numbers, r, q, w, mean):
    """Return the weighted sum of order statistics and window means, float64; TERM is the index of its first term."""
    total = tl.sum(tl.zeros_like(q), axis=0)
    for i in tl.static_range(len(VALUES)):
        weight = tl.load(numbers + _NUMBERS * (TERM + i))
        if VALUES[i][0] == 1:
            total += weight * pick(mean, w, VALUES[i][1])
        else:
            total += weight * pick(q, r, VALUES[i][1])
    return total


@triton.jit
def measures(
    row,
    s_out,
    d_out,
    numbers,
    nan,
    n,
    r,
    q,
    below,
    at,
    over,
    w,
    mean_of_window,
    pivot,
    moment,
    second,
    S_KIND: tl.constexpr,
    S_MODE: tl.constexpr,
    S_VALUES: tl.constexpr,
    D_KIND: tl.constexpr,
    D_MEAN: tl.constexpr,
    D_VALUES: tl.constexpr,
    D_TERM: tl.constexpr,
    POINTS: tl.constexpr,
):
    """Write S, D, the record's head and the breakpoints of exact order statistics and of tails.

    row                     (WIDTH,) float32, the channel's record
    s_out, d_out            () float32
    numbers                 (terms, 4) float64, of :func:`.schedule.numbers_on`
    nan                     bool: a sample is not finite
    n                       int: samples of the channel
    r                       (RP,) int32, index of a rank
    q, below, at, over      (RP,) float64: its order statistic, the samples below and at it, the sum of x - q above it
    w                       (WP,) int32, index of a window
    mean_of_window          (WP,) float64
    pivot, moment, second   float64: the pivot, and the means of x - pivot and of its square
    S_KIND ... POINTS       of :class:`.schedule.Stage` and of the plan
    D_MEAN, D_TERM          the mean's weight in D, and the index of D's first term
    """
    mean = pivot + moment
    each = 1.0 / tl.cast(n, tl.float64)  # n = 1 is compiled as a constant
    s = mean
    if S_KIND != _MEAN:
        s = _rank_sum(S_VALUES, 0, numbers, r, q, w, mean_of_window)
    # the backward pass reads S in float32: derive the record from the rounded number
    rounded = s.to(tl.float32)
    tl.store(s_out, tl.where(nan, float("nan"), rounded))
    s = rounded.to(tl.float64)
    base_s = each * 0.0
    if (S_KIND == _MEAN) or (S_MODE == _EVEN):
        base_s = each
    base_d = each * 0.0
    slope_d = each * 0.0
    d = each * 0.0
    if D_KIND == _STD:
        # D^2 = mean x^2 - (mean x)^2 about the pivot; d/dx_k = (x_k - mean) / (n D), written about S
        variance = second - moment * moment
        d = tl.sqrt(tl.where(variance < 0.0, 0.0, variance))
        slope_d = tl.where(d == 0.0, 0.0, each / d)
        base_d = tl.where(d == 0.0, 0.0, (s - mean) * slope_d)
    elif D_KIND != _TAILS:
        d = _rank_sum(D_VALUES, D_TERM, numbers, r, q, w, mean_of_window)
        if D_MEAN != 0:
            d += D_MEAN * mean
            d = tl.where(d < 0.0, 0.0, d)
            base_d = each * D_MEAN
    for i in tl.static_range(len(POINTS)):
        weight = tl.load(numbers + _NUMBERS * POINTS[i][2])
        level = pick(q, r, POINTS[i][1])
        n_at = pick(at, r, POINTS[i][1])
        point = row + (_HEAD + _POINT * POINTS[i][0])
        share = weight / n_at
        rise = each * 0.0
        if POINTS[i][4] > 0:
            alpha = tl.load(numbers + _NUMBERS * POINTS[i][2] + 3)
            n_below = pick(below, r, POINTS[i][1])
            above = each / (1.0 - alpha)
            rise = weight * above
            # superquantile - mean = mean [x - q]_+ / (1 - alpha) - mean (x - q) (Rockafellar, Uryasev 2000)
            excess = pick(over, r, POINTS[i][1])
            centered = (pivot - level) + moment
            if POINTS[i][4] == 1:
                part = excess * above - centered
                share = weight * (1.0 - (n - n_below - n_at) * above) / n_at
                base_d -= weight * each
            else:
                # for -x: the excess below is the one above minus the sum of all
                part = (excess - n * centered) * above + centered
                share = weight * (above - (1.0 - n_below * above) / n_at)
                base_d += weight * (each - above)
            d += weight * tl.where(part < 0.0, 0.0, part)
        _put(point, 0, level, nan)
        _put(point, 1, share, nan)
        _put(point, 2, rise, nan)
        _put(point, 3, each * 0.0, nan)
        _put(point, 4, each * 0.0, nan)
    tl.store(d_out, tl.where(nan, float("nan"), d).to(tl.float32))
    _put(row, 0, base_s, nan)
    _put(row, 1, each * 0.0, nan)
    _put(row, 2, base_d, nan)
    _put(row, 3, slope_d, nan)
    for i in tl.static_range(4, _HEAD):
        _put(row, i, each * 0.0, nan)


@triton.jit
def window_moments(within, squares, heart, low, high, rank, r, below, at, w, WINDOWS: tl.constexpr):
    """Return mean and variance of the samples of each window, from the sums about ``heart`` of those strictly inside.

    Samples tied with an edge count with the share that the ranks of the window give them. ``within``, ``squares``,
    ``heart``, ``low`` and ``high`` are (WP,) float64, ``below`` and ``at`` (RP,) float64.
    """
    count = tl.full(within.shape, 1.0, tl.float64)
    tied_low, tied_high = tl.zeros_like(within), tl.zeros_like(within)
    for i in tl.static_range(len(WINDOWS)):
        a, b = pick(rank, r, WINDOWS[i][0]), pick(rank, r, WINDOWS[i][1])
        share = pick(below, r, WINDOWS[i][0]) + pick(at, r, WINDOWS[i][0]) - (a - 1)
        count = tl.where(w == i, (b - a + 1).to(tl.float64), count)
        tied_low = tl.where(w == i, share, tied_low)
        tied_high = tl.where(w == i, b - pick(below, r, WINDOWS[i][1]), tied_high)
    step_low, step_high = low - heart, high - heart
    moment = (within + tied_low * step_low + tied_high * step_high) / count
    second = (squares + tied_low * step_low * step_low + tied_high * step_high * step_high) / count
    apart = low < high
    return tl.where(apart, heart + moment, low), tl.where(apart, second - moment * moment, 0.0)


@triton.jit
def window_points(
    row, found, numbers, nan, r, q, below, at, w, mean, variance, EDGES: tl.constexpr, MEASURES: tl.constexpr
):
    """Write the two breakpoints of each window; ``found`` has the term's own order statistic if r does not."""
    for i in tl.static_range(len(EDGES)):
        term = numbers + _NUMBERS * EDGES[i][4]
        weight, first, last = tl.load(term), tl.load(term + 1), tl.load(term + 2)
        count = last - first + 1.0
        low, high = pick(q, r, EDGES[i][1]), pick(q, r, EDGES[i][2])
        at_low, at_high = pick(at, r, EDGES[i][1]), pick(at, r, EDGES[i][2])
        one = low == high  # the window is a single tied value
        share_low = (pick(below, r, EDGES[i][1]) + at_low - (first - 1.0)) / (at_low * count)
        share_low = tl.where(one, 1.0 / at_low, share_low)
        share_high = (last - pick(below, r, EDGES[i][2])) / (at_high * count)
        factor_low, factor_high, tilt = count * 0.0 + 1.0, count * 0.0 + 1.0, count * 0.0
        if EDGES[i][3] >= 0:
            if MEASURES:
                value = pick(q, r, EDGES[i][5])
            else:
                value = tl.load(found + EDGES[i][5]).to(tl.float64)
            center, spread = pick(mean, w, EDGES[i][3]), pick(variance, w, EDGES[i][3])
            tilt = tl.where(spread == 0.0, 0.0, (value - center) / spread)
            factor_low, factor_high = 1.0 + tilt * (low - center), 1.0 + tilt * (high - center)
        # what the first point adds beyond the window, as summed in float32, is what the second one takes away
        rise = (weight / count * factor_low).to(tl.float32)
        bend = (weight / count * tilt).to(tl.float32)
        span = (high - low).to(tl.float32)
        end = tl.fma(bend, span, rise)
        at_end = tl.where(one, 0.0, weight * share_high * factor_high - end)
        point = row + (_HEAD + _POINT * EDGES[i][0])
        _put(point, 0, low, nan)
        _put(point, 1, weight * share_low * factor_low, nan)
        _put(point, 2, rise, nan)
        _put(point, 3, bend, nan)
        _put(point, 4, span, nan)
        _put(point, 5, high, nan)
        _put(point, 6, at_end, nan)
        _put(point, 7, -end, nan)
        _put(point, 8, count * 0.0, nan)
        _put(point, 9, count * 0.0, nan)
