# mypy: ignore-errors
# Compiled by numba: a language of its own that only looks like Python.
"""The passes over one channel that write a result, y or dx, and the pass that reduces the cotangent.

A channel is read from one view (:mod:`.search`) and written to another: in place in the tensor, or in a row of
scratch. Distances from S, and the scale, are in the channel's unit (:func:`.call.affine`).

With instance enhancement (:mod:`.gate`) each plane has its own gain. Arguments that are None without it leave no
trace in the compiled code.

Arguments of all functions:

    view        (x, start, planes, stride, length): ``planes`` runs of ``length`` values (:mod:`.search`)
    other       (g, start, stride): the cotangent of the same values, likewise
    out         (target, start, stride, past): where the result goes, and whether past the caches
    line        (S, unit, scale, bias) of the channel, float32, of :func:`.call.affine`
    relu        bool
"""

from __future__ import annotations

import numpy as np

from gbn.kernels.plan import HEAD, POINT

from .compiling import compiled, inlined
from .convert import exp, row_totals
from .memory import load, load_first, prefetch, store, store_first, stream
from .simd import LANES, fma, maximum, minimum, splat, total, total_narrow, where, widen, zeros64
from .sums import PIECE

__all__ = ["differentiate", "normalize", "reduce"]

_ZERO = np.float32(0.0)
_INF = np.float32(np.inf)


@inlined
def _put(target, place, value, past):
    if past:
        stream(target, place, value)
    else:
        store(target, place, value)


@compiled
def normalize(view, out, line, relu, gains=None):
    """Write ``(x - S) scale + bias``, then the ReLU; x - S first, so that S maps exactly to the bias.

    gains       None, or (planes + 1,) float32 that replaces the scale per plane; the last one is read but not used
    """
    source, start, planes, stride, length = view
    target, begin, step, past = out
    s, unit, scale, bias = line
    k, shift, factor, offset, zero = splat(unit), splat(-s * unit), splat(scale), splat(bias), splat(_ZERO)
    if gains is not None:
        factor = splat(gains[0])
    floor = zero if relu else splat(-_INF)
    if stride == length and length % LANES == 0:
        # contiguous short planes: a loop per plane would cost more than its few vectors
        write, end, plane = begin, begin + length, 0
        for i in range(start, start + planes * length, LANES):
            y = fma(fma(load(source, i), k, shift), factor, offset)
            _put(target, write, maximum(floor, y), past)
            write += LANES
            if write == end:
                write += step - length
                end += step
                if gains is not None:
                    plane += 1
                    factor = splat(gains[plane])  # after the last plane, the spare number
        return
    for plane in range(planes):
        if gains is not None:
            factor = splat(gains[plane])
        read = start + plane * stride
        write = begin + plane * step
        whole = length // LANES * LANES
        for i in range(0, whole, LANES):
            # the next plane is the one address that the hardware prefetcher cannot guess
            prefetch(source, read + i + stride)
            y = fma(fma(load(source, read + i), k, shift), factor, offset)
            _put(target, write + i, maximum(floor, y), past)
        if whole < length:
            left = length - whole
            y = fma(fma(load_first(source, read + whole, left, zero), k, shift), factor, offset)
            store_first(target, write + whole, left, maximum(floor, y))


@compiled
def reduce_together(x, start, g, begin, planes, length, k, shift, offset, relu, rows):
    """Do :func:`reduce` for short contiguous planes, 16 at a time: summing their lanes this way costs a third.

    x, start, g, begin      float32 views of x and of the cotangent: ``planes`` (a multiple of 16) runs of ``length``
    k, shift, offset        f32x16
    rows                    (gains, sums, products), (planes,) float32 each, and squares, (2, 16, 16) float32 scratch
    """
    gains, sums, products, squares = rows
    zero = splat(_ZERO)
    floor = zero if relu else splat(-_INF)
    # without a ReLU fma(u, 0, 0) <= -inf is never true: one loop serves both cases
    offset = offset if relu else zero
    for plane in range(0, planes, LANES):
        for j in range(LANES):
            factor = splat(gains[plane + j]) if relu else zero
            first = (plane + j) * length
            a, b = zero, zero
            for i in range(first, first + length, LANES):
                u = fma(load(x, start + i), k, shift)
                passed = where(fma(u, factor, offset) <= floor, zero, load(g, begin + i))
                a = a + passed
                b = fma(passed, u, b)
            store(squares, j * LANES, a)
            store(squares, (LANES + j) * LANES, b)
        # lane j of the result is the sum of plane j
        store(sums, plane, row_totals(squares, 0))
        store(products, plane, row_totals(squares, LANES * LANES))


