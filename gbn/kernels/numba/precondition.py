"""Compiled parts of batch normalization preconditioning (:mod:`gbn.optim.preconditioning` has the formulas).

* :func:`column_sums`, :func:`plane_sums`: sums of a layer's inputs and of their squares, in float64 throughout: the
  variance is a difference of the two, and float32's rounding of squares would swamp it where the mean is thousands of
  standard deviations away from 0;
* :func:`absorb`: all layers' running moments, and the factors derived from them;
* :func:`rewrite`: all layers' gradients, each row of a weight read and written once.

No result depends on the number of threads.
"""

# mypy: ignore-errors
# (compiled by numba: a language of its own that only looks like Python)

from __future__ import annotations

from enum import IntEnum

import numpy as np

from .compiling import compiled, entry_point
from .memory import (
    ahead,
    claim,
    doubles,
    floats,
    integers,
    load,
    load_first,
    store,
    store_doubles,
    store_first,
)
from .simd import LANES, fma, splat, total, total_narrow, widen, zeros64

__all__ = ["Record", "Step", "Sums", "absorb", "column_sums", "plane_sums", "rewrite"]


class Sums(IntEnum):
    """Slots of the table of a summation, int64 each."""

    NEXT = 0  # the next block to claim
    IMAGES = 1  # N; or rows of a matrix
    COLUMNS = 2  # C; or columns of a matrix
    LENGTH = 3  # L, values per channel and image
    MORE = 4  # whether to add to what is there
    X = 5  # float32 (N, C, L), or (rows, columns)
    SUMS = 6  # float64 (2, stride): sums, sums of squares
    FRESH = 7  # float64 (2, stride): scratch for the sums before they are added
    STRIDE = 8  # at least the number of columns, a multiple of 32


class Step(IntEnum):
    """Head of the table of a step, int64 each; the layers follow."""

    NEXT = 0
    LAYERS = 1
    COLUMNS = 2  # of all layers
    SPREAD = 3  # factors of all layers, one per column of a gradient
    RUNNING = 4  # float64 (3, columns): mean, second moment, weight
    FACTORS = 5  # float64 (2, columns): mean, inverse
    NARROW = 6  # float32 (2, spread): the factors, one per column of a gradient
    REALS = 7  # float64 (3,): weight of the new moments, eps, eps_relative


class Record(IntEnum):
    """Slots of a layer in the table of a step, int64 each."""

    SUMS = 0  # float64 (2, stride); 0: the layer was not called
    STRIDE = 1
    ROWS = 2  # terms per sum
    TERMS = 3  # N of max(m / N, 1)
    WEIGHT = 4  # gradient, float32 (out, width); 0: not rewritten in this call
    BIAS = 5  # gradient, float32 (out,)
    FAN_IN = 6  # m of max(m / N, 1)
    FIRST = 7  # index of its first column among all columns
    COLUMNS = 8
    TAPS = 9  # columns of the gradient that share a factor
    PLACE = 10  # index of its first factor among the spread factors
    GROUPS = 11
    OUT = 12  # rows of the gradient
    WIDTH = 13  # columns of the gradient, those of one group
    BLOCK = 14  # rows that a thread claims at a time


# numba treats plain integers at module level as constants.
_NEXT = int(Step.NEXT)
_IMAGES, _COLUMNS, _LENGTH, _MORE, _X, _SUMS, _FRESH, _STRIDE = (int(place) for place in list(Sums)[1:])
_LAYERS, _ALL, _SPREAD, _RUNNING, _FACTORS, _NARROW, _REALS = (int(place) for place in list(Step)[1:])
(
    L_SUMS, L_STRIDE, L_ROWS, L_TERMS, L_WEIGHT, L_BIAS, L_FAN_IN, L_FIRST, L_COLUMNS, L_TAPS, L_PLACE, L_GROUPS,
    L_OUT, L_WIDTH, L_BLOCK,
) = (int(place) for place in Record)  # fmt: skip
_HEAD, _RECORD = len(Step), len(Record)

#: Columns that are summed together.
_TOGETHER = 2 * LANES

_TINY = float(np.finfo(np.float64).tiny)
_ZERO = np.float32(0.0)


