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

import ctypes

import numpy as np

from .compiling import compiled, entry_point
from .memory import (
    NEXT,
    ahead,
    claim,
    doubles,
    floats,
    int64s,
    load,
    load_first,
    reader,
    store,
    store_doubles,
    store_first,
)
from .simd import LANES, fma, splat, total, total_narrow, widen, zeros64

__all__ = ["Layer", "Step", "Sums", "absorb", "column_sums", "plane_sums", "rewrite"]


class Sums(ctypes.Structure):
    """The table of a summation."""

    _fields_ = int64s(
        "next",  # the next block to claim
        "images",  # N; or rows of a matrix
        "columns",  # C; or columns of a matrix
        "length",  # L, values per channel and image
        "more",  # whether to add to what is there
        "x",  # float32 (N, C, L), or (rows, columns)
        "sums",  # float64 (2, stride): sums, sums of squares
        "fresh",  # float64 (2, stride): scratch for the sums before they are added
        "stride",  # at least the number of columns, a multiple of 32
    )


class Step(ctypes.Structure):
    """The table of a step."""

    _fields_ = (
        *int64s(
            "next",
            "number",  # of layers
            "layers",  # a Layer each
            "columns",  # of all layers
            "spread",  # factors of all layers, one per column of a gradient
            "running",  # float64 (3, columns): mean, second moment, weight
            "factors",  # float64 (2, columns): mean, inverse
            "narrow",  # float32 (2, spread): the factors, one per column of a gradient
        ),
        ("weight", ctypes.c_double),  # of the new moments
        ("eps", ctypes.c_double),
        ("eps_relative", ctypes.c_double),
    )


class Layer(ctypes.Structure):
    """A layer in a step."""

    _fields_ = int64s(
        "sums",  # float64 (2, stride); 0: the layer was not called
        "stride",
        "rows",  # terms per sum
        "terms",  # N of max(m / N, 1)
        "weight",  # gradient, float32 (out, width); 0: not rewritten in this call
        "bias",  # gradient, float32 (out,)
        "fan_in",  # m of max(m / N, 1)
        "first",  # index of its first column among all columns
        "columns",
        "taps",  # columns of the gradient that share a factor
        "place",  # index of its first factor among the spread factors
        "groups",
        "out",  # rows of the gradient
        "width",  # columns of the gradient, those of one group
        "block",  # rows that a thread claims at a time
    )


_sums_at, _step_at, _layer_at = reader(Sums), reader(Step), reader(Layer)
_LAYER = ctypes.sizeof(Layer)

#: Columns that are summed together.
_TOGETHER = 2 * LANES

_TINY = float(np.finfo(np.float64).tiny)
_ZERO = np.float32(0.0)


@entry_point
def column_sums(table_address):
    """Sum the columns of a matrix (images, columns), columns adjacent."""
    a = _sums_at(table_address)
    x, columns, rows, stride = floats(a.x), a.columns, a.images, a.stride
    target = doubles(a.fresh if a.more != 0 else a.sums)
    # blocks of 32 columns: two cache lines per row, and four independent accumulators
    while True:
        c = claim(a, NEXT) * _TOGETHER
        if c >= columns:
            break
        if c + _TOGETHER <= columns:
            _sum_columns(x, rows, columns, c, stride, target)
        else:
            _sum_last_columns(x, rows, columns, c, stride, target)
            if c + LANES < columns:
                _sum_last_columns(x, rows, columns, c + LANES, stride, target)
        if a.more != 0:
            sums = doubles(a.sums)
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
    a = _sums_at(table_address)
    x, channels, length, stride = floats(a.x), a.columns, a.length, a.stride
    sums = doubles(a.sums)
    while True:
        c = claim(a, NEXT)
        if c >= channels:
            break
        values, squares = zeros64(), zeros64()
        for image in range(a.images):
            start = (image * channels + c) * length
            end = start + length
            whole = end - length % LANES
            for i in range(start, whole, LANES):
                v = widen(load(x, i))
                values, squares = values + v, squares + v * v
            if whole < end:
                v = widen(load_first(x, whole, end - whole, splat(_ZERO)))
                values, squares = values + v, squares + v * v
        more = a.more != 0
        sums[c] = total(values) + (sums[c] if more else 0.0)
        sums[stride + c] = total(squares) + (sums[stride + c] if more else 0.0)


@entry_point
def absorb(table_address):
    """Update the running moments and factors of the layers that were called."""
    a = _step_at(table_address)
    for index in range(a.number):
        layer = _layer_at(a.layers + index * _LAYER)
        if layer.sums == 0:
            continue
        running = ahead(doubles(a.running), layer.first)
        mean = ahead(doubles(a.factors), layer.first)
        inverse = ahead(mean, a.columns)
        sums, columns = doubles(layer.sums), layer.columns
        _move(running, a.columns, sums, layer.stride, columns, 1.0 / layer.rows, a.weight)
        _factors(running, a.columns, columns, mean, inverse, a.eps, a.eps_relative, _shrink(layer))
        narrow = ahead(floats(a.narrow), layer.place)
        _spread(mean, narrow, columns, layer.taps)
        _spread(inverse, ahead(narrow, a.spread), columns, layer.taps)


@compiled
def _shrink(layer):
    """Return 1 / max(m / N, 1)."""
    return min(1.0, layer.terms / layer.fan_in)


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
    a = _step_at(table_address)
    # passed: blocks of the layers before this one; claims only grow, so there is no way back
    index, passed = 0, 0
    block = claim(a, NEXT)
    while index < a.number:
        # all layers share one counter: find the layer that the claimed block belongs to
        layer = _layer_at(a.layers + index * _LAYER)
        rows = layer.block
        blocks = (layer.out + rows - 1) // rows if layer.weight != 0 else 0
        if block >= passed + blocks:
            passed += blocks
            index += 1
            continue
        begin = (block - passed) * rows
        _rewrite_rows(a, layer, begin, min(begin + rows, layer.out))
        block = claim(a, NEXT)


@compiled
def _rewrite_rows(a, layer, begin, end):
    """Rewrite rows ``begin`` to ``end`` of one layer's gradients."""
    weight, bias, width = floats(layer.weight), floats(layer.bias), layer.width
    each, shrink = layer.out // layer.groups, np.float32(_shrink(layer))
    for row in range(begin, end):
        mean = ahead(floats(a.narrow), layer.place + row // each * width)
        change = _rewrite_row(ahead(weight, row * width), width, bias[row], mean, ahead(mean, a.spread))
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
