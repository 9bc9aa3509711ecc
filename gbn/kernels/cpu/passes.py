"""The two compiled entry points: forward and backward over all channels of a tensor.

Each is called by as many threads as take part, with the address of one table of integers (:class:`Call`). Threads
claim blocks of channels, one channel (PLANES) or 16 (LAST), until none is left; a channel is worked on by one
thread from beginning to end and in a fixed order, so results depend neither on the number of threads nor on chance.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from gbn.kernels.plan import HEAD, POINT

from .compiling import compiled
from .elementwise import differentiate, normalize, reduce
from .elementwise_last import differentiate_last, normalize_last, reduce_last
from .measure import measure
from .memory import (
    ahead,
    claim,
    doubles,
    fence,
    floats,
    halves,
    integers,
)
from .record import merge
from .rows import LAST, PLANES, fetch, put_back
from .select import room_to_select
from .simd import LANES

__all__ = ["Call", "backward", "forward", "scratch_size"]


class Call(IntEnum):
    """Places of the table: counters, sizes, flags, then addresses (0: none)."""

    NEXT = 0  # the next block to claim
    THREADS = 1  # threads that have come
    LAYOUT = 2
    KIND = 3
    IMAGES = 4
    CHANNELS = 5
    LENGTH = 6
    BLOCK = 7  # channels that a thread claims at a time
    READ = 8  # whether channels are read as they lie, without a row in between
    DIRECT = 9  # whether results go straight to their place, without a row in between
    PAST = 10  # whether they are written past the caches
    RELU = 11
    ROOT = 12  # whether eps stands under the root
    WANTED = 13  # whether dx is
    POINTS = 14
    S_POINTS = 15  # those of the statistic
    BENDS = 16
    RANKS = 17
    TERMS = 18
    SIZE = 19  # bytes of scratch a thread
    EPS = 20  # the bits of a float64
    INTEGERS = 21  # the plan
    REALS = 22
    SCRATCH = 23
    X = 24
    Y = 25  # y, or dx
    G = 26
    S = 27
    D = 28
    RECORD = 29
    WEIGHT = 30
    BIAS = 31
    DWEIGHT = 32
    DBIAS = 33


# numba takes plain integers at module level as constants.
(
    _NEXT, _THREADS, _LAYOUT, _KIND, _IMAGES, _CHANNELS, _LENGTH, _BLOCK, _READ, _DIRECT, _PAST, _RELU, _ROOT,
    _WANTED, _POINTS, _S_POINTS, _BENDS, _RANKS, _TERMS, _SIZE, _EPS, _INTEGERS, _REALS, _SCRATCH,
    _X, _Y, _G, _S, _D, _RECORD, _WEIGHT, _BIAS, _DWEIGHT, _DBIAS,
) = (int(place) for place in Call)  # fmt: skip

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
_INF = np.float32(np.inf)


def scratch_size(n: int, block: int, ranks: int, terms: int, points: int, rows: int) -> int:
    """Bytes that a thread needs: ``rows`` tensors' worth of a block of channels of n samples, and the searches'."""
    keep = HEAD + POINT * points
    wide = 2 * ranks + 8 + 2 * terms + 2 * LANES
    small = LANES * LANES + LANES + keep + 3 * LANES + LANES * keep
    return 8 * wide + 4 * (small + rows * block * _width(n) + ranks + room_to_select(n)) + 64


def _width_of(n):
    """Places of a row: its samples, and whole vectors beyond."""
    return (n + LANES - 1) // LANES * LANES + LANES


_width = _width_of
_width_compiled = compiled(_width_of)


@compiled
def _tensor(address, kind):
    return floats(address), halves(address), kind


@compiled
def _divisor(d, eps, root):
    """See gbn.kernels.epsilon."""
    return np.sqrt(d * d + eps) if root else d + eps


@compiled
def _workspace(a, rows):
    """This thread's scratch: ``rows`` tensors' rows of a block, staging, room for searches, and small tables."""
    address = a[_SCRATCH] + claim(a, _THREADS) * a[_SIZE]
    ranks, terms, keep = a[_RANKS], a[_TERMS], HEAD + POINT * a[_POINTS]
    places = integers(address)
    address += 8 * 2 * ranks
    wide = doubles(address)
    address += 8 * (8 + 2 * terms)
    sums = doubles(address)
    address += 8 * 2 * LANES
    square = floats(address)
    address += 4 * LANES * LANES
    short = halves(address)
    address += 4 * LANES
    merged = floats(address)
    address += 4 * keep
    table = floats(address)
    address += 4 * 3 * LANES
    lanes = floats(address)
    address += 4 * LANES * keep
    size = 4 * a[_BLOCK] * _width_compiled(a[_IMAGES] * a[_LENGTH])
    held = floats(address)
    second = floats(address + size)
    room = floats(address + rows * size)
    return held, second, (square, short), room, (places, wide), (merged, table, lanes, sums)


@compiled
def _affine(a, table, j, c, divisor):
    """Write S, scale and bias of channel c to lane j of the table; return them."""
    s, scale, offset = floats(a[_S])[c], _ONE, _ZERO
    if a[_WEIGHT] != 0:
        scale = floats(a[_WEIGHT])[c]
    if a[_BIAS] != 0:
        offset = floats(a[_BIAS])[c]
    scale = np.float32(scale / divisor)
    table[j], table[LANES + j], table[2 * LANES + j] = s, scale, offset
    return s, scale, offset


def forward(table_address):
    """y, S, D and the records of all channels."""
    a = integers(table_address)
    layout, images, channels, length = a[_LAYOUT], a[_IMAGES], a[_CHANNELS], a[_LENGTH]
    shape = (layout, images, channels, length)
    n = images * length
    width = _width_compiled(n)
    x, y = _tensor(a[_X], a[_KIND]), _tensor(a[_Y], a[_KIND])
    s, d = floats(a[_S]), floats(a[_D])
    keep = HEAD + POINT * a[_POINTS]
    records = floats(a[_RECORD])
    plan = (integers(a[_INTEGERS]), doubles(a[_REALS]))
    eps = doubles(table_address)[_EPS]
    rows, _, stage, room, (places, wide), (_, table, _, _) = _workspace(a, 1)
    as_it_lies, direct, relu, past = a[_READ] != 0, a[_DIRECT] != 0, a[_RELU] != 0, a[_PAST] != 0
    while True:
        c0 = claim(a, _NEXT) * a[_BLOCK]
        if c0 >= channels:
            break
        many = min(a[_BLOCK], channels - c0)
        if not as_it_lies:
            fetch(x, shape, c0, many, rows, width, stage)
        for j in range(many):
            c = c0 + j
            source, start, stride = rows, j * width, length
            view = (rows, start, 1, 0, n)
            if as_it_lies:
                source, start, stride = x[0], c * length, channels * length
                view = (source, start, images, stride, length)
            s[c], d[c] = measure(view, plan, room, places, wide, ahead(records, c * keep))
            shift, scale, offset = _affine(a, table, j, c, _divisor(np.float64(d[c]), eps, a[_ROOT] != 0))
            target, begin, step = rows, start, stride
            if direct:
                target, begin, step = y[0], c * length, channels * length
            if layout == PLANES:
                normalize(
                    source,
                    start,
                    stride,
                    target,
                    begin,
                    step,
                    images,
                    length,
                    shift,
                    scale,
                    offset,
                    relu,
                    past,
                )
        if layout == LAST:
            normalize_last(x, y, n, channels, c0, many, table, relu, stage)
        elif not direct:
            put_back(y, shape, c0, many, rows, width, stage)
    fence()


@compiled
def _gradients(a, c, d, divisor, scale, sum_g, sum_gu, merged):
    """Write the gradients to gain and bias, and the merged record that dx is made of."""
    root = a[_ROOT] != 0
    sum_gx = sum_gu / divisor
    floats(a[_DWEIGHT])[c] = sum_gx
    floats(a[_DBIAS])[c] = sum_g
    slope = d / divisor if root else 1.0
    record = ahead(floats(a[_RECORD]), c * (HEAD + POINT * a[_POINTS]))
    merge(record, a[_POINTS], a[_S_POINTS], -scale * sum_g, -scale * slope * sum_gx, merged)


def backward(table_address):
    """dx, and the gradients to gain and bias, of all channels."""
    a = integers(table_address)
    layout, images, channels, length = a[_LAYOUT], a[_IMAGES], a[_CHANNELS], a[_LENGTH]
    shape = (layout, images, channels, length)
    n = images * length
    width = _width_compiled(n)
    x, g, dx = _tensor(a[_X], a[_KIND]), _tensor(a[_G], a[_KIND]), _tensor(a[_Y], a[_KIND])
    d = floats(a[_D])
    points, bends, keep = a[_POINTS], a[_BENDS], HEAD + POINT * a[_POINTS]
    eps = doubles(table_address)[_EPS]
    rows, others, stage, _, _, (merged, table, lanes, sums) = _workspace(a, 2)
    as_it_lies, direct, relu, past = a[_READ] != 0, a[_DIRECT] != 0, a[_RELU] != 0, a[_PAST] != 0
    root, wanted = a[_ROOT] != 0, a[_WANTED] != 0
    while True:
        c0 = claim(a, _NEXT) * a[_BLOCK]
        if c0 >= channels:
            break
        many = min(a[_BLOCK], channels - c0)
        if layout == LAST:
            for j in range(many):
                _affine(a, table, j, c0 + j, _divisor(np.float64(d[c0 + j]), eps, root))
            reduce_last(x, g, n, channels, c0, many, table, relu, stage, sums)
            exponential = False
            for j in range(many):
                c = c0 + j
                spread = np.float64(d[c])
                _gradients(
                    a,
                    c,
                    spread,
                    _divisor(spread, eps, root),
                    table[LANES + j],
                    sums[j],
                    sums[LANES + j],
                    merged,
                )
                for k in range(keep):
                    lanes[LANES * k + j] = merged[k]
                exponential = exponential or merged[3] != 0.0
            if wanted:
                differentiate_last(
                    x, g, dx, n, channels, c0, many, table, relu, lanes, points, bends, exponential, stage
                )
            continue
        if not as_it_lies:
            fetch(x, shape, c0, many, rows, width, stage)
            fetch(g, shape, c0, many, others, width, stage)
        for j in range(many):
            c = c0 + j
            spread = np.float64(d[c])
            divisor = _divisor(spread, eps, root)
            shift, scale, offset = _affine(a, table, j, c, divisor)
            source, other, start, stride, planes, run, apart = rows, others, j * width, length, 1, n, 0
            if as_it_lies:
                source, other, start, stride = x[0], g[0], c * length, channels * length
                planes, run, apart = images, length, stride
            sum_g, sum_gu = reduce(
                source, start, apart, other, start, apart, planes, run, shift, scale, offset, relu
            )
            _gradients(a, c, spread, divisor, scale, sum_g, sum_gu, merged)
            if wanted:
                target, begin, step = rows, start, stride
                if direct:
                    target, begin, step = dx[0], c * length, channels * length
                differentiate(
                    source, start, stride, other, start, stride, target, begin, step, images, length,
                    shift, scale, offset, relu, merged, points, bends, past,
                )  # fmt: skip
        if wanted and not direct:
            put_back(dx, shape, c0, many, rows, width, stage)
    fence()
