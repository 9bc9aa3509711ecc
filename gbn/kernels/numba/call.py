# mypy: ignore-errors
# Compiled by numba: a language of its own that only looks like Python.
"""The argument of an entry point, one table of integers (:class:`Call`), and what all entry points derive from it."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from gbn.kernels.plan import HEAD, POINT

from .compiling import compiled
from .memory import ahead, floats, halves
from .record import merge
from .simd import LANES, bits_of_float, float_of_bits

__all__ = ["Call", "affine", "divisor", "gradients", "tensor", "weigh"]


class Call(IntEnum):
    """Slots of the table, int64 each: counters, sizes, flags, then addresses (0: none).

    N images, C channels and L positions per image, ``(N, C, L)`` for PLANES and ``(N, L, C)`` for LAST
    (:mod:`.rows`); for LAST without a gate N is 1 and L counts the positions of all images. "data" is float32,
    bfloat16 or float16 as KIND says.
    """

    NEXT = 0  # the next block to claim
    THREADS = 1  # threads that have started
    LAYOUT = 2
    KIND = 3
    IMAGES = 4
    CHANNELS = 5
    LENGTH = 6
    BLOCK = 7  # channels that a thread claims at a time
    READ = 8  # whether channels are read in place, without copying them to a row first
    DIRECT = 9  # whether results are written in place, without a row in between
    PAST = 10  # whether they are written past the caches (non-temporal stores)
    RELU = 11
    ROOT = 12  # whether eps goes under the square root
    WANTED = 13  # whether dx is needed
    POINTS = 14
    S_POINTS = 15  # breakpoints of the statistic
    BENDS = 16
    RANKS = 17
    TERMS = 18
    SIZE = 19  # bytes of scratch per thread
    SPANS = 20  # number of spans of positions (LAST)
    PIECES = 21  # pieces per image, with instance enhancement (LAST)
    EPS = 22  # the bits of a float64
    INTEGERS = 23  # int64: the plan (.encode)
    REALS = 24  # float64: the plan
    SCRATCH = 25  # SIZE bytes per thread, aligned to 64
    X = 26  # data (N, C, L) or (N, L, C)
    Y = 27  # data like X: y, or dx
    G = 28  # data like X: the cotangent
    S = 29  # float32 (C,)
    D = 30  # float32 (C,)
    RECORD = 31  # float32 (C, HEAD + POINT * POINTS)
    WEIGHT = 32  # float32 (C,), as are the next three
    BIAS = 33
    DWEIGHT = 34
    DBIAS = 35
    # float64 (SPANS, ceil(C / 16), 2, 16), sums over spans; gated (ceil(C / 16), 5, 16), sums of channels
    PARTIAL = 36
    GATE_WEIGHT = 37  # float32 (C,), as are the next three; from here on: instance enhancement (.gate)
    GATE_BIAS = 38
    DGATE_WEIGHT = 39
    DGATE_BIAS = 40
    MEANS = 41  # float32, one per row: (C, N) for PLANES, (N, C) for LAST
    GAINS = 42  # like MEANS, and a vector more, as the next two
    SUMS = 43  # (N, PIECES, C) for LAST, as PRODUCTS
    PRODUCTS = 44
    MEASURE = 45  # the entry point that measures a channel (.measure)


# numba treats plain integers at module level as constants.
(
    NEXT, THREADS, LAYOUT, KIND, IMAGES, CHANNELS, LENGTH, BLOCK, READ, DIRECT, PAST, RELU, ROOT, WANTED,
    POINTS, S_POINTS, BENDS, RANKS, TERMS, SIZE, SPANS, PIECES, EPS, INTEGERS, REALS, SCRATCH, X, Y, G, S,
    D, RECORD, WEIGHT, BIAS, DWEIGHT, DBIAS, PARTIAL, GATE_WEIGHT, GATE_BIAS, DGATE_WEIGHT, DGATE_BIAS,
    MEANS, GAINS, SUMS, PRODUCTS, MEASURE,
) = (int(place) for place in Call)  # fmt: skip

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)

#: Above this a channel is measured in a unit of its own: the square of 1 / D' would underflow in float32.
_FAR = 2.0**60


@compiled
def tensor(address, kind):
    """Return a tensor as (float32 pointer, 16-bit pointer, kind); ``kind`` says which one to use (:mod:`.rows`)."""
    return floats(address), halves(address), kind


@compiled
def divisor(d, eps, root):
    """Return D' for D and eps, both float64; see gbn.kernels.epsilon."""
    return np.sqrt(d * d + eps) if root else d + eps


@compiled
def _unit(by):
    """Return a power of two near 1 / by where that is very small, else 1."""
    if by > _FAR:
        # 2^floor(log2(by)) becomes its inverse, exactly; the bound keeps that a normal number
        exponent = min(bits_of_float(np.float32(by)) >> 23, 253)
        return float_of_bits((254 - exponent) << 23)
    return _ONE


@compiled
def affine(a, table, j, c, by):
    """Return S, scale, bias and unit of channel c: ``y = (x unit - S unit) scale + bias``.

    In that unit both x - S and its factor stay within the range of float32. Lane j of the table receives -S unit,
    scale, bias and unit.

    a           (len(Call),) int64
    table       (4, 16) float32
    j, c        int64, lane and channel
    by          float64, D'
    """
    s, scale, offset = floats(a[S])[c], _ONE, _ZERO
    unit = _unit(by)
    if a[WEIGHT] != 0:
        scale = floats(a[WEIGHT])[c]
    if a[BIAS] != 0:
        offset = floats(a[BIAS])[c]
    scale = np.float32(scale / (by * unit))
    table[j], table[LANES + j], table[2 * LANES + j], table[3 * LANES + j] = -s * unit, scale, offset, unit
    return s, scale, offset, unit


@compiled
def gradients(a, c, d, by, scale, unit, sum_g, sum_gu, merged):
    """Write the gradients of gain and bias, and the merged record from which dx is computed.

    a               (len(Call),) int64
    c               int64, the channel
    d, by           float64, D and D'
    scale, unit     float32, of :func:`affine`
    sum_g, sum_gu   float64, sums of g and of g (x - S) unit
    merged          (HEAD + POINT * points,) float32, written
    """
    floats(a[DWEIGHT])[c] = sum_gu / (by * unit)
    floats(a[DBIAS])[c] = sum_g
    weigh(a, c, d, by, scale, unit, sum_g, sum_gu, merged)


@compiled
def weigh(a, c, d, by, scale, unit, sum_g, sum_gu, merged):
    """Write the merged record of channel c, given sums of g and g (x - S) that lack only ``scale`` as their gain.

    The second sum is in the channel's unit, as is the scale (:func:`affine`). Arguments as in :func:`gradients`.
    """
    root = a[ROOT] != 0
    sum_gx = sum_gu / (by * unit)
    # dD'/dD is D / D' where D' is a root, else 1
    slope = d / by if root else 1.0
    factor = -np.float64(scale) * unit
    record = ahead(floats(a[RECORD]), c * (HEAD + POINT * a[POINTS]))
    merge(record, a[POINTS], a[S_POINTS], factor * sum_g, factor * slope * sum_gx, unit, merged)