@compiled
def reduce(view, other, line, relu, rows=None):
    """Return the sums of g and of g (x - S) over the values that the ReLU, if any, lets through, as float64.

    rows        None, or (gains, sums, products), (planes,) float32 each, and (2, 16, 16) float32 scratch: the sums
                then go there, per plane, and the result is 0
    """
    x, start, planes, stride, length = view
    g, begin, step = other
    s, unit, scale, bias = line
    k, shift, factor, offset, zero = splat(unit), splat(-s * unit), splat(scale), splat(bias), splat(_ZERO)
    nothing = splat(s)
    sums, products = zeros64(), zeros64()
    together = 0
    if rows is not None and stride == step == length and length % LANES == 0 and length <= PIECE:
        together = planes // LANES * LANES
        reduce_together(x, start, g, begin, together, length, k, shift, offset, relu, rows)
    for plane in range(together, planes):
        row_sum, row_product = np.float64(0.0), np.float64(0.0)
        if rows is not None:
            factor = splat(rows[0][plane])
        read = start + plane * stride
        other = begin + plane * step
        for piece in range(0, length, PIECE):
            stop = min(piece + PIECE, length)
            whole = piece + (stop - piece) // LANES * LANES
            a, b = zero, zero
            # two loops: without a ReLU there is nothing to compare
            if relu:
                for i in range(piece, whole, LANES):
                    prefetch(x, read + i + stride)
                    prefetch(g, other + i + step)
                    u = fma(load(x, read + i), k, shift)
                    passed = where(fma(u, factor, offset) <= zero, zero, load(g, other + i))
                    a = a + passed
                    b = fma(passed, u, b)
            else:
                for i in range(piece, whole, LANES):
                    prefetch(x, read + i + stride)
                    prefetch(g, other + i + step)
                    passed = load(g, other + i)
                    a = a + passed
                    b = fma(passed, fma(load(x, read + i), k, shift), b)
            if whole < stop:
                left = stop - whole
                u = fma(load_first(x, read + whole, left, nothing), k, shift)
                passed = load_first(g, other + whole, left, zero)
                if relu:
                    passed = where(fma(u, factor, offset) <= zero, zero, passed)
                a = a + passed
                b = fma(passed, u, b)
            # a row's sums end up in float32, so its lanes need no float64
            if rows is None:
                sums = sums + widen(a)
                products = products + widen(b)
            else:
                row_sum += total_narrow(a)
                row_product += total_narrow(b)
        if rows is not None:
            rows[1][plane], rows[2][plane] = row_sum, row_product
    return total(sums), total(products)


@inlined
def _slot(merged, points, j):
    """Load breakpoint j into registers; one beyond the last contributes nothing."""
    place = HEAD + POINT * min(j, points - 1)
    if j < points:
        return splat(merged[place]), splat(merged[place + 1]), splat(merged[place + 2])
    return splat(_INF), splat(_ZERO), splat(_ZERO)


@inlined
def _step(v, value, slot):
    """Add what a breakpoint contributes at and beyond itself."""
    b, at, rise = slot
    value = where(v > b, value + rise, value)
    return where(v == b, value + at, value)


@inlined
def _bend(v, k, value, merged, j):
    """Add the bend of breakpoint j."""
    place = HEAD + POINT * j
    cut = minimum(maximum((v - splat(merged[place])) * k, splat(_ZERO)), splat(merged[place + 4]))
    return fma(cut, splat(merged[place + 3]), value)


