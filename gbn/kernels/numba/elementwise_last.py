# mypy: ignore-errors
# Compiled by numba: a language of its own that only looks like Python.
"""The passes of :mod:`.elementwise` where channels are adjacent in memory (LAST): one lane per channel, 16 at a time.

Threads share positions, not channels, of which there may be fewer than 16 per thread.

Per-channel numbers are stored in tables of 16, one per lane: those of :func:`.call.affine`, and the merged record in
rows of 16.

With instance enhancement (:mod:`.gate`) a span holds whole pieces of images, and each image has its own gains.
Arguments that are None without it leave no trace in the compiled code.

Arguments of all functions:

    x, g, source, target    (float32 pointer, uint16 pointer, kind): (N, L, C)
    site                    (span, C, c, many, short): what a call works on

        span                two int64, first position and the one past the last (with ``rows``: of pieces)
        C, c, many          int64: all channels, the first one, and how many (at most 16)
        short               (16,) uint16 scratch

    table                   (4, 16) float32, of :func:`.call.affine`: -S unit, scale, bias, unit
    relu                    bool
    record                  (HEAD + POINT * points, 16) float32
"""

from __future__ import annotations

import numpy as np

from gbn.kernels.plan import HEAD, POINT

from .compiling import compiled, inlined
from .convert import exp
from .gate import open_gate, piece_of
from .memory import load, load_first, store_doubles, store_first
from .rows import load_part, store_part
from .simd import LANES, fma, maximum, minimum, narrow, splat, where, widen, zeros64

__all__ = ["differentiate_last", "normalize_last", "reduce_last", "reduce_rows_last"]

_ZERO = np.float32(0.0)
_INF = np.float32(np.inf)

#: Positions summed in float32 before the sums go to float64, as in :mod:`.sums`.
_PIECE = 128


@compiled
def _normalize_run(source, target, begin, end, site, shift, unit, factor, offset, floor):
    """Write y of the positions from ``begin`` to ``end``."""
    _, channels, c, many, short = site
    for place in range(c + begin * channels, c + end * channels, channels):
        y = fma(fma(load_part(source, place, many, short), unit, shift), factor, offset)
        store_part(target, place, many, maximum(floor, y), short)


