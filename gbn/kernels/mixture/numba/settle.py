# mypy: ignore-errors
# Compiled by numba: a language of its own that only looks like Python.
"""What the passes need of each channel, and what they leave: tables, moments, gradients of gain and bias; float64.

Tables hold the numbers of a channel in rows; :func:`.call.place_of` says where. The centre, in float32, is taken off
each sample first; means here are from it.
"""

from __future__ import annotations

import math

import numpy as np

from gbn.kernels.numba.compiling import compiled
from gbn.kernels.numba.memory import doubles, floats

from .call import (
    BIAS,
    CENTRE,
    CHANNELS,
    COMPONENTS,
    CONCENTRATION,
    CONSTANTS,
    DBIAS,
    DWEIGHT,
    IMAGES,
    KEPT,
    LENGTH,
    LOGITS,
    MEAN,
    MIXTURE_MEAN,
    MIXTURE_VAR,
    MIXTURE_WEIGHT,
    PARTIAL,
    SHARES,
    SPANS,
    TABLE,
    VAR,
    WEIGHT,
    place_of,
)

__all__ = ["LOG2E", "TINY", "differentiated", "log2", "logits_of", "measured", "variance"]

#: Logarithms are to base 2: the posteriors are made by powers of 2.
LOG2E = 1.0 / math.log(2.0)

#: The least sum of posteriors that is divided by, that of :mod:`gbn.kernels.mixture.joint`.
TINY = float(np.finfo(np.float32).tiny)


@compiled
def log2(value):
    """The logarithm; minus infinity of 0, NaN of less."""
    return math.log(value) * LOG2E if value > 0.0 else (-math.inf if value == 0.0 else math.nan)


@compiled
def logits_of(a):
    """The table of logits, ``-a/2 (x - centre)^2 + b (x - centre)``, and the constant of each component (joint)."""
    channels, number = a[CHANNELS], a[COMPONENTS]
    table, constants, centre = floats(a[LOGITS]), floats(a[CONSTANTS]), floats(a[CENTRE])
    weights, means, variances = floats(a[MIXTURE_WEIGHT]), floats(a[MIXTURE_MEAN]), floats(a[MIXTURE_VAR])
    width, kept = 2 * number + 1, doubles(a[PARTIAL])
    for k in range(number):
        product, constant = 1.0, 0.0
        for c in range(channels):
            var = np.float64(variances[k * channels + c])
            mean = np.float64(means[k * channels + c]) - np.float64(centre[c])
            inverse = LOG2E / var
            table[place_of(a, 0, width, c)] = centre[c]
            table[place_of(a, 1 + k, width, c)] = inverse * mean
            table[place_of(a, 1 + number + k, width, c)] = -0.5 * inverse
            constant -= 0.5 * inverse * mean * mean
            product *= var
            if not 1e-200 < product < 1e200:  # a logarithm of many variances at once
                constant -= 0.5 * log2(product)
                product = 1.0
        kept[k] = constant - 0.5 * log2(product) + log2(np.float64(weights[k]))
    # Only differences count, and a constant in the hundreds would be rounded for all samples alike.
    top = kept[0]
    for k in range(1, number):
        top = max(top, kept[k])
    for k in range(number):
        constants[k] = kept[k] - top


@compiled
def _summed(a, place):
    """One number of the spans' sums, added in order."""
    sums, size, found = doubles(a[PARTIAL]), 2 * a[COMPONENTS] * (a[CHANNELS] + 1), 0.0
    for span in range(a[SPANS]):
        found += sums[span * size + place]
    return found


@compiled
def _gain_of(a, c):
    return np.float64(floats(a[WEIGHT])[c]) if a[WEIGHT] != 0 else 1.0


@compiled
def variance(square, mean):
    """From the mean square about the centre and the mean; 0 for a single sample, whose square is rounded as here."""
    narrow = np.float32(mean)
    found = np.float64(np.float32(square)) - np.float64(np.float32(narrow * narrow))
    return 0.0 if found < 0.0 else found  # NaN stays


@compiled
def measured(a, eps):
    """From the sums: moments, what the backward pass needs of them, and the table that y is made by (joint)."""
    channels, number = a[CHANNELS], a[COMPONENTS]
    count = np.float64(a[IMAGES] * a[LENGTH])
    table, centre, kept = floats(a[TABLE]), floats(a[CENTRE]), doubles(a[KEPT])
    size, width = number * channels, 2 * number + 1
    for k in range(number):
        total = _summed(a, 2 * number * channels + k)
        squares = _summed(a, 2 * number * channels + number + k)
        divisor = max(total, TINY)
        floats(a[SHARES])[k], floats(a[CONCENTRATION])[k] = total / count, squares / divisor / divisor
        for c in range(channels):
            mean = _summed(a, 2 * number * c + k) / divisor
            var = variance(_summed(a, 2 * number * c + number + k) / divisor, mean)
            factor = 1.0 / math.sqrt(divisor / count * (var + eps))
            place = k * channels + c
            floats(a[MEAN])[place], floats(a[VAR])[place] = mean + np.float64(centre[c]), var
            kept[place], kept[size + place] = divisor, mean
            kept[2 * size + place], kept[3 * size + place] = var, factor
            gain = factor * _gain_of(a, c)
            table[place_of(a, 0, width, c)] = centre[c]
            table[place_of(a, 1 + k, width, c)] = gain
            offset = np.float64(floats(a[BIAS])[c]) if a[BIAS] != 0 else 0.0
            table[place_of(a, 1 + number + k, width, c)] = offset - gain * mean


@compiled
def differentiated(a, eps):
    """From the sums of the cotangent: gradients to gain and bias, and the table that dx is made by (joint)."""
    channels, number = a[CHANNELS], a[COMPONENTS]
    table, centre, kept = floats(a[TABLE]), floats(a[CENTRE]), doubles(a[KEPT])
    size, width = number * channels, 3 * number + 1
    for c in range(channels):
        to_weight, to_bias, weight = 0.0, 0.0, _gain_of(a, c)
        table[place_of(a, 0, width, c)] = centre[c]
        for k in range(number):
            place = k * channels + c
            divisor, mean = kept[place], kept[size + place]
            var, factor = kept[2 * size + place], kept[3 * size + place]
            total = _summed(a, 2 * number * c + k)
            along = _summed(a, 2 * number * c + number + k) - mean * total
            to_weight += factor * along
            to_bias += total
            gain = factor * weight
            # A clamped weight sum or variance passes nothing on: a component without samples has no gradient.
            slope = -along * weight * factor / (var + eps) / divisor
            table[place_of(a, 1 + k, width, c)] = gain
            table[place_of(a, 1 + number + k, width, c)] = slope
            table[place_of(a, 1 + 2 * number + k, width, c)] = -gain * total / divisor - slope * mean
        floats(a[DWEIGHT])[c], floats(a[DBIAS])[c] = to_weight, to_bias
