"""The compiled entry points whose threads share positions, for channels that lie side by side (LAST).

Spans of positions are small enough for a cache and their number does not depend on that of the threads; sums over
each are kept and added in order, so results depend neither on the number of threads nor on chance.
"""

from __future__ import annotations

import numpy as np

from gbn.kernels.plan import HEAD, POINT

from .call import (
    BENDS,
    CHANNELS,
    EPS,
    IMAGES,
    KIND,
    LENGTH,
    NEXT,
    PARTIAL,
    POINTS,
    RELU,
    ROOT,
    SCRATCH,
    SIZE,
    SPANS,
    THREADS,
    WANTED,
    D,
    G,
    X,
    Y,
    affine,
    divisor,
    gradients,
    tensor,
)  # fmt: skip
from .compiling import compiled
from .elementwise_last import differentiate_last, normalize_last, reduce_last
from .memory import ahead, claim, doubles, fence, floats, halves, integers
from .simd import LANES

__all__ = ["differentiate_spans", "normalize_spans", "reduce_spans", "scratch_size_last", "spans_of"]

#: Bytes of x in a span: with those of the cotangent and of dx they stay in a core's level-2 cache.
_SPAN = 1 << 18
_MOST_SPANS = 256

#: Numbers of the table of 16 channels: S, scale, bias of each.
_TABLE = 3 * LANES


def spans_of(values: int) -> int:
    """How many spans a tensor of so many values has."""
    return max(1, min(_MOST_SPANS, 4 * values // _SPAN))


def scratch_size_last(channels: int, points: int) -> int:
    """Bytes that a thread needs."""
    keep, blocks = HEAD + POINT * points, -(-channels // LANES)
    return 4 * (LANES + keep + blocks * (_TABLE + LANES * keep)) + 64


@compiled
def _scratch(a):
    """This thread's: room for 16 of 16 bits, a record, and tables and records of all channels."""
    address = a[SCRATCH] + claim(a, THREADS) * a[SIZE]
    keep, blocks = HEAD + POINT * a[POINTS], (a[CHANNELS] + LANES - 1) // LANES
    short = halves(address)
    address += 4 * LANES
    merged = floats(address)
    address += 4 * keep
    return short, merged, floats(address), floats(address + 4 * blocks * _TABLE)


@compiled
def _fill(a, tables, eps):
    """Tables of all channels."""
    for c in range(a[CHANNELS]):
        by = divisor(np.float64(floats(a[D])[c]), eps, a[ROOT] != 0)
        affine(a, ahead(tables, c // LANES * _TABLE), c % LANES, c, by)


@compiled
def _span(a, k):
    n = a[IMAGES] * a[LENGTH]
    return k * n // a[SPANS], (k + 1) * n // a[SPANS]


def normalize_spans(table_address):
    """y, when S and D are known."""
    a = integers(table_address)
    x, y = tensor(a[X], a[KIND]), tensor(a[Y], a[KIND])
    channels, relu = a[CHANNELS], a[RELU] != 0
    short, _, tables, _ = _scratch(a)
    _fill(a, tables, doubles(table_address)[EPS])
    while True:
        k = claim(a, NEXT)
        if k >= a[SPANS]:
            break
        for c in range(0, channels, LANES):
            table = ahead(tables, c // LANES * _TABLE)
            normalize_last(x, y, _span(a, k), channels, c, min(LANES, channels - c), table, relu, short)
    fence()


def reduce_spans(table_address):
    """Sums of the cotangent over each span."""
    a = integers(table_address)
    x, g = tensor(a[X], a[KIND]), tensor(a[G], a[KIND])
    channels, relu = a[CHANNELS], a[RELU] != 0
    blocks = (channels + LANES - 1) // LANES
    short, _, tables, _ = _scratch(a)
    _fill(a, tables, doubles(table_address)[EPS])
    while True:
        k = claim(a, NEXT)
        if k >= a[SPANS]:
            break
        for block in range(blocks):
            c = block * LANES
            table = ahead(tables, block * _TABLE)
            sums = ahead(doubles(a[PARTIAL]), (k * blocks + block) * 2 * LANES)
            reduce_last(x, g, _span(a, k), channels, c, min(LANES, channels - c), table, relu, short, sums)
    fence()


@compiled
def _merged(a, tables, merged, records, eps):
    """Gradients to gain and bias (by each thread the same), and the merged records; whether one is exponential."""
    blocks, keep = (a[CHANNELS] + LANES - 1) // LANES, HEAD + POINT * a[POINTS]
    partial = doubles(a[PARTIAL])
    exponential = False
    for c in range(a[CHANNELS]):
        block, lane = c // LANES, c % LANES
        sum_g, sum_gu = 0.0, 0.0
        for k in range(a[SPANS]):
            place = (k * blocks + block) * 2 * LANES + lane
            sum_g += partial[place]
            sum_gu += partial[place + LANES]
        d = np.float64(floats(a[D])[c])
        scale = tables[block * _TABLE + LANES + lane]
        gradients(a, c, d, divisor(d, eps, a[ROOT] != 0), scale, sum_g, sum_gu, merged)
        for i in range(keep):
            records[(block * keep + i) * LANES + lane] = merged[i]
        exponential = exponential or merged[3] != 0.0
    return exponential


def differentiate_spans(table_address):
    """The gradients to gain and bias, and dx where it is wanted."""
    a = integers(table_address)
    x, g, dx = tensor(a[X], a[KIND]), tensor(a[G], a[KIND]), tensor(a[Y], a[KIND])
    channels, relu, points, bends = a[CHANNELS], a[RELU] != 0, a[POINTS], a[BENDS]
    keep = HEAD + POINT * points
    eps = doubles(table_address)[EPS]
    short, merged, tables, records = _scratch(a)
    _fill(a, tables, eps)
    exponential = _merged(a, tables, merged, records, eps)
    while a[WANTED] != 0:
        k = claim(a, NEXT)
        if k >= a[SPANS]:
            break
        for c in range(0, channels, LANES):
            table = ahead(tables, c // LANES * _TABLE)
            record = ahead(records, c * keep)
            differentiate_last(
                x, g, dx, _span(a, k), channels, c, min(LANES, channels - c), table, relu, record, points, bends,
                exponential, short,
            )  # fmt: skip
    fence()