@compiled
def normalize_last(source, target, site, table, relu, rows=None):
    """Write ``(x - S) scale + bias``, then the ReLU.

    ``rows`` is None or (gains, pieces, positions per image): gains (N, C) float32; the span is then one of pieces.
    """
    span, channels, c, many, _ = site
    shift, factor, offset = load(table, 0), load(table, LANES), load(table, 2 * LANES)
    unit = load(table, 3 * LANES)
    floor = splat(_ZERO) if relu else splat(-_INF)
    if rows is None:
        _normalize_run(source, target, span[0], span[1], site, shift, unit, factor, offset, floor)
        return
    gains, pieces, length = rows
    for k in range(span[0], span[1]):
        factor = load_first(gains, k // pieces * channels + c, many, splat(_ZERO))
        begin, end = piece_of(k, pieces, length)
        _normalize_run(source, target, begin, end, site, shift, unit, factor, offset, floor)


@compiled
def _sums(x, g, begin, end, site, shift, unit, factor, offset, floor):
    """Return the sums of g and of g (x - S), f64x16, over what the ReLU lets through from ``begin`` to ``end``."""
    _, channels, c, many, short = site
    zero, totals, products = splat(_ZERO), zeros64(), zeros64()
    for piece in range(begin, end, _PIECE):
        a, b = zero, zero
        for i in range(piece, min(piece + _PIECE, end)):
            place = c + i * channels
            u = fma(load_part(x, place, many, short), unit, shift)
            passed = where(fma(u, factor, offset) <= floor, zero, load_part(g, place, many, short))
            a = a + passed
            b = fma(passed, u, b)
        # close the piece: from here on the sum is exact to float64
        totals = totals + widen(a)
        products = products + widen(b)
    return totals, products


@compiled
def reduce_last(x, g, site, table, relu, sums):
    """Write the sums of g, then of g (x - S), over what the ReLU lets through, to ``sums``, (2, 16) float64."""
    span, _, _, _, _ = site
    shift, unit, zero = load(table, 0), load(table, 3 * LANES), splat(_ZERO)
    floor = zero if relu else splat(-_INF)
    # without a ReLU fma(u, 0, 0) <= -inf is never true: one loop serves both cases
    factor = load(table, LANES) if relu else zero
    offset = load(table, 2 * LANES) if relu else zero
    totals, products = _sums(x, g, span[0], span[1], site, shift, unit, factor, offset, floor)
    store_doubles(sums, 0, totals)
    store_doubles(sums, LANES, products)


@compiled
def reduce_rows_last(x, g, site, table, relu, rows, gate):
    """Do the same for each piece of an image in a span, whose gain decides where the ReLU is open.

    rows        (means, pieces per image, positions per image, sums, products): means (N, C) float32, sums and
                products (N, pieces, C) float32, written
    gate        16 weights and 16 biases, f32x16 each
    """
    span, channels, c, many, _ = site
    means, pieces, length, sums, products = rows
    shift, scale, unit, zero = load(table, 0), load(table, LANES), load(table, 3 * LANES), splat(_ZERO)
    floor = zero if relu else splat(-_INF)
    offset = load(table, 2 * LANES) if relu else zero
    for k in range(span[0], span[1]):
        m = load_first(means, k // pieces * channels + c, many, zero)
        factor = scale * open_gate(m, gate[0], gate[1]) if relu else zero
        begin, end = piece_of(k, pieces, length)
        of_g, of_gx = _sums(x, g, begin, end, site, shift, unit, factor, offset, floor)
        store_first(sums, k * channels + c, many, narrow(of_g))
        store_first(products, k * channels + c, many, narrow(of_gx))


@inlined
def _at_points(v, unit, value, record, points, bends):
    """Add what each breakpoint contributes to each lane."""
    for j in range(points):
        place = LANES * (HEAD + POINT * j)
        b = load(record, place)
        value = where(v > b, value + load(record, place + 2 * LANES), value)
        value = where(v == b, value + load(record, place + LANES), value)
        if j < bends:
            cut = minimum(maximum((v - b) * unit, splat(_ZERO)), load(record, place + 4 * LANES))
            value = fma(cut, load(record, place + 3 * LANES), value)
    return value


@compiled
def _differentiate_run(
    x, g, target, begin, end, site, shift, unit, gain, offset, floor, relu, base, derivatives
):
    """Write dx of the positions from ``begin`` to ``end``; :func:`.elementwise.differentiate` has the formula.

    Each lane has a record of its own, so its numbers are loaded here, not broadcast.
    """
    _, channels, c, many, short = site
    record, points, bends, exponential = derivatives
    factor, scaled = gain * unit, gain if relu else splat(_ZERO)
    for place in range(c + begin * channels, c + end * channels, channels):
        v = load_part(x, place, many, short)
        u = fma(v, unit, shift)
        passed = where(fma(u, scaled, offset) <= floor, splat(_ZERO), load_part(g, place, many, short))
        value = fma(load(record, LANES), u, fma(passed, factor, base))
        value = _at_points(v, unit, value, record, points, bends)
        if exponential:
            value = fma(exp(v - load(record, 2 * LANES)), load(record, 3 * LANES), value)
        store_part(target, place, many, value, short)


@compiled
def differentiate_last(x, g, target, site, table, relu, derivatives, rows=None):
    """Write dx = scale g + (the merged derivatives)(x).

    derivatives     (record, points, bends, exponential): the merged records, how many breakpoints there are and may
                    bend, and whether any channel has an exponential
    rows            None, or (gains, pulls, pieces per image, positions per image): gains and pulls (N, pieces, C)
                    float32, read at the first piece of each image; the span is then one of pieces
    """
    span, channels, c, many, _ = site
    shift, gain, zero = load(table, 0), load(table, LANES), splat(_ZERO)
    unit, base = load(table, 3 * LANES), load(derivatives[0], 0)
    floor = zero if relu else splat(-_INF)
    offset = load(table, 2 * LANES) if relu else zero
    if rows is None:
        _differentiate_run(
            x, g, target, span[0], span[1], site, shift, unit, gain, offset, floor, relu, base, derivatives
        )
        return
    gains, pulls, pieces, length = rows
    for k in range(span[0], span[1]):
        first = k // pieces * pieces * channels + c
        gain = load_first(gains, first, many, zero)
        pulled = base + load_first(pulls, first, many, zero)
        begin, end = piece_of(k, pieces, length)
        _differentiate_run(
            x, g, target, begin, end, site, shift, unit, gain, offset, floor, relu, pulled, derivatives
        )
