# mypy: ignore-errors
# Compiled by numba: a language of its own that only looks like Python.
"""The compiled entry points whose threads share positions, for channels that are adjacent in memory (LAST).

Spans of positions are small enough for a cache, and their number does not depend on the number of threads. Their sums
are kept per span and added up in order, so results depend neither on the number of threads nor on their timing.

With instance enhancement (:mod:`.gate`; entry points ``..._gated``, ``gated`` True rather than None) spans consist of
whole images, or of pieces of images where these are few, and sums are kept per piece.

Shapes and dtypes of all tensors are those of the table's slots (:class:`.call.Call`).
"""

from __future__ import annotations

from gbn.kernels.plan import HEAD, POINT

from .call import affine, divisor, gradients, read, tensor, weigh
from .compiling import compiled, entry_point
from .elementwise_last import differentiate_last, normalize_last, reduce_last, reduce_rows_last
from .gate import TOTALS, lanes_of, settle_lanes
from .memory import NEXT, THREADS, ahead, claim, doubles, fence, floats, halves
from .simd import LANES

__all__ = [
    "differentiate_spans",
    "differentiate_spans_gated",
    "normalize_spans",
    "normalize_spans_gated",
    "pieces_of",
    "reduce_spans",
    "reduce_spans_gated",
    "scratch_size_last",
    "settle_blocks_gated",
    "spans_of",
]

#: Bytes of x in a span: together with the cotangent and dx they stay in a core's level-2 cache.
_SPAN = 1 << 18
_MOST_SPANS = 256

#: Numbers in the table of 16 channels, four per channel (:func:`.call.affine`).
_TABLE = 4 * LANES


