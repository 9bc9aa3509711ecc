# mypy: ignore-errors
# Compiled by numba: a language of its own that only looks like Python.
"""Instance enhancement: the gate of each row, that is, of one image's values in one channel
(:mod:`gbn.kernels.gate`).

    delta = sigmoid(gate_weight m + gate_bias), m the row's mean;       gain = scale delta, scale = weight / D'

With r0 and r1 the row's sums of g and of g (x - S) over the values that the ReLU lets through:

    dbias = sum r0          dweight = sum delta r1 / D'          da = scale r1 delta (1 - delta)
    dgate_bias = sum da     dgate_weight = sum da m              dx += gate_weight da / (values per row)

and the derivatives of S and D are weighted with sums of gain r0 and gain r1. Where the channel has its own unit
(:func:`.call.affine`), gain, scale, D' and r1 are in that unit. Rows are processed 16 at a time: images of one
channel (PLANES, where per-row numbers are stored as (C, N)) or channels of one image (LAST, as (N, C)).

``a`` is the table of the call (:class:`.call.Call`); ``c``, ``many`` and other counts are int64; ``by`` is float64.
"""

from __future__ import annotations

import numpy as np

from .compiling import compiled, inlined
from .convert import exp, row_totals
from .memory import ahead, floats, load, load_first, store, store_doubles, store_first
from .simd import LANES, fma, minimum, splat, total, total_narrow, widen, zeros64
from .sums import PIECE

__all__ = [
    "TOTALS",
    "channel_gains",
    "channel_rows",
    "lanes_gains",
    "lanes_of",
    "open_gate",
    "piece_of",
    "row_means",
    "settle_channel",
    "settle_lanes",
]

#: Sums per channel that :func:`settle_lanes` leaves.
TOTALS = 5

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)

#: The largest argument that the exponential takes; beyond it the gate is 0 to rounding.
_MOST = np.float32(80.0)


@inlined
def open_gate(m, slope, offset):
    """Return delta of 16 rows; all f32x16."""
    one = splat(_ONE)
    return one / (one + exp(minimum(splat(_MOST), splat(_ZERO) - fma(m, slope, offset))))


@compiled
def row_means(view, s, unit, means, step, square):
    """Write the mean of each plane, ``step`` apart; differences from s are averaged, so that an offset stays exact.

    view        the channel's planes, see :mod:`.search`
    s, unit     float32
    means       float32, written at 0, step, 2 step, ...
    square      (16, 16) float32 scratch
    """
    x, start, planes, stride, length = view
    k, shift, nothing = splat(unit), splat(-s * unit), splat(s)
    each = 1.0 / (length * np.float64(unit))
    together = 0
    if stride == length and length % LANES == 0 and length <= PIECE:
        # short contiguous planes: summing the lanes of 16 of them at a time costs a third
        together = planes // LANES * LANES
    for plane in range(0, together, LANES):
        for j in range(LANES):
            begin = start + (plane + j) * length
            sums = fma(load(x, begin), k, shift)
            for i in range(begin + LANES, begin + length, LANES):
                sums = sums + fma(load(x, i), k, shift)
            store(square, j * LANES, sums)
        store(square, 0, fma(row_totals(square, 0), splat(each), nothing))
        for j in range(LANES):
            means[(plane + j) * step] = square[j]
    for plane in range(together, planes):
        end = start + plane * stride + length
        found = np.float64(0.0)
        for begin in range(start + plane * stride, end, PIECE):
            stop = min(begin + PIECE, end)
            whole = begin + (stop - begin) // LANES * LANES
            sums = splat(_ZERO)
            for i in range(begin, whole, LANES):
                sums = sums + fma(load(x, i), k, shift)
            if whole < stop:
                sums = sums + fma(load_first(x, whole, stop - whole, nothing), k, shift)
            found += total_narrow(sums)
        means[plane * step] = np.float64(s) + found * each


@compiled
def channel_rows(a, c):
    """Return pointers to the means, gains, sums and products of channel c's rows (PLANES), (N,) float32 each."""
    first = c * a.images
    means, gains = ahead(floats(a.means), first), ahead(floats(a.gains), first)
    return means, gains, ahead(floats(a.sums), first), ahead(floats(a.products), first)


@compiled
def channel_gains(a, c, scale):
    """Write the gains of channel c's rows (PLANES); ``scale`` is float32."""
    means, gains, _, _ = channel_rows(a, c)
    slope, offset = splat(floats(a.gate_weight)[c]), splat(floats(a.gate_bias)[c])
    factor, zero = splat(scale), splat(_ZERO)
    for n in range(0, a.images, LANES):
        many = a.images - n
        store_first(gains, n, many, factor * open_gate(load_first(means, n, many, zero), slope, offset))


