# mypy: ignore-errors
# Compiled by numba: a language of its own that only looks like Python.
"""Per-channel work before and after the passes, in float64: tables, moments, gradients of gain and bias.

Tables hold the numbers of a channel in rows; :func:`.call.place_of` gives the index. The center, in float32, is
subtracted from each sample first; means here are relative to it.

``a`` is the table of an entry point (:class:`.call.Call`), which lists shapes and dtypes.
"""

from __future__ import annotations

import math

import numpy as np

from gbn.kernels.numba.compiling import compiled
from gbn.kernels.numba.memory import doubles, floats

from .call import place_of

__all__ = ["LOG2E", "TINY", "differentiated", "log2", "logits_of", "measured", "variance"]

#: Logarithms are to base 2: the posteriors are computed as powers of 2.
LOG2E = 1.0 / math.log(2.0)

#: The smallest sum of posteriors that is divided by, as in :mod:`gbn.kernels.mixture.joint`.
TINY = float(np.finfo(np.float32).tiny)


@compiled
def log2(value):
    """Return the logarithm to base 2; minus infinity for 0, NaN for less."""
    return math.log(value) * LOG2E if value > 0.0 else (-math.inf if value == 0.0 else math.nan)


@compiled
def logits_of(a):
    """Write the table of logits, ``-a/2 (x - center)^2 + b (x - center)``, and the constant of each component."""
    channels, number = a.channels, a.components
    table, constants, center = floats(a.logits), floats(a.constants), floats(a.center)
    weights, means, variances = floats(a.mixture_weight), floats(a.mixture_mean), floats(a.mixture_var)
    width, kept = 2 * number + 1, doubles(a.partial)
    for k in range(number):
        product, constant = 1.0, 0.0
        for c in range(channels):
            var = np.float64(variances[k * channels + c])
            mean = np.float64(means[k * channels + c]) - np.float64(center[c])
            inverse = LOG2E / var
            table[place_of(a, 0, width, c)] = center[c]
            table[place_of(a, 1 + k, width, c)] = inverse * mean
            table[place_of(a, 1 + number + k, width, c)] = -0.5 * inverse
            constant -= 0.5 * inverse * mean * mean
            product *= var
            # one logarithm for many variances, taken before their product overflows
            if not 1e-200 < product < 1e200:
                constant -= 0.5 * log2(product)
                product = 1.0
        kept[k] = constant - 0.5 * log2(product) + log2(np.float64(weights[k]))
    # Only differences matter, and a constant in the hundreds would cost all samples the same digits.
    top = kept[0]
    for k in range(1, number):
        top = max(top, kept[k])
    for k in range(number):
        constants[k] = kept[k] - top


@compiled
def _summed(a, place):
    """Return one of the spans' sums, added up in order."""
    sums, size, found = doubles(a.partial), 2 * a.components * (a.channels + 1), 0.0
    for span in range(a.spans):
        found += sums[span * size + place]
    return found


@compiled
def _gain_of(a, c):
    return np.float64(floats(a.weight)[c]) if a.weight != 0 else 1.0


@compiled
def variance(square, mean):
    """Return the variance from the mean square about the center and the mean.

    It is exactly 0 for a single sample, because the square of the mean is rounded as the sample's square was.
    """
    narrow = np.float32(mean)
    found = np.float64(np.float32(square)) - np.float64(np.float32(narrow * narrow))
    return 0.0 if found < 0.0 else found  # NaN stays


@compiled
def measured(a):
    """From the sums, write the moments, what the backward pass needs of them, and the table for y."""
    channels, number = a.channels, a.components
    count = np.float64(a.images * a.length)
    table, center, kept = floats(a.table), floats(a.center), doubles(a.kept)
    size, width = number * channels, 2 * number + 1
    for k in range(number):
        total = _summed(a, 2 * number * channels + k)
        squares = _summed(a, 2 * number * channels + number + k)
        divisor = max(total, TINY)
        floats(a.shares)[k], floats(a.concentration)[k] = total / count, squares / divisor / divisor
        for c in range(channels):
            mean = _summed(a, 2 * number * c + k) / divisor
            var = variance(_summed(a, 2 * number * c + number + k) / divisor, mean)
            factor = 1.0 / math.sqrt(divisor / count * (var + a.eps))
            place = k * channels + c
            floats(a.mean)[place], floats(a.var)[place] = mean + np.float64(center[c]), var
            kept[place], kept[size + place] = divisor, mean
            kept[2 * size + place], kept[3 * size + place] = var, factor
            gain = factor * _gain_of(a, c)
            table[place_of(a, 0, width, c)] = center[c]
            table[place_of(a, 1 + k, width, c)] = gain
            offset = np.float64(floats(a.bias)[c]) if a.bias != 0 else 0.0
            table[place_of(a, 1 + number + k, width, c)] = offset - gain * mean


@compiled
def differentiated(a):
    """From the sums of the cotangent, write the gradients of gain and bias, and the table for dx."""
    channels, number = a.channels, a.components
    table, center, kept = floats(a.table), floats(a.center), doubles(a.kept)
    size, width = number * channels, 3 * number + 1
    for c in range(channels):
        to_weight, to_bias, weight = 0.0, 0.0, _gain_of(a, c)
        table[place_of(a, 0, width, c)] = center[c]
        for k in range(number):
            place = k * channels + c
            divisor, mean = kept[place], kept[size + place]
            var, factor = kept[2 * size + place], kept[3 * size + place]
            total = _summed(a, 2 * number * c + k)
            along = _summed(a, 2 * number * c + number + k) - mean * total
            to_weight += factor * along
            to_bias += total
            gain = factor * weight
            # A clamped sum of weights or variance passes no gradient: a component without samples has none.
            slope = -along * weight * factor / (var + a.eps) / divisor
            table[place_of(a, 1 + k, width, c)] = gain
            table[place_of(a, 1 + number + k, width, c)] = slope
            table[place_of(a, 1 + 2 * number + k, width, c)] = -gain * total / divisor - slope * mean
        floats(a.dweight)[c], floats(a.dbias)[c] = to_weight, to_bias