def spans_of(values: int) -> int:
    """Return the number of spans for a tensor of so many values."""
    return max(1, min(_MOST_SPANS, 4 * values // _SPAN))


def pieces_of(images: int, channels: int, length: int) -> int:
    """Return the number of pieces into which an image of ``length`` positions is cut, so that each span gets one."""
    return min(length, -(-spans_of(images * channels * length) // images))


def scratch_size_last(channels: int, points: int) -> int:
    """Return the bytes of scratch per thread."""
    keep, blocks = HEAD + POINT * points, -(-channels // LANES)
    return 4 * (LANES + keep + blocks * (_TABLE + LANES * keep)) + 64


@compiled
def _scratch(a):
    """Return this thread's scratch: (16,) uint16, a record, and tables and records of all channels.

    The tables are (ceil(C / 16), 4, 16) float32, the records (ceil(C / 16), HEAD + POINT * points, 16) float32.
    """
    address = a.scratch + claim(a, THREADS) * a.size
    keep, blocks = HEAD + POINT * a.points, (a.channels + LANES - 1) // LANES
    short = halves(address)
    address += 4 * LANES
    merged = floats(address)
    address += 4 * keep
    return short, merged, floats(address), floats(address + 4 * blocks * _TABLE)


@compiled
def _fill(a, tables):
    """Fill the tables of all channels: every thread fills its own, since a pass has no barrier."""
    for c in range(a.channels):
        affine(a, ahead(tables, c // LANES * _TABLE), c % LANES, c)


@compiled
def _span(a, k, gated):
    """Return the range of span k: of positions, or of pieces of images."""
    n = a.images * (a.length if gated is None else a.pieces)
    return k * n // a.spans, (k + 1) * n // a.spans


def _over_spans(do, gated):
    """Return a pass that calls ``do(a, k, site, table, record, exponential)`` for 16 channels of a span at a time.

    Spans are claimed by threads; within one, the lines of 16 channels are still in the cache for the next 16.
    ``site`` and ``table`` are those of :mod:`.elementwise_last`; ``record`` is of the 16 channels, if they have one.
    """

    @compiled
    def run(a, short, tables, records, exponential):
        keep = HEAD + POINT * a.points
        while True:
            k = claim(a, NEXT)
            if k >= a.spans:
                break
            span = _span(a, k, gated)
            for c in range(0, a.channels, LANES):
                site = (span, a.channels, c, min(LANES, a.channels - c), short)
                do(a, k, site, ahead(tables, c // LANES * _TABLE), ahead(records, c * keep), exponential)
        fence()

    return run


@compiled
def _start(a, run):
    short, _, tables, records = _scratch(a)
    _fill(a, tables)
    run(a, short, tables, records, False)


@compiled
def _normalize(a, k, site, table, record, exponential):
    normalize_last(tensor(a.x, a.kind), tensor(a.y, a.kind), site, table, a.relu != 0)


@compiled
def _normalize_gated(a, k, site, table, record, exponential):
    rows = floats(a.gains), a.pieces, a.length
    normalize_last(tensor(a.x, a.kind), tensor(a.y, a.kind), site, table, a.relu != 0, rows)


@compiled
def _reduce(a, k, site, table, record, exponential):
    _, channels, c, _, _ = site
    blocks = (channels + LANES - 1) // LANES
    sums = ahead(doubles(a.partial), (k * blocks + c // LANES) * 2 * LANES)
    reduce_last(tensor(a.x, a.kind), tensor(a.g, a.kind), site, table, a.relu != 0, sums)


@compiled
def _reduce_gated(a, k, site, table, record, exponential):
    _, _, c, many, _ = site
    rows = floats(a.means), a.pieces, a.length, floats(a.sums), floats(a.products)
    gate = lanes_of(a.gate_weight, c, many), lanes_of(a.gate_bias, c, many)
    reduce_rows_last(tensor(a.x, a.kind), tensor(a.g, a.kind), site, table, a.relu != 0, rows, gate)


@compiled
def _differentiate(a, k, site, table, record, exponential):
    x, g, dx = tensor(a.x, a.kind), tensor(a.g, a.kind), tensor(a.y, a.kind)
    differentiate_last(x, g, dx, site, table, a.relu != 0, (record, a.points, a.bends, exponential))


@compiled
def _differentiate_gated(a, k, site, table, record, exponential):
    x, g, dx = tensor(a.x, a.kind), tensor(a.g, a.kind), tensor(a.y, a.kind)
    rows = floats(a.products), floats(a.sums), a.pieces, a.length
    differentiate_last(x, g, dx, site, table, a.relu != 0, (record, a.points, a.bends, exponential), rows)


_NORMALIZE, _NORMALIZE_GATED = _over_spans(_normalize, None), _over_spans(_normalize_gated, True)
_REDUCE, _REDUCE_GATED = _over_spans(_reduce, None), _over_spans(_reduce_gated, True)
_DIFFERENTIATE, _DIFFERENTIATE_GATED = (
    _over_spans(_differentiate, None),
    _over_spans(_differentiate_gated, True),
)


@entry_point
def normalize_spans(table_address):
    """Compute y, given S and D."""
    _start(read(table_address), _NORMALIZE)


@entry_point
def normalize_spans_gated(table_address):
    """Compute y, given S, D and the gains of rows."""
    _start(read(table_address), _NORMALIZE_GATED)


@entry_point
def reduce_spans(table_address):
    """Sum the cotangent over each span."""
    _start(read(table_address), _REDUCE)


@entry_point
def reduce_spans_gated(table_address):
    """Sum the cotangent over each piece of an image."""
    _start(read(table_address), _REDUCE_GATED)


@entry_point
def settle_blocks_gated(table_address):
    """Compute all gradients except dx from the pieces' sums; leaves sums of channels, gains and pulls."""
    a = read(table_address)
    channels = a.channels
    _, _, tables, _ = _scratch(a)
    _fill(a, tables)
    while True:
        block = claim(a, NEXT)
        if block * LANES >= channels:
            break
        totals = ahead(doubles(a.partial), block * TOTALS * LANES)
        first, many = block * LANES, min(LANES, channels - block * LANES)
        settle_lanes(a, first, many, ahead(tables, block * _TABLE), totals)
        for lane in range(many):
            c = first + lane
            unit = tables[block * _TABLE + 3 * LANES + lane]
            floats(a.dweight)[c] = totals[LANES + lane] / (divisor(a, c) * unit)
            floats(a.dbias)[c] = totals[2 * LANES + lane]
            floats(a.dgate_bias)[c] = totals[3 * LANES + lane]
            floats(a.dgate_weight)[c] = totals[4 * LANES + lane]
    fence()


@compiled
def _merged(a, tables, merged, records, gated):
    """Write the gradients of gain and bias, and the merged records; return whether any record has an exponential.

    Every thread writes the same gradients. With a gate these are already there, and ``partial`` holds sums of
    channels instead of sums of spans.

    tables      (ceil(C / 16), 4, 16) float32
    merged      (HEAD + POINT * points,) float32 scratch
    records     (ceil(C / 16), HEAD + POINT * points, 16) float32, written: one lane per channel
    """
    blocks, keep = (a.channels + LANES - 1) // LANES, HEAD + POINT * a.points
    partial = doubles(a.partial)
    exponential = False
    for c in range(a.channels):
        block, lane = c // LANES, c % LANES
        unit, scale = tables[block * _TABLE + 3 * LANES + lane], tables[block * _TABLE + LANES + lane]
        if gated is None:
            sum_g, sum_gu = 0.0, 0.0
            # spans in order: the result does not depend on who summed them
            for k in range(a.spans):
                place = (k * blocks + block) * 2 * LANES + lane
                sum_g += partial[place]
                sum_gu += partial[place + LANES]
            gradients(a, c, unit, scale, sum_g, sum_gu, merged)
        else:
            place = block * TOTALS * LANES + lane
            sum_g, sum_gu = partial[place], partial[place + LANES]
            weigh(a, c, unit, scale, sum_g, sum_gu, merged)
        for i in range(keep):
            records[(block * keep + i) * LANES + lane] = merged[i]
        exponential = exponential or abs(merged[3]) > 0.0  # not for a NaN: its exponent could be anything
    return exponential


@compiled
def _merge_and_run(a, gated, run):
    short, merged, tables, records = _scratch(a)
    _fill(a, tables)
    exponential = _merged(a, tables, merged, records, gated)
    # records of all channels are ready: now each position can be written on its own, whoever gets it
    if a.wanted != 0:
        run(a, short, tables, records, exponential)


@entry_point
def differentiate_spans(table_address):
    """Compute the gradients of gain and bias, and dx where it is needed."""
    _merge_and_run(read(table_address), None, _DIFFERENTIATE)


@entry_point
def differentiate_spans_gated(table_address):
    """Compute dx where it is needed, after :func:`settle_blocks_gated`."""
    _merge_and_run(read(table_address), True, _DIFFERENTIATE_GATED)
