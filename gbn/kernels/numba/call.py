# mypy: ignore-errors
# Compiled by numba: a language of its own in Python's clothes.
"""What an entry point is told: one table of integers (:class:`Call`), and what all of them make of it."""

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
    SPANS = 20  # how many spans of positions there are (LAST)
    PIECES = 21  # of an image, with instance enhancement (LAST)
    EPS = 22  # the bits of a float64
    INTEGERS = 23  # the plan
    REALS = 24
    SCRATCH = 25
    X = 26
    Y = 27  # y, or dx
    G = 28
    S = 29
    D = 30
    RECORD = 31
    WEIGHT = 32
    BIAS = 33
    DWEIGHT = 34
    DBIAS = 35
    PARTIAL = 36  # float64: sums of spans of positions
    GATE_WEIGHT = 37  # from here on: of instance enhancement (.gate)
    GATE_BIAS = 38
    DGATE_WEIGHT = 39
    DGATE_BIAS = 40
    MEANS = 41  # a number a row, as are the next three
    GAINS = 42
    SUMS = 43
    PRODUCTS = 44
    MEASURE = 45  # the entry point that measures a channel (.measure)


# numba takes plain integers at module level as constants.
(
    NEXT, THREADS, LAYOUT, KIND, IMAGES, CHANNELS, LENGTH, BLOCK, READ, DIRECT, PAST, RELU, ROOT, WANTED,
    POINTS, S_POINTS, BENDS, RANKS, TERMS, SIZE, SPANS, PIECES, EPS, INTEGERS, REALS, SCRATCH, X, Y, G, S,
    D, RECORD, WEIGHT, BIAS, DWEIGHT, DBIAS, PARTIAL, GATE_WEIGHT, GATE_BIAS, DGATE_WEIGHT, DGATE_BIAS,
    MEANS, GAINS, SUMS, PRODUCTS, MEASURE,
) = (int(place) for place in Call)  # fmt: skip

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)

#: From here on a channel is measured in a unit of its own: the square of 1 / D' would vanish in float32.
_FAR = 2.0**60


@compiled
def tensor(address, kind):
    """A tensor as (float32, 16 bits, kind): which of the two it is, the kind tells (:mod:`.rows`)."""
    return floats(address), halves(address), kind


@compiled
def divisor(d, eps, root):
    """See gbn.kernels.epsilon."""
    return np.sqrt(d * d + eps) if root else d + eps


@compiled
def _unit(by):
    """A power of two near 1 / by where that is very small, else 1."""
    if by > _FAR:
        exponent = min(bits_of_float(np.float32(by)) >> 23, 253)
        return float_of_bits((254 - exponent) << 23)
    return _ONE


@compiled
def affine(a, table, j, c, by):
    """S, scale, bias and unit of channel c: ``(x unit - S unit) scale + bias``.

    In that unit x - S and what it is multiplied with stay within float32. To lane j of the table go -S unit, scale,
    bias and unit.
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
    """Write the gradients to gain and bias, and the merged record that dx is made of."""
    floats(a[DWEIGHT])[c] = sum_gu / (by * unit)
    floats(a[DBIAS])[c] = sum_g
    weigh(a, c, d, by, scale, unit, sum_g, sum_gu, merged)


@compiled
def weigh(a, c, d, by, scale, unit, sum_g, sum_gu, merged):
    """Write the merged record of channel c, given sums of g and g (x - S) whose gain is but for the scale in them.

    The second sum is in the channel's unit, as is the scale (:func:`affine`).
    """
    root = a[ROOT] != 0
    sum_gx = sum_gu / (by * unit)
    slope = d / by if root else 1.0
    factor = -np.float64(scale) * unit
    record = ahead(floats(a[RECORD]), c * (HEAD + POINT * a[POINTS]))
    merge(record, a[POINTS], a[S_POINTS], factor * sum_g, factor * slope * sum_gx, unit, merged)
