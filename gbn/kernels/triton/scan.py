# ruff: noqa: RUF005 (the compiler adds tuples, and does not unpack them)
# mypy: ignore-errors
"""The kernel of a pass over x: counts about each bracket, the samples inside, sums of the rest; and y, if S is known.

Every sample is either collected (it is in a bracket that is not a single number) or on a known side of every wanted
order statistic, so that counts and sums say all there is to know about it. Counts and float sums are stored per
program and combined by :mod:`.settle` in a fixed order; the place of a collected sample is the only thing decided by
an atomic, and nothing depends on it.

Written for few instructions per sample, since a bfloat16 value arrives every 19 of them: a thread owns a column of
the tile, hence one channel, so counts, sums and the places of collected samples are in its own registers and need no
exchange with other threads until the end. Loads are then as wide as the dtype, 64 bytes per warp in half precision.

The compiler chooses the ownership from the addresses: threads go along the axis whose neighbors it knows to be
adjacent, and a thread holds as many of them as their alignment lets it load at once. So it is told about the
neighbors (false across the border of a plane, which is harmless where a thread has one of them) and not told about
alignment. Of two axes that it knows nothing about, Triton takes the first up to 3.6, and from 3.8 on the last: a
thread then had a bit of every column, up to 1.4 kB of registers were spilled, and loads fetched sectors of which they
used only a part.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .affine import numbers_of, shifted, transform
from .places import middle, place

__all__ = ["THREADS", "scan"]

#: Threads per block, which its launch must match: 4 warps.
THREADS = 128
_THREADS = tl.constexpr(THREADS)
#: Samples whose mean is the pivot of a channel without order statistics.
_PIVOTS = tl.constexpr(64)


@triton.jit
def _pivot(x, n, channel, channels, stride, step, LENGTH: tl.constexpr, LANES: tl.constexpr):
    """Return the mean of some samples, float32: close enough to the channel's mean that nothing cancels."""
    j = (tl.arange(0, _PIVOTS)[None, :].to(tl.int64) * n // _PIVOTS).to(tl.int32)
    if LANES == 1:
        v = tl.load(x + place(j, channel, stride, step, LENGTH)).to(tl.float32)
        first = tl.load(x + channel * step).to(tl.float32)
        mean = first + tl.sum(tl.sum(v - first, axis=1), axis=0) * (1.0 / _PIVOTS)
    else:
        here = channel < channels
        v = tl.load(x + place(j, channel, stride, step, LENGTH), mask=here, other=0.0).to(tl.float32)
        first = tl.load(x + channel * step, mask=here, other=0.0).to(tl.float32)
        mean = first + tl.sum(v - first, axis=1)[:, None] * (1.0 / _PIVOTS)
    # a non-finite pivot would make every sum NaN; rounded to x's dtype, so that it can stand for missing samples
    mean = tl.where(tl.abs(mean) < float("inf"), mean, 0.0)
    return mean.to(x.dtype.element_ty).to(tl.float32)


@triton.jit
def _leave(rows, row, sums, strip, chunk, channels, chunks, LANES: tl.constexpr):
    """Store a program's row of sums (one per thread) as those of its channels: ``rows`` is (row count, C, chunks)."""
    if LANES == 1:
        tl.store(rows + (row * channels + strip) * chunks + chunk, tl.sum(sums, axis=0))
    else:
        flat = strip * LANES + tl.arange(0, LANES)
        values = tl.sum(tl.reshape(sums, [_THREADS // LANES, LANES]), axis=0)
        tl.store(rows + (row * channels + flat) * chunks + chunk, values, mask=flat < channels)


@triton.jit(do_not_specialize=["strips", "tiles", "chunks", "per_chunk", "zero"])
def scan(
    x,
    brackets,
    buffer,
    kept,
    counts,
    sums,
    pivots,
    y,
    s,
    d,
    weight,
    bias,
    eps,
    n,
    stride,
    step,
    channels,
    strips,
    tiles,
    chunks,
    per_chunk,
    capacity,
    zero,
    LENGTH: tl.constexpr,
    SAMPLES: tl.constexpr,
    LANES: tl.constexpr,
    R: tl.constexpr,
    WINDOWS: tl.constexpr,
    SQUARES: tl.constexpr,
    TAILS: tl.constexpr,
    TOTAL: tl.constexpr,
    WRITE: tl.constexpr,
    RELU: tl.constexpr,
    ROOT: tl.constexpr,
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
):
    """Do one program's share: some tiles (threads, samples per thread) of a strip of channels.

    Inputs:

        x                           (N, C, *spatial) float32, bfloat16 or float16, addressed as in :mod:`.geometry`
        brackets                    (R, 2, C) float32
        s, d                        (C,) float32, read if WRITE
        weight, bias                (C,) floating point, read if WRITE and WEIGHT, BIAS
        n, stride, step, channels,
        strips, tiles, chunks,
        per_chunk                   int32, of :class:`.geometry.View`
        capacity                    int32, room in the buffer per channel
        R ... TOTAL                 of :class:`.schedule.Stage`

    Outputs:

        buffer                      (C, capacity) in x's dtype: samples inside brackets, in any order
        kept                        (C,) int32, 0 before: how many of them there are
        counts                      (2, R, C, chunks) int32: samples below each bracket, and inside it
        sums                        (rows, C, chunks) float32: of all samples about the pivot (TOTAL rows), above each
                                    bracket about its end (TAILS: R rows), between the two brackets of each window
                                    about their middle (one row each), and squares of these (SQUARES: likewise)
        pivots                      (C,) float32
        y                           like x, written if WRITE
    """
    COLUMNS: tl.constexpr = _THREADS // LANES  # threads per channel
    W: tl.constexpr = len(WINDOWS)
    pid = tl.program_id(0)
    strip, chunk = pid % strips, pid // strips
    # zero is 0, which the compiler does not know: otherwise it would give a thread a run of samples, for wide loads
    thread = tl.arange(0, _THREADS) + zero
    if LANES == 1:
        channel = strip
        column = thread[:, None]
    else:
        channel = (strip * LANES + thread % LANES)[:, None]
        column = (thread // LANES)[:, None]
    lows, highs = (), ()
    below, inside, over = (), (), ()
    opened = ()
    for i in tl.static_range(R):
        lows = lows + (numbers_of(brackets + 2 * i * channels, channel, channels, LANES),)
        highs = highs + (numbers_of(brackets + (2 * i + 1) * channels, channel, channels, LANES),)
        below = below + (tl.zeros([_THREADS], tl.int32),)
        inside = inside + (tl.zeros([_THREADS], tl.int32),)
        # a bracket of one number is only counted: its samples are all equal
        opened = opened + (tl.where(lows[i] < highs[i], 1, 0),)
        over = over + (tl.zeros([_THREADS], tl.float32),)
    within, squares = (), ()
    for _ in tl.static_range(W):
        within = within + (tl.zeros([_THREADS], tl.float32),)
        squares = squares + (tl.zeros([_THREADS], tl.float32),)
    total = tl.zeros([_THREADS], tl.float32)
    power = tl.zeros([_THREADS], tl.float32)
    # pivot: inside the first bracket, so that the samples' distances from it are small, and padding adds nothing
    if TOTAL > 0:
        if R > 0:
            about = middle(lows[0], highs[0], x)
        else:
            about = _pivot(x, n, channel, channels, stride, step, LENGTH, LANES)
        if chunk == 0:
            if LANES == 1:
                tl.store(pivots + channel, about)
            else:
                tl.store(pivots + channel, about, mask=channel < channels)
    if WRITE:
        at = numbers_of(s, channel, channels, LANES)
        scale, shift = transform(weight, bias, d, channel, channels, eps, LANES, ROOT, WEIGHT, BIAS)
    for tile in range(chunk * per_chunk, tl.minimum(tiles, (chunk + 1) * per_chunk)):
        j = tile * SAMPLES + column + tl.arange(0, SAMPLES // COLUMNS)[None, :] * COLUMNS
        mask = j < n
        if LANES > 1:
            mask = mask & (channel < channels)
        offset = tl.max_contiguous(place(j, channel, stride, step, LENGTH), [_THREADS, 1])
        # Missing samples are the pivot, which adds nothing to a sum (it is in the first bracket, if there is one),
        # or NaN, which is on no side of anything.
        if TOTAL > 0:
            v = tl.load(x + offset, mask=mask, other=about.to(x.dtype.element_ty)).to(tl.float32)
        else:
            v = tl.load(x + offset, mask=mask, other=float("nan")).to(tl.float32)
        if WRITE:
            out = shifted(v - at, scale, shift, BIAS)
            if RELU:
                out = tl.where(out <= 0.0, 0.0, out)  # a maximum would lose NaN
            tl.store(y + offset, out.to(y.dtype.element_ty), mask=mask)
        if TOTAL > 0:
            u = v - about
            total += tl.sum(u, axis=1)
            if TOTAL > 1:
                power += tl.sum(u * u, axis=1)
        if R > 0:
            more_below, more_inside, more_over = (), (), ()
            unders, beyonds = (), ()
            flags = tl.zeros(v.shape, tl.int32)
            for i in tl.static_range(R):
                under = v < lows[i]
                if TOTAL > 0 and i > 0:
                    under = under & mask  # the pivot is below every bracket but the first
                unders, beyonds = unders + (under,), beyonds + (v > highs[i],)
                here = mask & ~(unders[i] | beyonds[i])
                more_below = more_below + (below[i] + tl.sum(unders[i].to(tl.int32), axis=1),)
                more_inside = more_inside + (inside[i] + tl.sum(here.to(tl.int32), axis=1),)
                flags = tl.where(here, opened[i], flags)
            below, inside = more_below, more_inside
            # one atomic per thread and tile reserves room for all its collected samples
            number = tl.sum(flags, axis=1)
            if LANES == 1:
                counter = kept + strip + thread * 0
                begin = tl.atomic_add(counter, number, mask=number > 0, sem="relaxed")
            else:
                own = strip * LANES + thread % LANES
                begin = tl.atomic_add(kept + own, number, mask=(number > 0) & (own < channels), sem="relaxed")
            # if not all of a thread's samples fit, the channel will be read again: none of them need be stored
            fits = tl.where(begin + number <= capacity, 1, 0)[:, None]
            spot = begin[:, None] + tl.cumsum(flags, axis=1) - 1
            room = buffer + tl.max_contiguous(channel * capacity + spot, [_THREADS, 1])
            tl.store(room, v.to(buffer.dtype.element_ty), mask=(flags & fits) > 0)
            if TAILS:
                # a collected sample is summed later, by settle, which knows the order statistic itself
                for i in tl.static_range(R):
                    if i < R - 1:
                        z = tl.where(beyonds[i] & (flags == 0), v - highs[i], 0.0)
                    else:
                        z = tl.maximum(v - highs[i], 0.0)  # a sample above the last bracket is in none
                    more_over = more_over + (over[i] + tl.sum(z, axis=1),)
                over = more_over
            more_within, more_squares = (), ()
            for i in tl.static_range(W):
                between = beyonds[WINDOWS[i][0]] & unders[WINDOWS[i][1]]
                if WINDOWS[i][1] - WINDOWS[i][0] > 1:
                    # other brackets inside the window may have collected the sample
                    between = between & (flags == 0)
                z = tl.where(between, v - middle(highs[WINDOWS[i][0]], lows[WINDOWS[i][1]], x), 0.0)
                more_within = more_within + (within[i] + tl.sum(z, axis=1),)
                if SQUARES:
                    more_squares = more_squares + (squares[i] + tl.sum(z * z, axis=1),)
            within = more_within
            if SQUARES:
                squares = more_squares
    for i in tl.static_range(R):
        _leave(counts, i, below[i], strip, chunk, channels, chunks, LANES)
        _leave(counts, R + i, inside[i], strip, chunk, channels, chunks, LANES)
    if TOTAL > 0:
        _leave(sums, 0, total, strip, chunk, channels, chunks, LANES)
        if TOTAL > 1:
            _leave(sums, 1, power, strip, chunk, channels, chunks, LANES)
    BEGUN: tl.constexpr = TOTAL + R if TAILS else TOTAL
    if TAILS:
        for i in tl.static_range(R):
            _leave(sums, TOTAL + i, over[i], strip, chunk, channels, chunks, LANES)
    for i in tl.static_range(W):
        _leave(sums, BEGUN + i, within[i], strip, chunk, channels, chunks, LANES)
        if SQUARES:
            _leave(sums, BEGUN + W + i, squares[i], strip, chunk, channels, chunks, LANES)
