# mypy: ignore-errors
# Compiled by numba: a language of its own in Python's clothes.
"""The passes of :mod:`.elementwise` where channels lie side by side (LAST): one lane a channel, 16 at a time.

Threads share positions, not channels, of which there may be fewer than 16 for each.

Numbers of a channel stand in tables of 16, one a lane: those of :func:`.call.affine`, and the merged record in rows
of 16.

With instance enhancement (:mod:`.gate`) a span holds whole pieces of images, and each image has gains of its own.
Arguments that are None without it leave no trace in the compiled code.
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
    """``(x - S) scale + bias``, then the ReLU, of ``many`` channels from c on at a span of positions.

    ``rows`` is (gains, pieces of an image, positions of an image); the span is then one of pieces.
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
    """Sums of g, and of g (x - S), where the ReLU lets the value through, of each piece of an image in a span.

    ``rows`` is (means, pieces of an image, positions of an image, sums, products), ``gate`` 16 weights and 16 biases.
    """
    means, pieces, length, sums, products = rows
    shift, scale, unit, zero = load(table, 0), load(table, LANES), load(table, 3 * LANES), splat(_ZERO)
    floor = zero if relu else splat(-_INF)
    offset = load(table, 2 * LANES) if relu else zero
    for k in range(span[0], span[1]):
        m = load_first(means, k // pieces * channels + c, many, zero)
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
            totals = totals + widen(a)
            moments = moments + widen(b)
        store_first(sums, k * channels + c, many, narrow(totals))
        store_first(products, k * channels + c, many, narrow(moments))


@compiled
def reduce_last(x, g, span, channels, c, many, table, relu, short, sums):
    """Sums of g, and behind them of g (x - S), where the ReLU lets the value through, to 2 x 16 doubles."""
    shift, factor, offset, zero = load(table, 0), load(table, LANES), load(table, 2 * LANES), splat(_ZERO)
    unit = load(table, 3 * LANES)
    floor = zero if relu else splat(-_INF)
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
    """Add what each breakpoint contributes to each lane; ``record`` holds rows of 16."""
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
    """dx of 16 channels at one position."""
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
    """dx = scale g + (the merged derivatives)(x); ``exponential``: whether some channel has that part.

    ``rows`` is (gains, pulls, pieces of an image, positions of an image), gains and pulls at the first piece of each
    image; the span is then one of pieces.
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
