"""What an entry point is told: one table of integers (:class:`Call`), and what all of them make of it."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from gbn.kernels.plan import HEAD, POINT

from .compiling import compiled
from .memory import ahead, floats, halves
from .record import merge
from .simd import LANES

__all__ = ["Call", "affine", "divisor", "gradients", "tensor"]


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
    PARTIAL = 34  # float64: sums of spans of positions
    SPANS = 35  # how many spans of positions there are


# numba takes plain integers at module level as constants.
(
    NEXT, THREADS, LAYOUT, KIND, IMAGES, CHANNELS, LENGTH, BLOCK, READ, DIRECT, PAST, RELU, ROOT, WANTED,
    POINTS, S_POINTS, BENDS, RANKS, TERMS, SIZE, EPS, INTEGERS, REALS, SCRATCH,
    X, Y, G, S, D, RECORD, WEIGHT, BIAS, DWEIGHT, DBIAS, PARTIAL, SPANS,
) = (int(place) for place in Call)  # fmt: skip

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)


@compiled
def tensor(address, kind):
    """A tensor as (float32, 16 bits, kind): which of the two it is, the kind tells (:mod:`.rows`)."""
    return floats(address), halves(address), kind


@compiled
def divisor(d, eps, root):
    """See gbn.kernels.epsilon."""
    return np.sqrt(d * d + eps) if root else d + eps


@compiled
def affine(a, table, j, c, by):
    """Write S, scale and bias of channel c to lane j of the table; return them."""
    s, scale, offset = floats(a[S])[c], _ONE, _ZERO
    if a[WEIGHT] != 0:
        scale = floats(a[WEIGHT])[c]
    if a[BIAS] != 0:
        offset = floats(a[BIAS])[c]
    scale = np.float32(scale / by)
    table[j], table[LANES + j], table[2 * LANES + j] = s, scale, offset
    return s, scale, offset


@compiled
def gradients(a, c, d, by, scale, sum_g, sum_gu, merged):
    """Write the gradients to gain and bias, and the merged record that dx is made of."""
    root = a[ROOT] != 0
    sum_gx = sum_gu / by
    floats(a[DWEIGHT])[c] = sum_gx
    floats(a[DBIAS])[c] = sum_g
    slope = d / by if root else 1.0
    record = ahead(floats(a[RECORD]), c * (HEAD + POINT * a[POINTS]))
    merge(record, a[POINTS], a[S_POINTS], -scale * sum_g, -scale * slope * sum_gx, merged)
