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
from .rows import STAGE, fetch, put_back
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
    integers = 3 + 2 * ranks
    reals = 8 + 2 * terms
    floats = rows * block * _width(n) + STAGE + LANES + ranks + room_to_select(n) + HEAD + POINT * points
    return 8 * (integers + reals) + 4 * floats + 64


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
    """This thread's scratch: rows of a block, staging, room for searches, integers, reals."""
    thread = claim(a, _THREADS)
    address = a[_SCRATCH] + thread * a[_SIZE]
    ranks, terms = a[_RANKS], a[_TERMS]
    places = integers(address)
    address += 8 * (3 + 2 * ranks)
    wide = doubles(address)
    address += 8 * (8 + 2 * terms)
    square = floats(address)
    address += 4 * LANES * LANES
    short = halves(address)
    address += 4 * LANES
    merged = floats(address)
    address += 4 * (HEAD + POINT * a[_POINTS])
    block = a[_BLOCK]
    size = 4 * block * _width_compiled(a[_IMAGES] * a[_LENGTH])
    held = floats(address)
    address += size
    second = floats(address)
    if rows > 1:
        address += size
    room = floats(address)
    return held, second, (square, short), room, places, wide, merged


def forward(table):
    """y, S, D and the records of all channels."""
    a = integers(table)
    images, channels, length = a[_IMAGES], a[_CHANNELS], a[_LENGTH]
    shape = (a[_LAYOUT], images, channels, length)
    n = images * length
    x = _tensor(a[_X], a[_KIND])
    y = _tensor(a[_Y], a[_KIND])
    s, d = floats(a[_S]), floats(a[_D])
    weight, bias = floats(a[_WEIGHT]), floats(a[_BIAS])
    keep = HEAD + POINT * a[_POINTS]
    records = floats(a[_RECORD])
    whole, real = integers(a[_INTEGERS]), doubles(a[_REALS])
    eps = doubles(table)[_EPS]
    rows, _, stage, room, places, wide, _ = _workspace(a, 1)
    width = _width_compiled(n)
    block = a[_BLOCK]
    as_it_lies, direct, relu, past = a[_READ] != 0, a[_DIRECT] != 0, a[_RELU] != 0, a[_PAST] != 0
    while True:
        c0 = claim(a, _NEXT) * block
        if c0 >= channels:
            break
        many = min(block, channels - c0)
        if not as_it_lies:
            fetch(x, shape, c0, many, rows, width, stage)
        for j in range(many):
            c = c0 + j
            source, start, stride = rows, j * width, length
            view = (rows, start, 1, 0, n)
            if as_it_lies:
                source, start, stride = x[0], c * length, channels * length
                view = (source, start, images, stride, length)
            s[c], d[c] = measure(view, whole, real, room, places, wide, ahead(records, c * keep))
            divisor = _divisor(np.float64(d[c]), eps, a[_ROOT] != 0)
            scale = np.float32((weight[c] if a[_WEIGHT] != 0 else _ONE) / divisor)
            offset = bias[c] if a[_BIAS] != 0 else _ZERO
            target, begin, step = rows, start, stride
            if direct:
                target, begin, step = y[0], c * length, channels * length
            normalize(
                source, start, stride, target, begin, step, images, length, s[c], scale, offset, relu, past
            )
        if not direct:
            put_back(y, shape, c0, many, rows, width, stage, past)
    fence()


def backward(table):
    """dx, and the gradients to gain and bias, of all channels."""
    a = integers(table)
    images, channels, length = a[_IMAGES], a[_CHANNELS], a[_LENGTH]
    shape = (a[_LAYOUT], images, channels, length)
    n = images * length
    x = _tensor(a[_X], a[_KIND])
    g = _tensor(a[_G], a[_KIND])
    dx = _tensor(a[_Y], a[_KIND])
    s, d = floats(a[_S]), floats(a[_D])
    weight, bias = floats(a[_WEIGHT]), floats(a[_BIAS])
    dweight, dbias = floats(a[_DWEIGHT]), floats(a[_DBIAS])
    points = a[_POINTS]
    keep = HEAD + POINT * points
    records = floats(a[_RECORD])
    eps = doubles(table)[_EPS]
    rows, others, stage, _, _, _, merged = _workspace(a, 2)
    width = _width_compiled(n)
    block = a[_BLOCK]
    as_it_lies, direct = a[_READ] != 0, a[_DIRECT] != 0
    relu, root, past, bends = a[_RELU] != 0, a[_ROOT] != 0, a[_PAST] != 0, a[_BENDS]
    while True:
        c0 = claim(a, _NEXT) * block
        if c0 >= channels:
            break
        many = min(block, channels - c0)
        if not as_it_lies:
            fetch(x, shape, c0, many, rows, width, stage)
            fetch(g, shape, c0, many, others, width, stage)
        for j in range(many):
            c = c0 + j
            divisor = _divisor(np.float64(d[c]), eps, root)
            scale = np.float32((weight[c] if a[_WEIGHT] != 0 else _ONE) / divisor)
            offset = bias[c] if a[_BIAS] != 0 else _ZERO
            source, other, start, stride = rows, others, j * width, length
            if as_it_lies:
                source, other, start, stride = x[0], g[0], c * length, channels * length
                sum_g, sum_gu = reduce(
                    source, start, stride, other, start, stride, images, length, s[c], scale, offset, relu
                )
            else:
                sum_g, sum_gu = reduce(rows, start, 0, others, start, 0, 1, n, s[c], scale, offset, relu)
            sum_gx = sum_gu / divisor
            dweight[c] = sum_gx
            dbias[c] = sum_g
            if a[_WANTED] != 0:
                slope = np.float64(d[c]) / divisor if root else 1.0
                record = ahead(records, c * keep)
                merge(record, points, a[_S_POINTS], -scale * sum_g, -scale * slope * sum_gx, merged)
                target, begin, step = rows, start, stride
                if direct:
                    target, begin, step = dx[0], c * length, channels * length
                differentiate(
                    source, start, stride, other, start, stride, target, begin, step, images, length,
                    s[c], scale, offset, relu, merged, points, bends, past,
                )  # fmt: skip
        if not direct and a[_WANTED] != 0:
            put_back(dx, shape, c0, many, rows, width, stage, past)
    fence()