@inlined
def _gradient(v, k, u, passed, factor, base, slope, slots, merged, points, bends):
    """Return dx for one vector: the first three breakpoints come from registers, the others from memory."""
    value = fma(slope, u, fma(passed, factor, base))
    value = _step(v, value, slots[0])
    value = _step(v, value, slots[1])
    value = _step(v, value, slots[2])
    for j in range(3, points):
        value = _step(v, value, _slot(merged, points, j))
    for j in range(bends):
        value = _bend(v, k, value, merged, j)
    # only the entropic pair has an exponential; the branch is the same for a whole channel
    if merged[3] != 0.0:
        value = fma(exp(v - splat(merged[2])), splat(merged[3]), value)
    return value


@compiled
def differentiate(view, other, out, line, relu, derivatives, rows=None):
    """Write dx = scale g + (the merged derivatives)(x).

    derivatives     (merged, points, bends): the record (HEAD + POINT * points,) float32 of :func:`.record.merge`, and
                    how many of its breakpoints there are, and may bend
    rows            None, or (gains, pulls), (planes + 1,) float32 each: gains replace the scale, pulls are added
    """
    x, start, planes, stride, length = view
    g, begin, step = other
    target, write, jump, past = out
    s, unit, scale, bias = line
    merged, points, bends = derivatives
    k, shift, gain, offset, zero = splat(unit), splat(-s * unit), splat(scale), splat(bias), splat(_ZERO)
    base, slope, nothing = splat(merged[0]), splat(merged[1]), splat(s)
    if rows is not None:
        gain, base = splat(rows[0][0]), splat(merged[0] + rows[1][0])
    # dx = scale g + base + slope (x - S) + the breakpoints' steps and bends (gbn.kernels.plan).
    # Three slots hold, for example, the window of S and the tail of D: most pairs stay in registers
    slots = (_slot(merged, points, 0), _slot(merged, points, 1), _slot(merged, points, 2))
    floor = zero if relu else splat(-_INF)
    # without a ReLU fma(u, 0, 0) <= -inf is never true: one loop serves both cases
    offset = offset if relu else zero
    factor, scaled = gain * k, gain if relu else zero
    # contiguous short planes, as in normalize
    if stride == length and length % LANES == 0:
        out, end, plane = write, write + length, 0
        for i in range(start, start + planes * length, LANES):
            v = load(x, i)
            u = fma(v, k, shift)
            passed = where(fma(u, scaled, offset) <= floor, zero, load(g, begin + i - start))
            value = _gradient(v, k, u, passed, factor, base, slope, slots, merged, points, bends)
            _put(target, out, value, past)
            out += LANES
            if out == end:
                out += jump - length
                end += jump
                if rows is not None:
                    plane += 1
                    gain, base = splat(rows[0][plane]), splat(merged[0] + rows[1][plane])
                    factor, scaled = gain * k, gain if relu else zero
        return
    for plane in range(planes):
        if rows is not None:
            gain, base = splat(rows[0][plane]), splat(merged[0] + rows[1][plane])
            factor, scaled = gain * k, gain if relu else zero
        read = start + plane * stride
        other = begin + plane * step
        out = write + plane * jump
        whole = length // LANES * LANES
        for i in range(0, whole, LANES):
            prefetch(x, read + i + stride)
            prefetch(g, other + i + step)
            v = load(x, read + i)
            u = fma(v, k, shift)
            passed = where(fma(u, scaled, offset) <= floor, zero, load(g, other + i))
            value = _gradient(v, k, u, passed, factor, base, slope, slots, merged, points, bends)
            _put(target, out + i, value, past)
        if whole < length:
            left = length - whole
            v = load_first(x, read + whole, left, nothing)
            u = fma(v, k, shift)
            passed = where(fma(u, scaled, offset) <= floor, zero, load_first(g, other + whole, left, zero))
            value = _gradient(v, k, u, passed, factor, base, slope, slots, merged, points, bends)
            store_first(target, out + whole, left, value)