@entry_point
def column_sums(table_address):
    """Sum the columns of a matrix (images, columns), columns adjacent."""
    a = integers(table_address)
    x, columns, rows, stride = floats(a[_X]), a[_COLUMNS], a[_IMAGES], a[_STRIDE]
    target = doubles(a[_FRESH] if a[_MORE] != 0 else a[_SUMS])
    # blocks of 32 columns: two cache lines per row, and four independent accumulators
    while True:
        c = claim(a, _NEXT) * _TOGETHER
        if c >= columns:
            break
        if c + _TOGETHER <= columns:
            _sum_columns(x, rows, columns, c, stride, target)
        else:
            _sum_last_columns(x, rows, columns, c, stride, target)
            if c + LANES < columns:
                _sum_last_columns(x, rows, columns, c + LANES, stride, target)
        if a[_MORE] != 0:
            sums = doubles(a[_SUMS])
            for i in range(c, min(c + _TOGETHER, columns)):
                sums[i] += target[i]
                sums[stride + i] += target[stride + i]


@compiled
def _sum_columns(x, rows, columns, c, stride, target):
    """Sum 32 columns from c on: x (rows, columns) float32 to target (2, stride) float64."""
    sums0, sums1, squares0, squares1 = zeros64(), zeros64(), zeros64(), zeros64()
    for place in range(c, c + rows * columns, columns):
        v0, v1 = widen(load(x, place)), widen(load(x, place + LANES))
        sums0, sums1 = sums0 + v0, sums1 + v1
        squares0, squares1 = squares0 + v0 * v0, squares1 + v1 * v1
    store_doubles(target, c, sums0)
    store_doubles(target, c + LANES, sums1)
    store_doubles(target, stride + c, squares0)
    store_doubles(target, stride + c + LANES, squares1)


@compiled
def _sum_last_columns(x, rows, columns, c, stride, target):
    """Sum up to 16 columns from c on; the target has room for all 16."""
    count = min(LANES, columns - c)
    sums, squares = zeros64(), zeros64()
    for place in range(c, c + rows * columns, columns):
        v = widen(load_first(x, place, count, splat(_ZERO)))
        sums, squares = sums + v, squares + v * v
    store_doubles(target, c, sums)
    store_doubles(target, stride + c, squares)


@entry_point
def plane_sums(table_address):
    """Sum maps (images, channels, length) per channel."""
    a = integers(table_address)
    x, channels, length, stride = floats(a[_X]), a[_COLUMNS], a[_LENGTH], a[_STRIDE]
    sums = doubles(a[_SUMS])
    while True:
        c = claim(a, _NEXT)
        if c >= channels:
            break
        values, squares = zeros64(), zeros64()
        for image in range(a[_IMAGES]):
            start = (image * channels + c) * length
            end = start + length
            whole = end - length % LANES
            for i in range(start, whole, LANES):
                v = widen(load(x, i))
                values, squares = values + v, squares + v * v
            if whole < end:
                v = widen(load_first(x, whole, end - whole, splat(_ZERO)))
                values, squares = values + v, squares + v * v
        more = a[_MORE] != 0
        sums[c] = total(values) + (sums[c] if more else 0.0)
        sums[stride + c] = total(squares) + (sums[stride + c] if more else 0.0)


@entry_point
def absorb(table_address):
    """Update the running moments and factors of the layers that were called."""
    a = integers(table_address)
    for index in range(a[_LAYERS]):
        layer = ahead(a, _HEAD + index * _RECORD)
        if layer[L_SUMS] == 0:
            continue
        running = ahead(doubles(a[_RUNNING]), layer[L_FIRST])
        mean = ahead(doubles(a[_FACTORS]), layer[L_FIRST])
        inverse = ahead(mean, a[_ALL])
        reals = doubles(a[_REALS])
        sums, columns = doubles(layer[L_SUMS]), layer[L_COLUMNS]
        _move(running, a[_ALL], sums, layer[L_STRIDE], columns, 1.0 / layer[L_ROWS], reals[0])
        _factors(running, a[_ALL], columns, mean, inverse, reals[1], reals[2], _shrink(layer))
        narrow = ahead(floats(a[_NARROW]), layer[L_PLACE])
        _spread(mean, narrow, columns, layer[L_TAPS])
        _spread(inverse, ahead(narrow, a[_SPREAD]), columns, layer[L_TAPS])


@compiled
def _shrink(layer):
    """Return 1 / max(m / N, 1)."""
    return min(1.0, layer[L_TERMS] / layer[L_FAN_IN])


