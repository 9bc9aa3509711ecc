# mypy: ignore-errors
# Compiled by numba: a language of its own that only looks like Python.
"""The passes of :mod:`.elementwise` where channels are adjacent in memory (LAST): one lane per channel, 16 at a time.

Threads share positions, not channels, of which there may be fewer than 16 per thread.

Per-channel numbers are stored in tables of 16, one per lane: those of :func:`.call.affine`, and the merged record in
rows of 16.

With instance enhancement (:mod:`.gate`) a span holds whole pieces of images, and each image has its own gains.
Arguments that are None without it leave no trace in the compiled code.

Arguments of all functions:

    x, g, source, target        (float32 pointer, uint16 pointer, kind): (N, L, C)
    span                        two int64, first position and the one past the last (with ``rows``: of pieces)
    channels, c, many           int64: C, the first channel, and how many (at most 16)
    table                       (4, 16) float32
    record                      (HEAD + POINT * points, 16) float32
    short                       (16,) uint16 scratch
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
def normalize_last(source, target, span, channels, c, many, table, relu, short, rows=None):
    """Write ``(x - S) scale + bias``, then the ReLU, of ``many`` channels from c on in a span of positions.

    ``rows`` is None or (gains, pieces, positions per image): gains (N, C) float32; the span is then one of pieces.
    """
    shift, factor, offset = load(table, 0), load(table, LANES), load(table, 2 * LANES)
    unit = load(table, 3 * LANES)
    floor = splat(_ZERO) if relu else splat(-_INF)
    if rows is not None:
        gains, pieces, length = rows
        for k in range(span[0], span[1]):
            factor = load_first(gains, k // pieces * channels + c, many, splat(_ZERO))
            begin, end = piece_of(k, pieces, length)
            for place in range(c + begin * channels, c + end * channels, channels):
                y = fma(fma(load_part(source, place, many, short), unit, shift), factor, offset)
                store_part(target, place, many, maximum(floor, y), short)
        return
    for place in range(c + span[0] * channels, c + span[1] * channels, channels):
        y = fma(fma(load_part(source, place, many, short), unit, shift), factor, offset)
        store_part(target, place, many, maximum(floor, y), short)


@compiled
def reduce_rows_last(x, g, span, channels, c, many, table, relu, short, rows, gate):
    """Sum g, and g (x - S), over the values that the ReLU lets through, for each piece of an image in a span.

    rows        (means, pieces per image, positions per image, sums, products): means (N, C) float32, sums and
    products
                (N, pieces, C) float32, written
    gate        16 weights and 16 biases, f32x16 each
    """
    means, pieces, length, sums, products = rows
    shift, scale, unit, zero = load(table, 0), load(table, LANES), load(table, 3 * LANES), splat(_ZERO)
    floor = zero if relu else splat(-_INF)
    offset = load(table, 2 * LANES) if relu else zero
    for k in range(span[0], span[1]):
        m = load_first(means, k // pieces * channels + c, many, zero)
        # without a ReLU fma(u, 0, 0) <= -inf is never true: one loop serves both cases
        factor = scale * open_gate(m, gate[0], gate[1]) if relu else zero
        totals, moments = zeros64(), zeros64()
        begin, end = piece_of(k, pieces, length)
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
            moments = moments + widen(b)
        store_first(sums, k * channels + c, many, narrow(totals))
        store_first(products, k * channels + c, many, narrow(moments))


@compiled
def reduce_last(x, g, span, channels, c, many, table, relu, short, sums):
    """Write the sums of g, then of g (x - S), over what the ReLU lets through, to ``sums``, (2, 16) float64."""
    shift, factor, offset, zero = load(table, 0), load(table, LANES), load(table, 2 * LANES), splat(_ZERO)
    unit = load(table, 3 * LANES)
    floor = zero if relu else splat(-_INF)
    # without a ReLU fma(u, 0, 0) <= -inf is never true: one loop serves both cases
    factor = factor if relu else zero
    offset = offset if relu else zero
    totals, products = zeros64(), zeros64()
    for piece in range(span[0], span[1], _PIECE):
        a, b = zero, zero
        for i in range(piece, min(piece + _PIECE, span[1])):
            place = c + i * channels
            u = fma(load_part(x, place, many, short), unit, shift)
            passed = where(fma(u, factor, offset) <= floor, zero, load_part(g, place, many, short))
            a = a + passed
            b = fma(passed, u, b)
        totals = totals + widen(a)
        products = products + widen(b)
    store_doubles(sums, 0, totals)
    store_doubles(sums, LANES, products)


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


@inlined
def _differentiate(
    x, g, target, place, many, unit, shift, factor, scaled, offset, floor, base, record, rest, short
):
    """Write dx of 16 channels at one position."""
    points, bends, exponential = rest
    v = load_part(x, place, many, short)
    u = fma(v, unit, shift)
    passed = where(fma(u, scaled, offset) <= floor, splat(_ZERO), load_part(g, place, many, short))
    value = fma(load(record, LANES), u, fma(passed, factor, base))
    value = _at_points(v, unit, value, record, points, bends)
    if exponential:
        value = fma(exp(v - load(record, 2 * LANES)), load(record, 3 * LANES), value)
    store_part(target, place, many, value, short)


@compiled
def differentiate_last(
    x, g, target, span, channels, c, many, table, relu, record, points, bends, exponential, short, rows=None
):
    """Write dx = scale g + (the merged derivatives)(x); ``exponential`` says whether any channel has that part.

    rows        None, or (gains, pulls, pieces per image, positions per image): gains and pulls (N, pieces, C)
    float32,
                read at the first piece of each image; the span is then one of pieces
    """
    shift, gain, offset, zero = load(table, 0), load(table, LANES), load(table, 2 * LANES), splat(_ZERO)
    unit, base = load(table, 3 * LANES), load(record, 0)
    floor = zero if relu else splat(-_INF)
    factor, scaled = gain * unit, gain if relu else zero
    offset = offset if relu else zero
    rest = points, bends, exponential
    if rows is not None:
        gains, pulls, pieces, length = rows
        for k in range(span[0], span[1]):
            first = k // pieces * pieces * channels + c
            gain = load_first(gains, first, many, zero)
            factor, scaled = gain * unit, gain if relu else zero
            base = load(record, 0) + load_first(pulls, first, many, zero)
            begin, end = piece_of(k, pieces, length)
            for place in range(c + begin * channels, c + end * channels, channels):
                _differentiate(
                    x, g, target, place, many, unit, shift, factor, scaled, offset, floor, base, record,
                    rest, short,
                )  # fmt: skip
        return
    for place in range(c + span[0] * channels, c + span[1] * channels, channels):
        _differentiate(
            x, g, target, place, many, unit, shift, factor, scaled, offset, floor, base, record, rest, short
        )
