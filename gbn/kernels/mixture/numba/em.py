# mypy: ignore-errors
# Compiled by numba: a language of its own that only looks like Python.
"""Steps of expectation-maximization: the compiled form of :func:`gbn.kernels.mixture.fitted`, run by one thread.

Samples are (S, C), as :mod:`.joint_last` reads them. The center is the samples' mean; the table's mixture is changed
in place.

``like`` is any tuple of length K (:mod:`.bundles`). ``totals`` are (K,) float64, ``weights`` (K,) float32.
"""

from __future__ import annotations

import math

import numpy as np

from gbn.kernels.numba.compiling import compiled
from gbn.kernels.numba.memory import ahead, doubles, floats

from .call import clear, count_tile, tiles_of
from .joint_last import find_posteriors, sum_tile
from .settle import TINY, logits_of

__all__ = ["fit_joint"]

_FEW = 1e-6  # samples; a component that has fewer stays where it is


@compiled
def _maximized(a, c, k, origin, total, first, second):
    """Write a component's new mean and variance in channel c, from its sums about an origin, all float64."""
    place = k * a.channels + c
    if total < _FEW:
        return
    divisor = max(total, TINY)
    offset = first / divisor
    floats(a.mixture_mean)[place] = np.float64(origin) + offset
    floats(a.mixture_var)[place] = max(second / divisor - offset * offset, np.float64(floats(a.floor)[c]))


@compiled
def _weigh(weights, totals, number, samples):
    """Write new weights from sums of posteriors; none is less than that of a millionth of a sample."""
    whole = 0.0
    for k in range(number):
        whole += max(totals[k], _FEW) / samples
    for k in range(number):
        weights[k] = max(totals[k], _FEW) / samples / whole


@compiled
def _distances(a, totals, nearest, number):
    """Write each sample's squared distance, in standard deviations, from the nearest component with at least one.

    ``nearest`` is (S,) float64; a component with less than one sample does not count.
    """
    x, channels, samples = floats(a.x), a.channels, a.length
    for i in range(samples):
        nearest[i] = np.inf
    for k in range(number):
        if totals[k] < 1.0:
            continue
        for i in range(samples):
            distance = np.float32(0.0)
            for c in range(channels):
                var = max(floats(a.var)[c], floats(a.floor)[c])
                scale = np.float32(1.0 / math.sqrt(max(var, TINY))) if var > 0 else np.float32(0.0)
                mean = floats(a.mixture_mean)[k * channels + c]
                apart = (x[i * channels + c] - mean) * scale
                distance += apart * apart
            nearest[i] = min(nearest[i], distance)


@compiled
def _drawn(nearest, samples, draw):
    """Return a sample with probability proportional to its distance; any sample if all are 0 or none is finite."""
    whole = 0.0
    for i in range(samples):
        if not nearest[i] < np.inf:
            nearest[i] = 1.0
        whole += nearest[i]
    even = not whole > 0.0
    if even:
        whole = np.float64(samples)
    wanted, found = np.float64(draw) * whole, 0.0
    for i in range(samples):
        found += 1.0 if even else nearest[i]
        if found > wanted:
            return i
    return samples - 1


@compiled
def _revive(a, weights, totals, draws, nearest, number):
    """Restart components with less than one sample at a drawn sample; return whether there was any."""
    empty = False
    for k in range(number):
        empty = empty or totals[k] < 1.0
    if not empty:
        return False
    channels, samples = a.channels, a.length
    _distances(a, totals, nearest, number)
    whole = 0.0
    for k in range(number):
        if totals[k] < 1.0:
            i = _drawn(nearest, samples, draws[k])
            weights[k] = 1.0 / number
            for c in range(channels):
                place = k * channels + c
                floats(a.mixture_mean)[place] = floats(a.x)[i * channels + c]
                floats(a.mixture_var)[place] = max(floats(a.var)[c], floats(a.floor)[c])
        whole += weights[k]
    for k in range(number):
        weights[k] /= whole
    return True


@compiled
def _expect_joint(a, square, sums, like):
    size = 2 * len(like) * (a.channels + 1)
    logits_of(a)
    clear(sums, size)
    tiles, _ = tiles_of(a)
    for tile in range(tiles):
        find_posteriors(a, tile, square, like)
        count_tile(a, tile, sums, like)
        sum_tile(a, tile, floats(a.logits), square, sums, None, like)


@compiled
def fit_joint(a, like):
    """Replace the table's mixture by the one after some steps."""
    number, channels, samples = len(like), a.channels, np.float64(a.length)
    square, sums = floats(a.scratch), doubles(a.partial)
    totals, weights = ahead(sums, 2 * number * channels), floats(a.mixture_weight)
    # after the sums there is room for one number per sample
    nearest = ahead(sums, 2 * number * (channels + 1))
    for step in range(a.steps):
        _expect_joint(a, square, sums, like)
        # posteriors of restarted components have to be found again; only the first step restarts any
        if step == 0 and a.draws != 0 and _revive(a, weights, totals, floats(a.draws), nearest, number):
            _expect_joint(a, square, sums, like)
        for c in range(channels):
            for k in range(number):
                place = 2 * number * c + k
                _maximized(a, c, k, floats(a.center)[c], totals[k], sums[place], sums[place + number])
        _weigh(weights, totals, number, samples)
