# mypy: ignore-errors
# Compiled by numba: a language of its own in Python's clothes.
"""The compiled entry points whose threads share channels: forward, and backward of channels on their own.

Each is called by as many threads as take part, with the address of one table (:mod:`.call`). Threads
claim blocks of channels, one channel (PLANES) or 16 (LAST), until none is left; a channel is worked on by one
thread from beginning to end and in a fixed order, so results depend neither on the number of threads nor on chance.

``gated`` is None or True: each entry point is compiled without and with instance enhancement (:mod:`.gate`).
"""

from __future__ import annotations

import numpy as np

from gbn.kernels.plan import HEAD, POINT

from . import measure
from .call import (
    BENDS,
    BLOCK,
    CHANNELS,
    DIRECT,
    EPS,
    IMAGES,
    INTEGERS,
    KIND,
    LAYOUT,
    LENGTH,
    MEANS,
    MEASURE,
    NEXT,
    PAST,
    POINTS,
    RANKS,
    READ,
    REALS,
    RECORD,
    RELU,
    ROOT,
    SCRATCH,
    SIZE,
    TERMS,
    THREADS,
    WANTED,
    D,
    G,
    S,
    X,
    Y,
    affine,
    divisor,
    gradients,
    tensor,
    weigh,
)
from .compiling import compiled, entry_point
from .elementwise import differentiate, normalize, reduce
from .gate import channel_gains, channel_rows, lanes_gains, row_means, settle_channel
from .measure import Job
from .memory import (
    address_of,
    ahead,
    call,
    claim,
    doubles,
    fence,
    floats,
    halves,
    integers,
)
from .rows import LAST, PLANES, fetch, put_back
from .select import room_to_select
from .simd import LANES

__all__ = ["backward", "backward_gated", "forward", "forward_gated", "scratch_size"]


def scratch_size(n: int, block: int, ranks: int, terms: int, points: int, rows: int) -> int:
    """Bytes that a thread needs: ``rows`` tensors' worth of a block of channels of n samples, and the searches'."""
    keep = HEAD + POINT * points
    wide = 2 * ranks + 8 + 2 * terms
    small = LANES * LANES + LANES + keep + 4 * LANES
    return 8 * (len(Job) + wide) + 4 * (small + rows * block * _width(n) + ranks + room_to_select(n)) + 64


def _width(n):
    """Places of a row: its samples, and whole vectors beyond."""
    return (n + LANES - 1) // LANES * LANES + LANES


_width_compiled = compiled(_width)
_JOB = len(Job)


@compiled
def _workspace(a, rows):
    """This thread's scratch: ``rows`` tensors' rows of a block, staging, room for searches, and small tables."""
    address = a[SCRATCH] + claim(a, THREADS) * a[SIZE]
    ranks, terms, keep = a[RANKS], a[TERMS], HEAD + POINT * a[POINTS]
    job = integers(address)
    address += 8 * _JOB
    job[measure.PLACES] = address
    address += 8 * 2 * ranks
    job[measure.WIDE] = address
    address += 8 * (8 + 2 * terms)
    square = floats(address)
    address += 4 * LANES * LANES
    short = halves(address)
    address += 4 * LANES
    merged = floats(address)
    address += 4 * keep
    table = floats(address)
    address += 4 * 4 * LANES
    # whole squares are moved where channels lie side by side
    block = LANES if a[LAYOUT] == LAST else a[BLOCK]
    size = 4 * block * _width_compiled(a[IMAGES] * a[LENGTH])
    held = floats(address)
    second = floats(address + size)
    room = floats(address + rows * size)
    job[measure.ROOM] = address + rows * size
    job[measure.PLAN], job[measure.NUMBERS] = a[INTEGERS], a[REALS]
    return held, second, (square, short), room, job, (merged, table)