@compiled
def _move(running, every, sums, stride, columns, share, weight):
    """Do running += weight * (this step's - running), rounded as Tensor.lerp_ does.

    running         (3, every) float64: mean, second moment, weight, of this layer's ``columns``
    sums            (2, stride) float64
    share, weight   float64, 1 / terms per sum, and weight of the new moments
    """
    old = 1.0 - weight
    for j in range(columns):
        first, second = sums[j] * share, sums[stride + j] * share
        r0, r1, r2 = running[j], running[every + j], running[2 * every + j]
        # Half-precision overflow makes the scaler skip the step: it must not stay in the running moments.
        # x - x is 0 unless x is infinite or NaN.
        known = (first - first == 0.0) & (second - second == 0.0)
        # two branches, as lerp_ has, each exact at its own end
        if weight < 0.5:
            n0, n1, n2 = r0 + weight * (first - r0), r1 + weight * (second - r1), r2 + weight * (1.0 - r2)
        else:
            n0, n1, n2 = first - (first - r0) * old, second - (second - r1) * old, 1.0 - (1.0 - r2) * old
        running[j] = n0 if known else r0
        running[every + j] = n1 if known else r1
        running[2 * every + j] = n2 if known else r2


@compiled
def _factors(running, every, columns, mean, inverse, eps, eps_relative, shrink):
    """Write the debiased means, and the inverse of the floored variances (0 where these are 0), shrunk.

    ``mean`` and ``inverse`` are (columns,) float64. The floor needs the largest variance, hence the second pass.
    """
    largest = 0.0
    for j in range(columns):
        share = 1.0 / max(running[2 * every + j], _TINY)
        m = running[j] * share
        mean[j] = m
        inverse[j] = max(running[every + j] * share - m * m, 0.0)
    for j in range(columns):
        largest = max(largest, inverse[j])
    floor = eps + eps_relative * largest
    for j in range(columns):
        floored = inverse[j] + floor
        inverse[j] = shrink / floored if floored > 0.0 else 0.0


@compiled
def _spread(values, narrow, columns, taps):
    """Convert (columns,) float64 to float32, each number ``taps`` times."""
    if taps == 1:
        for j in range(columns):
            narrow[j] = values[j]
        return
    for j in range(columns):
        for tap in range(taps):
            narrow[j * taps + tap] = values[j]


@entry_point
def rewrite(table_address):
    """Rewrite the gradients of weights and biases in place."""
    a = integers(table_address)
    # passed: blocks of the layers before this one; claims only grow, so there is no way back
    index, passed = 0, 0
    block = claim(a, _NEXT)
    while index < a[_LAYERS]:
        # all layers share one counter: find the layer that the claimed block belongs to
        layer = ahead(a, _HEAD + index * _RECORD)
        rows = layer[L_BLOCK]
        blocks = (layer[L_OUT] + rows - 1) // rows if layer[L_WEIGHT] != 0 else 0
        if block >= passed + blocks:
            passed += blocks
            index += 1
            continue
        begin = (block - passed) * rows
        _rewrite_rows(a, layer, begin, min(begin + rows, layer[L_OUT]))
        block = claim(a, _NEXT)


@compiled
def _rewrite_rows(a, layer, begin, end):
    """Rewrite rows ``begin`` to ``end`` of one layer's gradients."""
    weight, bias, width = floats(layer[L_WEIGHT]), floats(layer[L_BIAS]), layer[L_WIDTH]
    each, shrink = layer[L_OUT] // layer[L_GROUPS], np.float32(_shrink(layer))
    for row in range(begin, end):
        mean = ahead(floats(a[_NARROW]), layer[L_PLACE] + row // each * width)
        change = _rewrite_row(ahead(weight, row * width), width, bias[row], mean, ahead(mean, a[_SPREAD]))
        bias[row] = bias[row] * shrink - change


@compiled
def _rewrite_row(row, width, bias, mean, inverse):
    """Rewrite one row of the weight's gradient; return by how much the bias's gradient changes.

    row             (width,) float32, in place
    mean, inverse   (width,) float32
    bias            float32, gradient of this row's bias
    """
    # two accumulators hide the latency of the fma
    minus_b, sum0, sum1 = splat(-bias), splat(_ZERO), splat(_ZERO)
    j = 0
    while j + 2 * LANES <= width:
        m0, m1 = load(mean, j), load(mean, j + LANES)
        w0 = fma(minus_b, m0, load(row, j)) * load(inverse, j)
        w1 = fma(minus_b, m1, load(row, j + LANES)) * load(inverse, j + LANES)
        store(row, j, w0)
        store(row, j + LANES, w1)
        sum0, sum1 = fma(w0, m0, sum0), fma(w1, m1, sum1)
        j += 2 * LANES
    while j < width:
        count = min(LANES, width - j)
        m = load_first(mean, j, count, splat(_ZERO))
        w = fma(minus_b, m, load_first(row, j, count, splat(_ZERO)))
        w = w * load_first(inverse, j, count, splat(_ZERO))
        store_first(row, j, count, w)
        sum0 = fma(w, m, sum0)
        j += LANES
    return total_narrow(sum0 + sum1)
