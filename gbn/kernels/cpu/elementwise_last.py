"""The passes of :mod:`.elementwise` where channels lie side by side (LAST): one lane a channel, 16 at a time.

Threads share positions, not channels, of which there may be fewer than 16 for each.

Numbers of a channel stand in tables of 16, one a lane: S, scale, bias, and the merged record in rows of 16.
"""

from __future__ import annotations

import numpy as np

from gbn.kernels.plan import HEAD, POINT

from .compiling import compiled, inlined
from .convert import exp
from .memory import load, store_doubles
from .rows import load_part, store_part
from .simd import LANES, fma, maximum, minimum, splat, where, widen, zeros64

__all__ = ["differentiate_last", "normalize_last", "reduce_last"]

_ZERO = np.float32(0.0)
_INF = np.float32(np.inf)

#: Positions summed in float32 before the sums go to float64, as in :mod:`.sums`.
_PIECE = 128


@compiled
def normalize_last(source, target, span, channels, c, many, table, relu, short):
    """``(x - S) scale + bias``, then the ReLU, of ``many`` channels from c on at a span of positions."""
    shift, factor, offset = load(table, 0), load(table, LANES), load(table, 2 * LANES)
    floor = splat(_ZERO) if relu else splat(-_INF)
    for place in range(c + span[0] * channels, c + span[1] * channels, channels):
        y = fma(load_part(source, place, many, short) - shift, factor, offset)
        store_part(target, place, many, maximum(floor, y), short)


@compiled
def reduce_last(x, g, span, channels, c, many, table, relu, short, sums):
    """Sums of g, and behind them of g (x - S), where the ReLU lets the value through, to 2 x 16 doubles."""
    shift, factor, offset, zero = load(table, 0), load(table, LANES), load(table, 2 * LANES), splat(_ZERO)
    floor = zero if relu else splat(-_INF)
    factor = factor if relu else zero
    offset = offset if relu else zero
    totals, products = zeros64(), zeros64()
    for piece in range(span[0], span[1], _PIECE):
        a, b = zero, zero
        for i in range(piece, min(piece + _PIECE, span[1])):
            place = c + i * channels
            u = load_part(x, place, many, short) - shift
            passed = where(fma(u, factor, offset) > floor, load_part(g, place, many, short), zero)
            a = a + passed
            b = fma(passed, u, b)
        totals = totals + widen(a)
        products = products + widen(b)
    store_doubles(sums, 0, totals)
    store_doubles(sums, LANES, products)


@inlined
def _at_points(v, value, record, points, bends):
    """Add what each breakpoint contributes to each lane; ``record`` holds rows of 16."""
    for j in range(points):
        place = LANES * (HEAD + POINT * j)
        b = load(record, place)
        value = where(v > b, value + load(record, place + 2 * LANES), value)
        value = where(v == b, value + load(record, place + LANES), value)
        if j < bends:
            cut = minimum(maximum(v - b, splat(_ZERO)), load(record, place + 4 * LANES))
            value = fma(cut, load(record, place + 3 * LANES), value)
    return value


@compiled
def differentiate_last(
    x, g, target, span, channels, c, many, table, relu, record, points, bends, exponential, short
):
    """dx = scale g + (the merged derivatives)(x); ``exponential``: whether some channel has that part."""
    shift, factor, offset, zero = load(table, 0), load(table, LANES), load(table, 2 * LANES), splat(_ZERO)
    base, slope = load(record, 0), load(record, LANES)
    floor = zero if relu else splat(-_INF)
    scaled = factor if relu else zero
    offset = offset if relu else zero
    for place in range(c + span[0] * channels, c + span[1] * channels, channels):
        v = load_part(x, place, many, short)
        u = v - shift
        passed = where(fma(u, scaled, offset) > floor, load_part(g, place, many, short), zero)
        value = _at_points(v, fma(slope, u, fma(passed, factor, base)), record, points, bends)
        if exponential:
            value = fma(exp(v - load(record, 2 * LANES)), load(record, 3 * LANES), value)
        store_part(target, place, many, value, short)
