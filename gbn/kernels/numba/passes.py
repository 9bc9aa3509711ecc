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

import ctypes

from gbn.kernels.plan import HEAD, POINT

from .call import affine, divisor, gradients, read, tensor, weigh
from .compiling import compiled, entry_point
from .elementwise import differentiate, normalize, reduce
from .gate import channel_gains, channel_rows, lanes_gains, row_means, settle_channel
from .layout import LAST, PLANES
from .measure import Job, job_at
from .memory import NEXT, THREADS, address_of, ahead, call, claim, fence, floats, halves
from .rows import fetch, put_back
from .select import room_to_select
from .simd import LANES

__all__ = ["backward", "backward_gated", "forward", "forward_gated", "scratch_size"]


def scratch_size(n: int, block: int, ranks: int, terms: int, points: int, rows: int) -> int:
    """Return the bytes that a thread needs: ``rows`` tensors' rows of a block of channels, and search scratch."""
    keep = HEAD + POINT * points
    wide = 2 * ranks + 8 + 2 * terms
    small = LANES * LANES + LANES + keep + 4 * LANES
    return (
        ctypes.sizeof(Job)
        + 8 * wide
        + 4 * (small + rows * block * _width(n) + ranks + room_to_select(n))
        + 64
    )


def _width(n):
    """Return the floats in a row: its samples, rounded up to whole vectors, and one vector more."""
    return (n + LANES - 1) // LANES * LANES + LANES


_width_compiled = compiled(_width)
_JOB = ctypes.sizeof(Job)


@compiled
def _workspace(a, rows):
    """Return this thread's scratch: ``rows`` tensors' rows of a block, staging, room for searches, and small tables.

    a           a :class:`.call.Call`
    rows        int64, 1 (x) or 2 (x and g)

    Returns (held, second, (square, short), room, own, (merged, table)):

    held, second    (block, width) float32
    square, short   (16, 16) float32, (16,) uint16
    room            float32, what room_to_select says
    own             int64, the address of a :class:`.measure.Job`, whose scratch and plan are filled in
    merged, table   (HEAD + POINT * points,) float32, (4, 16) float32
    """
    own = address = a.scratch + claim(a, THREADS) * a.size
    ranks, terms, keep = a.ranks, a.terms, HEAD + POINT * a.points
    job = job_at(address)
    address += _JOB
    job.places = address
    address += 8 * 2 * ranks
    job.wide = address
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
    block = LANES if a.layout == LAST else a.block
    size = 4 * block * _width_compiled(a.images * a.length)
    held = floats(address)
    second = floats(address + size)
    room = floats(address + rows * size)
    job.room = address + rows * size
    job.plan = a.plan
    return held, second, (square, short), room, own, (merged, table)


@compiled
def _forward(table_address, gated):
    a = read(table_address)
    layout, images, channels, length = a.layout, a.images, a.channels, a.length
    shape = (layout, images, channels, length)
    n = images * length
    width = _width_compiled(n)
    x, y = tensor(a.x, a.kind), tensor(a.y, a.kind)
    keep = HEAD + POINT * a.points
    rows, _, stage, _, own, (_, table) = _workspace(a, 1)
    job = job_at(own)
    as_it_lies, direct, relu, past = a.read != 0, a.direct != 0, a.relu != 0, a.past != 0
    while True:
        c0 = claim(a, NEXT) * a.block
        if c0 >= channels:
            break
        many = min(a.block, channels - c0)
        # the layout, half precision or short runs keep this channel from being read in place
        if not as_it_lies:
            fetch(x, shape, c0, many, rows, width, stage)
        for j in range(many):
            c = c0 + j
            # the view of this channel: a row of scratch, or its planes in x
            source, start, stride = rows, j * width, length
            job.planes, job.stride, job.length = 1, 0, n
            if as_it_lies:
                source, start, stride = x[0], c * length, channels * length
                job.planes, job.stride, job.length = images, stride, length
            view = (source, start, images, stride, length)
            job.source, job.start = address_of(source), start
            job.record = a.record + 4 * c * keep
            job.s, job.d = a.s + 4 * c, a.d + 4 * c
            # measuring is an entry point of its own, so that it compiles in parallel with this one
            call(a.measure, own)
            # direct: y is written in place even if x was copied to rows; otherwise the row of x becomes that of y
            line = affine(a, table, j, c)
            out = (rows, start, stride, past)
            if direct:
                out = (y[0], c * length, channels * length, past)
            if gated is not None:
                means, apart = ahead(floats(a.means), c * images), 1
                if layout == LAST:
                    means, apart = ahead(floats(a.means), c), channels
                row_means(view, line[0], line[1], means, apart, stage[0])
            # for LAST y needs all channels of a position: normalize_spans writes it once S and D are known
            if layout == PLANES:
                if gated is None:
                    normalize(view, out, line, relu)
                else:
                    channel_gains(a, c, line[2])
                    normalize(view, out, line, relu, channel_rows(a, c)[1])
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
    a = read(table_address)
    layout, images, channels, length = a.layout, a.images, a.channels, a.length
    shape = (layout, images, channels, length)
    n = images * length
    width = _width_compiled(n)
    x, g, dx = tensor(a.x, a.kind), tensor(a.g, a.kind), tensor(a.y, a.kind)
    points, bends = a.points, a.bends
    rows, others, stage, room, _, (merged, table) = _workspace(a, 2)
    as_it_lies, direct, relu, past = a.read != 0, a.direct != 0, a.relu != 0, a.past != 0
    wanted = a.wanted != 0
    while True:
        c0 = claim(a, NEXT) * a.block
        if c0 >= channels:
            break
        many = min(a.block, channels - c0)
        if not as_it_lies:
            fetch(x, shape, c0, many, rows, width, stage)
            fetch(g, shape, c0, many, others, width, stage)
        for j in range(many):
            c = c0 + j
            line = affine(a, table, j, c)
            # Two passes over the channel, because dx at any sample needs the sums over all of them: sum g and
            # sum g (x - S) first, then dx. The channel's x and g stay in the cache in between.
            _, unit, scale, _ = line
            # The view of this channel, and where its cotangent is: two rows of scratch, or planes in x and g. Sums
            # without a gate do not care about the images' borders: there a row of scratch is one run of n.
            view, other = (rows, j * width, images, length, length), (others, j * width, length)
            whole, beside = (rows, j * width, 1, 0, n), (others, j * width, 0)
            if as_it_lies:
                start, stride = c * length, channels * length
                view, other = (x[0], start, images, stride, length), (g[0], start, stride)
                whole, beside = view, other
            if gated is None:
                sum_g, sum_gu = reduce(whole, beside, line, relu)
                gradients(a, c, unit, scale, sum_g, sum_gu, merged)
            else:
                channel_gains(a, c, scale)
                _, gains, sums, products = channel_rows(a, c)
                # room is free here, and holds two squares
                reduce(view, other, line, relu, (gains, sums, products, room))
                # the gate turns the rows' sums into the channel's, and leaves in ``sums`` what each row's mean adds
                # to dx
                sum_g, sum_gu = settle_channel(a, c, divisor(a, c) * unit, scale)
                weigh(a, c, unit, scale, sum_g, sum_gu, merged)
            if wanted:
                out = (rows, j * width, length, past)
                if direct:
                    out = (dx[0], c * length, channels * length, past)
                if gated is None:
                    differentiate(view, other, out, line, relu, (merged, points, bends))
                else:
                    differentiate(view, other, out, line, relu, (merged, points, bends), (gains, sums))
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