@compiled
def settle_channel(a, c, by, scale):
    """Write all gradients of channel c except dx, and replace the rows' sums by their pulls on dx (PLANES).

    A pull is what a row's mean adds to dx at each of its values. ``scale`` is float32, and ``by`` is D' in the
    channel's unit.

    Returns:
        Sums of delta r0 and delta r1, float64.
    """
    means, _, sums, products = channel_rows(a, c)
    gate_weight = floats(a.gate_weight)[c]
    slope, offset = splat(gate_weight), splat(floats(a.gate_bias)[c])
    factor, pull, zero, one = splat(scale), splat(gate_weight / a.length), splat(_ZERO), splat(_ONE)
    sum_g, sum_gd, sum_gu, sum_a, sum_am = zeros64(), zeros64(), zeros64(), zeros64(), zeros64()
    for n in range(0, a.images, LANES):
        many = a.images - n
        m = load_first(means, n, many, zero)
        r0, r1 = load_first(sums, n, many, zero), load_first(products, n, many, zero)
        delta = open_gate(m, slope, offset)
        # r1 lacks only the scale as a factor, and the derivative of the sigmoid is delta (1 - delta)
        da = factor * r1 * (delta * (one - delta))
        sum_g, sum_gd, sum_gu = sum_g + widen(r0), sum_gd + widen(delta * r0), sum_gu + widen(delta * r1)
        sum_a, sum_am = sum_a + widen(da), sum_am + widen(da * m)
        # the same for every value of the row, since each enters the mean with 1 / L
        store_first(sums, n, many, da * pull)
    moved = total(sum_gu)
    floats(a.dbias)[c], floats(a.dweight)[c] = total(sum_g), moved / by
    floats(a.dgate_bias)[c], floats(a.dgate_weight)[c] = total(sum_a), total(sum_am)
    return total(sum_gd), moved


@inlined
def piece_of(k, pieces, length):
    """Return the range of positions of piece k, for images of ``length`` positions in ``pieces`` pieces (LAST)."""
    image, piece = k // pieces, k % pieces
    return image * length + piece * length // pieces, image * length + (piece + 1) * length // pieces


@compiled
def lanes_of(address, c, many):
    """Return ``many`` numbers from index c on of the float32 tensor at an address, as f32x16."""
    return load_first(floats(address), c, many, splat(_ZERO))


@compiled
def lanes_gains(a, c, many, table):
    """Write the gains of all images' rows for ``many`` channels from c on (LAST).

    ``table`` is (4, 16) float32 of :func:`.call.affine` and provides the scale.
    """
    slope, offset = lanes_of(a.gate_weight, c, many), lanes_of(a.gate_bias, c, many)
    factor = load(table, LANES)
    for n in range(a.images):
        place = n * a.channels + c
        delta = open_gate(lanes_of(a.means, place, many), slope, offset)
        store_first(floats(a.gains), place, many, factor * delta)


@compiled
def settle_lanes(a, c, many, table, totals):
    """Do the per-row part of :func:`settle_channel` for ``many`` channels from c on (LAST).

    A row's sums are added up from its pieces; the pull and the gain are left in the place of its first piece.

    table       (4, 16) float32, of :func:`.call.affine`
    totals      (5, 16) float64, written: sums of delta r0, delta r1, r0, da and da m
    """
    pieces, channels = a.pieces, a.channels
    sums, products, zero, one = floats(a.sums), floats(a.products), splat(_ZERO), splat(_ONE)
    slope, offset = lanes_of(a.gate_weight, c, many), lanes_of(a.gate_bias, c, many)
    factor, pull = load(table, LANES), slope / splat(np.float32(a.length))
    sum_g, sum_gd, sum_gu, sum_a, sum_am = zeros64(), zeros64(), zeros64(), zeros64(), zeros64()
    for n in range(a.images):
        m = lanes_of(a.means, n * channels + c, many)
        first = n * pieces * channels + c
        r0, r1 = load_first(sums, first, many, zero), load_first(products, first, many, zero)
        # pieces in order, whoever summed them: the result does not depend on threads
        for piece in range(1, pieces):
            place = first + piece * channels
            r0, r1 = r0 + load_first(sums, place, many, zero), r1 + load_first(products, place, many, zero)
        delta = open_gate(m, slope, offset)
        da = factor * r1 * (delta * (one - delta))
        sum_g, sum_gd, sum_gu = sum_g + widen(r0), sum_gd + widen(delta * r0), sum_gu + widen(delta * r1)
        sum_a, sum_am = sum_a + widen(da), sum_am + widen(da * m)
        store_first(sums, first, many, da * pull)
        store_first(products, first, many, factor * delta)
    store_doubles(totals, 0, sum_gd)
    store_doubles(totals, LANES, sum_gu)
    store_doubles(totals, 2 * LANES, sum_g)
    store_doubles(totals, 3 * LANES, sum_a)
    store_doubles(totals, 4 * LANES, sum_am)
