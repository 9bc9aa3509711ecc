# mypy: ignore-errors
# Compiled by numba: a language of its own that only looks like Python.
"""The argument of an entry point, one table (:class:`Call`), and what all entry points derive from it."""

from __future__ import annotations

import ctypes

import numpy as np

from gbn.kernels.plan import HEAD, POINT

from .compiling import compiled
from .memory import ahead, floats, halves, int64s, reader
from .record import merge
from .simd import LANES, bits_of_float, float_of_bits

__all__ = ["Call", "affine", "divisor", "gradients", "read", "tensor", "weigh"]


class Call(ctypes.Structure):
    """The table of a call: counters, sizes, flags, then addresses (0: none).

    N images, C channels and L positions per image, ``(N, C, L)`` for PLANES and ``(N, L, C)`` for LAST
    (:mod:`.rows`); for LAST without a gate N is 1 and L counts the positions of all images. "data" is float32,
    bfloat16 or float16 as ``kind`` says.
    """

    _fields_ = (
        *int64s(
            "next",  # the next block to claim
            "threads",  # threads that have started
            "layout",
            "kind",
            "images",
            "channels",
            "length",
            "block",  # channels that a thread claims at a time
            "read",  # whether channels are read in place, without copying them to a row first
            "direct",  # whether results are written in place, without a row in between
            "past",  # whether they are written past the caches (non-temporal stores)
            "relu",
            "root",  # whether eps goes under the square root
            "wanted",  # whether dx is needed
            "points",  # breakpoints of the derivatives of S and D
            "s_points",  # those of S
            "bends",  # how many of the points may have a bend: all, or none
            "ranks",
            "terms",
            "size",  # bytes of scratch per thread
            "spans",  # number of spans of positions (LAST)
            "pieces",  # pieces per image, with instance enhancement (LAST)
            "plan",  # a .encode.Encoded
            "measure",  # the entry point that measures a channel (.measure)
            "scratch",  # ``size`` bytes per thread, aligned to 64
        ),
        ("eps", ctypes.c_double),
        *int64s(
            "x",  # data (N, C, L) or (N, L, C)
            "y",  # data like x: y, or dx
            "g",  # data like x: the cotangent
            "s",  # float32 (C,)
            "d",  # float32 (C,)
            "record",  # float32 (C, HEAD + POINT * points)
            "weight",  # float32 (C,), as are the next three
            "bias",
            "dweight",
            "dbias",
            # float64 (spans, ceil(C / 16), 2, 16), sums over spans; gated (ceil(C / 16), 5, 16), sums of channels
            "partial",
            "gate_weight",  # float32 (C,), as are the next three; from here on: instance enhancement (.gate)
            "gate_bias",
            "dgate_weight",
            "dgate_bias",
            "means",  # float32, one per row: (C, N) for PLANES, (N, C) for LAST
            "gains",  # like the means, and a vector more, as the next two
            "sums",  # (N, pieces, C) for LAST, as the products
            "products",
        ),
    )


read = reader(Call)

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)

#: Above this a channel is measured in a unit of its own: the square of 1 / D' would underflow in float32.
_FAR = 2.0**60


@compiled
def tensor(address, kind):
    """Return a tensor as (float32 pointer, 16-bit pointer, kind); ``kind`` says which one to use (:mod:`.rows`)."""
    return floats(address), halves(address), kind


@compiled
def divisor(a, c):
    """Return D' of channel c, float64 (:mod:`gbn.kernels.epsilon`)."""
    d = np.float64(floats(a.d)[c])
    return np.sqrt(d * d + a.eps) if a.root != 0 else d + a.eps


@compiled
def _unit(by):
    """Return a power of two near 1 / by where that is very small, else 1."""
    if by > _FAR:
        # 2^floor(log2(by)) becomes its inverse, exactly; the bound keeps that a normal number
        exponent = min(bits_of_float(np.float32(by)) >> 23, 253)
        return float_of_bits((254 - exponent) << 23)
    return _ONE


@compiled
def affine(a, table, j, c):
    """Return S, unit, scale and bias of channel c: ``y = (x unit - S unit) scale + bias``.

    In that unit both x - S and its factor stay within the range of float32. Lane j of the table receives -S unit,
    scale, bias and unit.

    a           a :class:`Call`
    table       (4, 16) float32
    j, c        int64, lane and channel
    """
    # y = weight (x - S) / D' + bias; the division happens once per channel, in float64
    by = divisor(a, c)
    s, scale, offset = floats(a.s)[c], _ONE, _ZERO
    unit = _unit(by)
    if a.weight != 0:
        scale = floats(a.weight)[c]
    if a.bias != 0:
        offset = floats(a.bias)[c]
    scale = np.float32(scale / (by * unit))
    table[j], table[LANES + j], table[2 * LANES + j], table[3 * LANES + j] = -s * unit, scale, offset, unit
    return s, unit, scale, offset


@compiled
def gradients(a, c, unit, scale, sum_g, sum_gu, merged):
    """Write the gradients of gain and bias, and the merged record from which dx is computed.

    a               a :class:`Call`
    c               int64, the channel
    unit, scale     float32, of :func:`affine`
    sum_g, sum_gu   float64, sums of g and of g (x - S) unit
    merged          (HEAD + POINT * points,) float32, written
    """
    floats(a.dweight)[c] = sum_gu / (divisor(a, c) * unit)
    floats(a.dbias)[c] = sum_g
    weigh(a, c, unit, scale, sum_g, sum_gu, merged)


@compiled
def weigh(a, c, unit, scale, sum_g, sum_gu, merged):
    """Write the merged record of channel c, given sums of g and g (x - S) that lack only the scale as their gain.

    The second sum is in the channel's unit, as is the scale (:func:`affine`). Arguments as in :func:`gradients`.
    """
    # dx = scale g + f(x) with f = -scale (S_k sum g + dD'/dD D_k sum g x_hat): the equation of gbn.kernels.reference
    by = divisor(a, c)
    # dD'/dD is D / D' where D' is a root, else 1
    slope = np.float64(floats(a.d)[c]) / by if a.root != 0 else 1.0
    sum_gx = sum_gu / (by * unit)
    factor = -np.float64(scale) * unit
    record = ahead(floats(a.record), c * (HEAD + POINT * a.points))
    merge(record, a.points, a.s_points, factor * sum_g, factor * slope * sum_gx, unit, merged)
