# mypy: ignore-errors
# Compiled by numba: a language of its own that only looks like Python.
"""The compiled entry points whose threads share channels: forward, and backward for channels independently.

Each is called by every participating thread with the address of one table (:mod:`.call`). Threads claim blocks of
channels, one channel (PLANES) or up to 16 (LAST), until none is left. One thread works on a channel from beginning to
end and in a fixed order, so results depend neither on the number of threads nor on their timing.

``gated`` is None or True: each entry point is compiled without and with instance enhancement (:mod:`.gate`).

Shapes and dtypes of all tensors are those of the table's slots (:class:`.call.Call`).
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
    """Return the bytes that a thread needs: ``rows`` tensors' rows of a block of channels, and search scratch."""
    keep = HEAD + POINT * points
    wide = 2 * ranks + 8 + 2 * terms
    small = LANES * LANES + LANES + keep + 4 * LANES
    return 8 * (len(Job) + wide) + 4 * (small + rows * block * _width(n) + ranks + room_to_select(n)) + 64


def _width(n):
    """Return the floats in a row: its samples, rounded up to whole vectors, and one vector more."""
    return (n + LANES - 1) // LANES * LANES + LANES


_width_compiled = compiled(_width)
_JOB = len(Job)


@compiled
def _workspace(a, rows):
    """Return this thread's scratch: ``rows`` tensors' rows of a block, staging, room for searches, and small tables.

    a           (len(Call),) int64
    rows        int64, 1 (x) or 2 (x and g)

    Returns (held, second, (square, short), room, job, (merged, table)):

    held, second    (block, width) float32
    square, short   (16, 16) float32, (16,) uint16
    room            float32, what room_to_select says
    job             (len(Job),) int64
    merged, table   (HEAD + POINT * points,) float32, (4, 16) float32
    """
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
    # LAST moves whole squares, so its rows are always 16
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
        # the layout, half precision or short runs keep this channel from being read in place
        if not as_it_lies:
            fetch(x, shape, c0, many, rows, width, stage)
        for j in range(many):
            # the view of this channel: a row of scratch, or its planes in x
            c = c0 + j
            source, start, stride = rows, j * width, length
            job[measure.PLANES], job[measure.STRIDE], job[measure.LENGTH] = 1, 0, n
            if as_it_lies:
                source, start, stride = x[0], c * length, channels * length
                job[measure.PLANES], job[measure.STRIDE], job[measure.LENGTH] = images, stride, length
            job[measure.SOURCE], job[measure.START] = address_of(source), start
            job[measure.RECORD] = a[RECORD] + 4 * c * keep
            job[measure.S], job[measure.D] = a[S] + 4 * c, a[D] + 4 * c
            # measuring is an entry point of its own, so that it compiles in parallel with this one
            call(a[MEASURE], address_of(job))
            by = divisor(np.float64(d[c]), eps, a[ROOT] != 0)
            # with DIRECT y is written in place even if x was copied to rows; otherwise the row of x becomes that of y
            shift, scale, offset, unit = affine(a, table, j, c, by)
            target, begin, step = rows, start, stride
            if direct:
                target, begin, step = y[0], c * length, channels * length
            if gated is not None:
                means, apart = ahead(floats(a[MEANS]), c * images), 1
                if layout == LAST:
                    means, apart = ahead(floats(a[MEANS]), c), channels
                row_means(source, start, images, stride, length, shift, unit, means, apart, stage[0])
            # for LAST y needs all channels of a position: normalize_spans writes it once S and D are known
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
    # non-temporal stores are not ordered by the end of the call
    fence()


@entry_point
def forward(table_address):
    """Compute y (PLANES only), S, D and the records of all channels."""
    _forward(table_address, None)


@entry_point
def forward_gated(table_address):
    """Do the same, and write the means of rows; for LAST also their gains."""
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
            # a row of scratch is one plane of n samples; in place there are N planes
            source, other, start, stride, planes, run, apart = rows, others, j * width, length, 1, n, 0
            if as_it_lies:
                source, other, start, stride = x[0], g[0], c * length, channels * length
                planes, run, apart = images, length, stride
            if gated is None:
                # ungated sums do not care about image boundaries: the whole row is one run
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
                    (gains, sums, products, room),  # room is free here, and holds two squares
                )  # fmt: skip
                # the gate turns the rows' sums into the channel's, and leaves in ``sums`` what each row's mean adds
                # to dx
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
    # non-temporal stores are not ordered by the end of the call
    fence()


@entry_point
def backward(table_address):
    """Compute dx, and the gradients of gain and bias, of all channels (PLANES)."""
    _backward(table_address, None)


@entry_point
def backward_gated(table_address):
    """Do the same, and the gradients of the gate; leaves gains and pulls of rows."""
    _backward(table_address, True)