@compiled
def _forward(table_address, gated):
    a = integers(table_address)
    layout, images, channels, length = a[LAYOUT], a[IMAGES], a[CHANNELS], a[LENGTH]
    shape = (layout, images, channels, length)
    n = images * length
    width = _width_compiled(n)
    x, y = tensor(a[X], a[KIND]), tensor(a[Y], a[KIND])
    d = floats(a[D])
    keep = HEAD + POINT * a[POINTS]
    eps = doubles(table_address)[EPS]
    rows, _, stage, _, job, (_, table) = _workspace(a, 1)
    as_it_lies, direct, relu, past = a[READ] != 0, a[DIRECT] != 0, a[RELU] != 0, a[PAST] != 0
    while True:
        c0 = claim(a, NEXT) * a[BLOCK]
        if c0 >= channels:
            break
        many = min(a[BLOCK], channels - c0)
        if not as_it_lies:
            fetch(x, shape, c0, many, rows, width, stage)
        for j in range(many):
            c = c0 + j
            source, start, stride = rows, j * width, length
            job[measure.PLANES], job[measure.STRIDE], job[measure.LENGTH] = 1, 0, n
            if as_it_lies:
                source, start, stride = x[0], c * length, channels * length
                job[measure.PLANES], job[measure.STRIDE], job[measure.LENGTH] = images, stride, length
            job[measure.SOURCE], job[measure.START] = address_of(source), start
            job[measure.RECORD] = a[RECORD] + 4 * c * keep
            job[measure.S], job[measure.D] = a[S] + 4 * c, a[D] + 4 * c
            call(a[MEASURE], address_of(job))
            by = divisor(np.float64(d[c]), eps, a[ROOT] != 0)
            shift, scale, offset, unit = affine(a, table, j, c, by)
            target, begin, step = rows, start, stride
            if direct:
                target, begin, step = y[0], c * length, channels * length
            if gated is not None:
                means, apart = ahead(floats(a[MEANS]), c * images), 1
                if layout == LAST:
                    means, apart = ahead(floats(a[MEANS]), c), channels
                row_means(source, start, images, stride, length, shift, unit, means, apart, stage[0])
            if layout == PLANES:
                if gated is None:
                    normalize(
                        source, start, stride, target, begin, step, images, length,
                        shift, unit, scale, offset, relu, past,
                    )  # fmt: skip
                else:
                    channel_gains(a, c, scale)
                    normalize(
                        source, start, stride, target, begin, step, images, length,
                        shift, unit, scale, offset, relu, past, channel_rows(a, c)[1],
                    )  # fmt: skip
        if gated is not None and layout == LAST:
            lanes_gains(a, c0, many, table)
        if layout == PLANES and not direct:
            put_back(y, shape, c0, many, rows, width, stage[1])
    fence()


@entry_point
def forward(table_address):
    """y, S, D and the records of all channels."""
    _forward(table_address, None)


@entry_point
def forward_gated(table_address):
    """The same, and the means of rows; for LAST their gains in place of y."""
    _forward(table_address, True)


@compiled
def _backward(table_address, gated):
    a = integers(table_address)
    layout, images, channels, length = a[LAYOUT], a[IMAGES], a[CHANNELS], a[LENGTH]
    shape = (layout, images, channels, length)
    n = images * length
    width = _width_compiled(n)
    x, g, dx = tensor(a[X], a[KIND]), tensor(a[G], a[KIND]), tensor(a[Y], a[KIND])
    d = floats(a[D])
    points, bends = a[POINTS], a[BENDS]
    eps = doubles(table_address)[EPS]
    rows, others, stage, room, _, (merged, table) = _workspace(a, 2)
    as_it_lies, direct, relu, past = a[READ] != 0, a[DIRECT] != 0, a[RELU] != 0, a[PAST] != 0
    root, wanted = a[ROOT] != 0, a[WANTED] != 0
    while True:
        c0 = claim(a, NEXT) * a[BLOCK]
        if c0 >= channels:
            break
        many = min(a[BLOCK], channels - c0)
        if not as_it_lies:
            fetch(x, shape, c0, many, rows, width, stage)
            fetch(g, shape, c0, many, others, width, stage)
        for j in range(many):
            c = c0 + j
            spread = np.float64(d[c])
            by = divisor(spread, eps, root)
            shift, scale, offset, unit = affine(a, table, j, c, by)
            source, other, start, stride, planes, run, apart = rows, others, j * width, length, 1, n, 0
            if as_it_lies:
                source, other, start, stride = x[0], g[0], c * length, channels * length
                planes, run, apart = images, length, stride
            if gated is None:
                sum_g, sum_gu = reduce(
                    source, start, apart, other, start, apart, planes, run, shift, unit, scale, offset, relu
                )
                gradients(a, c, spread, by, scale, unit, sum_g, sum_gu, merged)
            else:
                channel_gains(a, c, scale)
                _, gains, sums, products = channel_rows(a, c)
                reduce(
                    source, start, stride, other, start, stride, images, length,
                    shift, unit, scale, offset, relu,
                    (gains, sums, products, room),  # which holds two squares where 16 short planes are there
                )  # fmt: skip
                sum_g, sum_gu = settle_channel(a, c, by * unit, scale)
                weigh(a, c, spread, by, scale, unit, sum_g, sum_gu, merged)
            if wanted:
                target, begin, step = rows, start, stride
                if direct:
                    target, begin, step = dx[0], c * length, channels * length
                if gated is None:
                    differentiate(
                        source, start, stride, other, start, stride, target, begin, step, images, length,
                        shift, unit, scale, offset, relu, merged, points, bends, past,
                    )  # fmt: skip
                else:
                    differentiate(
                        source, start, stride, other, start, stride, target, begin, step, images, length,
                        shift, unit, scale, offset, relu, merged, points, bends, past, (gains, sums),
                    )  # fmt: skip
        if wanted and not direct:
            put_back(dx, shape, c0, many, rows, width, stage[1])
    fence()


@entry_point
def backward(table_address):
    """dx, and the gradients to gain and bias, of all channels."""
    _backward(table_address, None)


@entry_point
def backward_gated(table_address):
    """The same, and the gradients to the gate; leaves gains and pulls of rows."""
    _backward(table_address, True)
