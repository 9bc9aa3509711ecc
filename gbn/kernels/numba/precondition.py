"""Compiled parts of batch normalization preconditioning (:mod:`gbn.optim.preconditioning` has the formulas).

* :func:`column_sums`, :func:`plane_sums`: sums of a layer's inputs and of their squares, in float64 throughout: the
  variance is a difference of the two, and float32's rounding of squares would be all of it where the mean is
  thousands of deviations from 0;
* :func:`absorb`: all layers' running moments, and the factors that come of them;
* :func:`rewrite`: all layers' gradients, each row of a weight read and written once.

No number depends on how many threads there are.
"""

# mypy: ignore-errors
# (a language of its own in Python's clothes, compiled by numba)

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
    """Table of a summation."""

    NEXT = 0  # the next block to claim
    IMAGES = 1  # or rows
    COLUMNS = 2  # or channels
    LENGTH = 3  # of a channel's run
    MORE = 4  # whether to add to what is there
    X = 5  # float32
    SUMS = 6  # float64 (2, stride)
    FRESH = 7  # the same, to write to before it is added
    STRIDE = 8  # at least the columns, a multiple of 32


class Step(IntEnum):
    """Head of the table of a step; then come the layers."""

    NEXT = 0
    LAYERS = 1
    COLUMNS = 2  # of all layers
    SPREAD = 3  # factors of all layers, one for each column of a gradient
    RUNNING = 4  # float64 (3, columns): mean, second moment, weight
    FACTORS = 5  # float64 (2, columns): mean, inverse
    NARROW = 6  # float32 (2, spread): the same
    REALS = 7  # float64: weight of the new, eps, eps_relative


class Record(IntEnum):
    """Places of a layer in the table of a step."""

    SUMS = 0  # float64 (2, stride); 0: the layer was not called
    STRIDE = 1
    ROWS = 2  # terms of each sum
    TERMS = 3  # N of max(m / N, 1)
    WEIGHT = 4  # gradient, float32; 0: it is not rewritten here
    BIAS = 5
    FAN_IN = 6  # m of max(m / N, 1)
    FIRST = 7  # its place among the columns
    COLUMNS = 8
    TAPS = 9  # columns of the gradient that share a factor
    PLACE = 10  # its place among the spread factors
    GROUPS = 11
    OUT = 12  # rows of the gradient
    WIDTH = 13  # columns of the gradient, those of one group
    BLOCK = 14  # rows that a thread claims at a time


# numba takes plain integers at module level as constants.
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
    """Of a matrix (images, columns), columns side by side."""
    a = integers(table_address)
    x, columns, rows, stride = floats(a[_X]), a[_COLUMNS], a[_IMAGES], a[_STRIDE]
    target = doubles(a[_FRESH] if a[_MORE] != 0 else a[_SUMS])
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
    """Thirty-two."""
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
    """Up to sixteen; the target has room for all of these."""
    count = min(LANES, columns - c)
    sums, squares = zeros64(), zeros64()
    for place in range(c, c + rows * columns, columns):
        v = widen(load_first(x, place, count, splat(_ZERO)))
        sums, squares = sums + v, squares + v * v
    store_doubles(target, c, sums)
    store_doubles(target, stride + c, squares)


@entry_point
def plane_sums(table_address):
    """Of maps (images, channels, length), by channel."""
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
    """Running moments and factors of the layers that were called."""
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
    """One over max(m / N, 1)."""
    return min(1.0, layer[L_TERMS] / layer[L_FAN_IN])


@compiled
def _move(running, every, sums, stride, columns, share, weight):
    """running += weight * (this step's - running), as Tensor.lerp_ rounds it."""
    old = 1.0 - weight
    for j in range(columns):
        first, second = sums[j] * share, sums[stride + j] * share
        r0, r1, r2 = running[j], running[every + j], running[2 * every + j]
        # An overflow in half precision makes the scaler skip the step: it must not stay in the running moments.
        known = (first - first == 0.0) & (second - second == 0.0)
        if weight < 0.5:
            n0, n1, n2 = r0 + weight * (first - r0), r1 + weight * (second - r1), r2 + weight * (1.0 - r2)
        else:
            n0, n1, n2 = first - (first - r0) * old, second - (second - r1) * old, 1.0 - (1.0 - r2) * old
        running[j] = n0 if known else r0
        running[every + j] = n1 if known else r1
        running[2 * every + j] = n2 if known else r2


@compiled
def _factors(running, every, columns, mean, inverse, eps, eps_relative, shrink):
    """The debiased means, and one over the floored variances (0 where that is 0), shrunk."""
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
    """To float32, each ``taps`` times."""
    if taps == 1:
        for j in range(columns):
            narrow[j] = values[j]
        return
    for j in range(columns):
        for tap in range(taps):
            narrow[j * taps + tap] = values[j]


@entry_point
def rewrite(table_address):
    """Gradients of weights and biases, in place."""
    a = integers(table_address)
    index, passed = 0, 0  # blocks of the layers before this one: claims only grow
    block = claim(a, _NEXT)
    while index < a[_LAYERS]:
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
    weight, bias, width = floats(layer[L_WEIGHT]), floats(layer[L_BIAS]), layer[L_WIDTH]
    each, shrink = layer[L_OUT] // layer[L_GROUPS], np.float32(_shrink(layer))
    for row in range(begin, end):
        mean = ahead(floats(a[_NARROW]), layer[L_PLACE] + row // each * width)
        change = _rewrite_row(ahead(weight, row * width), width, bias[row], mean, ahead(mean, a[_SPREAD]))
        bias[row] = bias[row] * shrink - change


@compiled
def _rewrite_row(row, width, bias, mean, inverse):
    """A row of the weight's gradient; what the bias's changes by."""
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
