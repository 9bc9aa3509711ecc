# mypy: disable-error-code="no-untyped-def"
"""The kernel that ends a pass: one program per channel selects the order statistics and writes what a plan asks for.

It selects from a small *source*: the samples that :mod:`.scan` collected, or the whole of a small channel. If a rank
is outside its bracket, or the brackets hold more samples than there is room for, it selects from x itself: slower,
exact, and decided here, without the host.

Selection halves an interval of integer keys until one is left, in at most 32 passes over the source, and about 8
where a bracket is narrow. Only counts decide, so the order of the source does not matter. Sums over it are sums of
whole multiples of a small unit, in float64, hence exact in any order.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .finish import measures, pick, window_moments, window_points
from .places import key, middle, place

__all__ = ["settle"]

#: The unit of a sum, as a fraction of its largest term: 2^22 terms of 2^30 units make 2^52, still exact in float64.
UNITS = tl.constexpr(1073741824.0)


@triton.jit
def _read(
    x, buffer, e, length, whole, channel, stride, step, capacity, LENGTH: tl.constexpr, DIRECT: tl.constexpr
):
    """Return samples e of the source as float32; NaN beyond its end."""
    nan = float("nan")
    if DIRECT:
        return tl.load(x + place(e, channel, stride, step, LENGTH), mask=e < length, other=nan).to(tl.float32)
    else:
        if whole:
            there = e < length
            v = tl.load(x + place(e, channel, stride, step, LENGTH), mask=there, other=nan).to(tl.float32)
        else:
            # up to a multiple of 16, so that the loads can be wide; the buffer has room for it
            there = e < (length + 15) // 16 * 16
            v = tl.load(buffer + channel * capacity + e, mask=there, other=nan).to(tl.float32)
        return tl.where(e < length, v, nan)


@triton.jit
def _units(bound):
    """Return the unit of a sum whose terms are at most bound, float64."""
    return tl.maximum(bound, 1e-120) / UNITS


@triton.jit
def _counted(v, pivot, unit, sum_1, sum_2, TOTAL: tl.constexpr):
    """Add the samples about the pivot, in whole units, and (TOTAL 2) their squares."""
    z = tl.where(v == v, v.to(tl.float64) - pivot, 0.0)
    sum_1 += tl.sum(tl.floor(z / unit + 0.5), axis=1)
    if TOTAL > 1:
        sum_2 += tl.sum(tl.floor((z * z) / (unit * unit * UNITS) + 0.5), axis=1)
    return sum_1, sum_2


@triton.jit(do_not_specialize=["chunks"])
def settle(
    x,
    buffer,
    kept,
    brackets,
    counts,
    sums,
    pivots,
    ranks,
    numbers,
    found,
    s,
    d,
    record,
    n,
    stride,
    step,
    channels,
    capacity,
    chunks,
    LENGTH: tl.constexpr,
    TILE: tl.constexpr,
    CHUNKS: tl.constexpr,
    SHIFT: tl.constexpr,
    DIRECT: tl.constexpr,
    R: tl.constexpr,
    RP: tl.constexpr,
    WINDOWS: tl.constexpr,
    WP: tl.constexpr,
    SQUARES: tl.constexpr,
    TAILS: tl.constexpr,
    TOTAL: tl.constexpr,
    WIDTH: tl.constexpr,
    FOUND: tl.constexpr,
    MEASURES: tl.constexpr,
    S_KIND: tl.constexpr,
    S_MODE: tl.constexpr,
    S_VALUES: tl.constexpr,
    D_KIND: tl.constexpr,
    D_MEAN: tl.constexpr,
    D_VALUES: tl.constexpr,
    D_TERM: tl.constexpr,
    POINTS: tl.constexpr,
    EDGES: tl.constexpr,
):
    """Settle one channel per program.

    Inputs:

        x                   (N, C, *spatial) float32, bfloat16 or float16, addressed as in :mod:`.geometry`
        buffer, kept,
        brackets, counts,
        sums, pivots        of :func:`.scan.scan`; not read if DIRECT
        ranks               (R,) int32
        numbers             (terms, 4) float64, of :func:`.schedule.numbers_on`
        n, stride, step,
        channels, chunks    int32, of :class:`.geometry.View`
        capacity            int32
        RP, WP, CHUNKS      powers of 2, at least R, the number of windows, chunks
        DIRECT              the source is x, and there was no scan
        WIDTH, FOUND        numbers per channel in ``record`` and ``found``
        R ... TOTAL         of :class:`.schedule.Stage`
        MEASURES ...        what to write, see :mod:`.finish`

    Outputs:

        s, d                (C,) float32; read, not written, unless MEASURES
        record              (C, WIDTH) float32
        found               (C, FOUND) float32: the order statistics that S and D are made of; as s and d
    """
    W: tl.constexpr = len(WINDOWS)
    channel = tl.program_id(0)
    far = float("inf")
    r = tl.arange(0, RP)
    rank = tl.load(ranks + r, mask=r < R, other=0)
    low = tl.full([RP], -far, tl.float32)
    high = tl.full([RP], far, tl.float32)
    below = tl.zeros([RP], tl.int32)
    upto = tl.zeros([RP], tl.int32)
    nan = channel < 0
    whole = channel >= 0
    length = n
    c = tl.arange(0, CHUNKS)
    there = c < chunks
    # Non-finite sums reveal a non-finite sample, or one whose square overflows float32: the channel is examined.
    suspect = channel < 0
    if not DIRECT:
        if TOTAL > 0:
            total = tl.sum(tl.load(sums + channel * chunks + c, mask=there, other=0.0).to(tl.float64), axis=0)
            suspect = (tl.abs(total) < far) == 0
            if TOTAL > 1:
                spot = (channels + channel) * chunks + c
                power = tl.sum(tl.load(sums + spot, mask=there, other=0.0).to(tl.float64), axis=0)
                suspect = suspect | ((power < far) == 0)
        else:
            known = tl.load(s + channel)
            nan = known != known
        if R > 0:
            spot = (r[:, None] * channels + channel) * chunks + c[None, :]
            of_rank = (r[:, None] < R) & there[None, :]
            below = tl.sum(tl.load(counts + spot, mask=of_rank, other=0), axis=1)
            upto = below + tl.sum(
                tl.load(counts + R * channels * chunks + spot, mask=of_rank, other=0), axis=1
            )
            low = tl.load(brackets + 2 * r * channels + channel, mask=r < R, other=0.0)
            high = tl.load(brackets + (2 * r + 1) * channels + channel, mask=r < R, other=0.0)
            outside = ((rank <= below) | (rank > upto)) & (r < R)
            length = tl.load(kept + channel)
            # the brackets or the buffer failed this channel: fall back to x
            whole = (tl.max(outside.to(tl.int32), axis=0) > 0) | (length > capacity) | suspect
            length = tl.where(whole, n, length)
        else:
            length = tl.where(suspect, n, 0)
            whole = suspect
        length = tl.where(nan, 0, length)
    scanned_low, scanned_high = low, high
    low = tl.where(whole, -far, low)
    high = tl.where(whole, far, high)
    below = tl.where(whole, 0, below)
    atom = (low == high) & (r < R)

    # one pass for the extent, which narrows the selection, and for non-finite samples
    least = tl.full([1], far, tl.float32)
    greatest = tl.full([1], -far, tl.float32)
    broken = tl.zeros([1], tl.int32)
    for start in range(0, length, TILE):
        e = start + tl.arange(0, TILE)[None, :]
        v = _read(x, buffer, e, length, whole, channel, stride, step, capacity, LENGTH, DIRECT)
        least = tl.minimum(least, tl.min(tl.where(v == v, v, far), axis=1))
        greatest = tl.maximum(greatest, tl.max(tl.where(v == v, v, -far), axis=1))
        if DIRECT or TOTAL > 0:
            broken += tl.sum((((tl.abs(v) < far) == 0) & (e < length)).to(tl.int32), axis=1)
    if DIRECT or TOTAL > 0:
        nan = tl.sum(broken, axis=0) > 0
        length = tl.where(nan, 0, length)

    q = low
    at = upto - below
    if R > 0:
        # an atom is a bracket of one number: nothing to search for
        searched = ~atom & (r < tl.where(nan, 0, R))
        first = tl.where(searched, tl.maximum(key(low, SHIFT), key(least, SHIFT)), 0)
        last = tl.where(searched, tl.minimum(key(high, SHIFT), key(greatest, SHIFT)), 0)
        # all ranks of the channel are bisected together: each pass over the source serves them all
        while tl.max((first < last).to(tl.int32), axis=0) > 0:
            half = (first & last) + ((first ^ last) >> 1)
            count = tl.zeros([RP], tl.int32)
            for start in range(0, length, TILE):
                e = start + tl.arange(0, TILE)[None, :]
                v = _read(x, buffer, e, length, whole, channel, stride, step, capacity, LENGTH, DIRECT)
                hit = (key(v, SHIFT) <= half[:, None]) & (v >= low[:, None])
                count += tl.sum(hit.to(tl.int32), axis=1)
            more = (count < rank - below) & (first < last)
            first = tl.where(more, half + 1, first)
            last = tl.where(more | (first >= last), last, half)
        # one pass turns keys into values, and counts ties
        q = tl.full([RP], -far, tl.float32)
        equal = tl.zeros([RP], tl.int32)
        under = tl.zeros([RP], tl.int32)
        for start in range(0, length, TILE):
            e = start + tl.arange(0, TILE)[None, :]
            v = _read(x, buffer, e, length, whole, channel, stride, step, capacity, LENGTH, DIRECT)
            k = key(v, SHIFT)
            same = (k == first[:, None]) & (v == v)
            q = tl.maximum(q, tl.max(tl.where(same, v, -far), axis=1))
            equal += tl.sum(same.to(tl.int32), axis=1)
            under += tl.sum(((k < first[:, None]) & (v >= low[:, None])).to(tl.int32), axis=1)
        q = tl.where(atom, low, q)
        at = tl.where(atom, at, equal)
        below = tl.where(atom, below, below + under)
    q = tl.where((r < R) & (q == q), q, 0.0)
    q64, below64, at64 = q.to(tl.float64), below.to(tl.float64), at.to(tl.float64)

    # Sums over the source: above each order statistic, inside each window, and, if DIRECT, of everything. Each is
    # about the number that scan has used for the samples that it did not collect.
    ended = tl.where(tl.abs(scanned_high) < far, scanned_high, middle(scanned_low, scanned_high, x))
    center = tl.where(whole, q, ended).to(tl.float64)
    top = tl.max(greatest, axis=0).to(tl.float64)
    pivot = tl.min(least, axis=0).to(tl.float64)
    w = tl.arange(0, WP)
    from_q = tl.zeros([WP], tl.float64)
    to_q = tl.zeros([WP], tl.float64)
    heart = tl.zeros([WP], tl.float32)
    for i in tl.static_range(W):
        a, b = pick(q, r, WINDOWS[i][0]), pick(q, r, WINDOWS[i][1])
        from_q = tl.where(w == i, a.to(tl.float64), from_q)
        to_q = tl.where(w == i, b.to(tl.float64), to_q)
        a = tl.where(whole, a, pick(scanned_high, r, WINDOWS[i][0]))
        b = tl.where(whole, b, pick(scanned_low, r, WINDOWS[i][1]))
        heart = tl.where(w == i, middle(a, b, x), heart)
    heart = heart.to(tl.float64)
    span = tl.maximum(tl.abs(from_q - heart), tl.abs(to_q - heart))
    unit_all = _units(tl.abs(top - pivot))
    unit_over = _units(tl.maximum(tl.abs(top - center), tl.abs(q64 - center)))
    unit_within = _units(span)
    all_1 = tl.zeros([1], tl.float64)
    all_2 = tl.zeros([1], tl.float64)
    over = tl.zeros([RP], tl.float64)
    within = tl.zeros([WP], tl.float64)
    squares = tl.zeros([WP], tl.float64)
    if TAILS or W > 0 or DIRECT:
        for start in range(0, length, TILE):
            e = start + tl.arange(0, TILE)[None, :]
            v = _read(x, buffer, e, length, whole, channel, stride, step, capacity, LENGTH, DIRECT)
            v64 = v.to(tl.float64)
            if DIRECT and TOTAL > 0:
                all_1, all_2 = _counted(v, pivot, unit_all, all_1, all_2, TOTAL)
            if TAILS:
                z = tl.where(v > q[:, None], (v64 - center[:, None]) / unit_over[:, None], 0.0)
                over += tl.sum(tl.floor(z + 0.5), axis=1)
            if W > 0:
                between = (v64 > from_q[:, None]) & (v64 < to_q[:, None])
                z = tl.where(between, v64 - heart[:, None], 0.0)
                within += tl.sum(tl.floor(z / unit_within[:, None] + 0.5), axis=1)
                if SQUARES:
                    unit = (unit_within * unit_within * UNITS)[:, None]
                    squares += tl.sum(tl.floor((z * z) / unit + 0.5), axis=1)
    if TOTAL > 0 and not DIRECT:
        for start in range(0, tl.where(suspect, length, 0), TILE):
            e = start + tl.arange(0, TILE)[None, :]
            v = _read(x, buffer, e, length, whole, channel, stride, step, capacity, LENGTH, DIRECT)
            all_1, all_2 = _counted(v, pivot, unit_all, all_1, all_2, TOTAL)
    over = tl.where(over == 0.0, 0.0, over * unit_over)  # the unit of an empty source is infinite
    within *= unit_within
    squares *= unit_within * unit_within * UNITS
    sum_1 = tl.sum(all_1, axis=0) * unit_all
    sum_2 = tl.sum(all_2, axis=0) * unit_all * unit_all * UNITS
    if not DIRECT:
        if TOTAL > 0:
            pivot = tl.where(suspect, pivot, tl.load(pivots + channel).to(tl.float64))
            sum_1 = tl.where(suspect, sum_1, total)
            if TOTAL > 1:
                sum_2 = tl.where(suspect, sum_2, power)
        # samples that were not collected count, unless x was the source
        if TAILS:
            spot = ((TOTAL + r[:, None]) * channels + channel) * chunks + c[None, :]
            part = tl.load(sums + spot, mask=(r[:, None] < R) & there[None, :], other=0.0).to(tl.float64)
            over += tl.where(whole, 0.0, tl.sum(part, axis=1))
        if W > 0:
            begun = TOTAL + R if TAILS else TOTAL
            spot = ((begun + w[:, None]) * channels + channel) * chunks + c[None, :]
            of_window = (w[:, None] < W) & there[None, :]
            part = tl.load(sums + spot, mask=of_window, other=0.0).to(tl.float64)
            within += tl.where(whole, 0.0, tl.sum(part, axis=1))
            if SQUARES:
                spot += W * channels * chunks
                part = tl.load(sums + spot, mask=of_window, other=0.0).to(tl.float64)
                squares += tl.where(whole, 0.0, tl.sum(part, axis=1))

    mean, variance = window_moments(within, squares, heart, from_q, to_q, rank, r, below64, at64, w, WINDOWS)
    row = record + channel * WIDTH
    if MEASURES:
        measures(
            row,
            s + channel,
            d + channel,
            numbers,
            nan,
            n,
            r,
            q64,
            below64,
            at64,
            over - (q64 - center) * (n - below64 - at64),
            w,
            mean,
            pivot,
            sum_1 / n,
            sum_2 / n,
            S_KIND,
            S_MODE,
            S_VALUES,
            D_KIND,
            D_MEAN,
            D_VALUES,
            D_TERM,
            POINTS,
        )
        tl.store(found + channel * FOUND + r, q, mask=r < R)
    window_points(
        row, found + channel * FOUND, numbers, nan, r, q64, below64, at64, w, mean, variance, EDGES, MEASURES
    )
