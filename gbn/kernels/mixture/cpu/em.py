"""Steps of expectation and maximization: what :func:`gbn.kernels.mixture.fitted` does, by one thread.

Joint: samples (S, C), as :mod:`.joint_last` reads them. A mixture a channel: samples (C, S), one channel after
another as :mod:`.channels` reads them. The centre is the samples' mean; the table's mixture is changed in place.

``like`` is a tuple as long as there are components (:mod:`.bundles`).
"""

from __future__ import annotations

import math

import numpy as np

from gbn.kernels.cpu.compiling import compiled
from gbn.kernels.cpu.memory import ahead, doubles, floats

from .call import (
    CENTRE,
    CHANNELS,
    DRAWS,
    FLOOR,
    IMAGES,
    LENGTH,
    LOGITS,
    MIXTURE_MEAN,
    MIXTURE_VAR,
    MIXTURE_WEIGHT,
    PARTIAL,
    SCRATCH,
    STEPS,
    VAR,
    X,
    clear,
    count_tile,
    tiles_of,
)
from .channels import logits_of_channel, measure
from .joint_last import find_posteriors, sum_tile
from .settle import TINY, logits_of

__all__ = ["fit_channels", "fit_joint"]

_FEW = 1e-6  # samples; a component that has fewer stays where it is


@compiled
def _maximized(a, c, k, origin, total, first, second):
    """A component's new mean and variance in channel c, from its sums about an origin."""
    place = k * a[CHANNELS] + c
    if total < _FEW:
        return
    divisor = max(total, TINY)
    offset = first / divisor
    floats(a[MIXTURE_MEAN])[place] = np.float64(origin) + offset
    floats(a[MIXTURE_VAR])[place] = max(second / divisor - offset * offset, np.float64(floats(a[FLOOR])[c]))


@compiled
def _weigh(weights, step, totals, number, samples):
    """New weights from sums of posteriors; none is less than that of a millionth of a sample."""
    whole = 0.0
    for k in range(number):
        whole += max(totals[k], _FEW) / samples
    for k in range(number):
        weights[k * step] = max(totals[k], _FEW) / samples / whole


@compiled
def _distances(a, channels, steps, totals, nearest, number):
    """Each sample's squared distance from the nearest component that has one sample at least, in deviations."""
    begin, end = channels
    per_sample, per_channel = steps
    x, samples = floats(a[X]), a[LENGTH] * a[IMAGES]
    for i in range(samples):
        nearest[i] = np.inf
    for k in range(number):
        if totals[k] < 1.0:
            continue
        for i in range(samples):
            distance = np.float32(0.0)
            for c in range(begin, end):
                var = max(floats(a[VAR])[c], floats(a[FLOOR])[c])
                scale = np.float32(1.0 / math.sqrt(max(var, TINY))) if var > 0 else np.float32(0.0)
                mean = floats(a[MIXTURE_MEAN])[k * a[CHANNELS] + c]
                apart = (x[i * per_sample + c * per_channel] - mean) * scale
                distance += apart * apart
            nearest[i] = min(nearest[i], distance)


@compiled
def _drawn(nearest, samples, draw):
    """A sample with probability proportional to its distance; any, where all are 0 or none is known."""
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
def _revive(a, channels, steps, weights, step, totals, draws, nearest, number):
    """Let components that have less than one sample begin again at one; whether there was any."""
    empty = False
    for k in range(number):
        empty = empty or totals[k] < 1.0
    if not empty:
        return False
    begin, end = channels
    per_sample, per_channel = steps
    samples = a[LENGTH] * a[IMAGES]
    _distances(a, channels, steps, totals, nearest, number)
    whole = 0.0
    for k in range(number):
        if totals[k] < 1.0:
            i = _drawn(nearest, samples, draws[k * step])
            weights[k * step] = 1.0 / number
            for c in range(begin, end):
                place = k * a[CHANNELS] + c
                floats(a[MIXTURE_MEAN])[place] = floats(a[X])[i * per_sample + c * per_channel]
                floats(a[MIXTURE_VAR])[place] = max(floats(a[VAR])[c], floats(a[FLOOR])[c])
        whole += weights[k * step]
    for k in range(number):
        weights[k * step] /= whole
    return True


@compiled
def _expect_joint(a, square, sums, like):
    size = 2 * len(like) * (a[CHANNELS] + 1)
    logits_of(a)
    clear(sums, size)
    tiles, _ = tiles_of(a)
    for tile in range(tiles):
        find_posteriors(a, tile, square, like)
        count_tile(a, tile, ahead(sums, size - 2 * len(like)), like)
        sum_tile(a, tile, floats(a[LOGITS]), square, sums, None, like)


@compiled
def fit_joint(a, like):
    """The mixture after some steps, in place of the one given."""
    number, channels, samples = len(like), a[CHANNELS], np.float64(a[LENGTH])
    square, sums = floats(a[SCRATCH]), doubles(a[PARTIAL])
    totals, weights = ahead(sums, 2 * number * channels), floats(a[MIXTURE_WEIGHT])
    # behind the sums there is room for a number a sample
    nearest = ahead(sums, 2 * number * (channels + 1))
    for step in range(a[STEPS]):
        _expect_joint(a, square, sums, like)
        if step == 0 and a[DRAWS] != 0:
            every, steps = (0, channels), (channels, 1)
            if _revive(a, every, steps, weights, 1, totals, floats(a[DRAWS]), nearest, number):
                _expect_joint(a, square, sums, like)
        for c in range(channels):
            for k in range(number):
                place = 2 * number * c + k
                _maximized(a, c, k, floats(a[CENTRE])[c], totals[k], sums[place], sums[place + number])
        _weigh(weights, 1, totals, number, samples)


@compiled
def _expect_channel(a, c, table, t, sums, like):
    logits_of_channel(a, c, table, len(like))
    clear(sums, 4 * len(like))
    measure(a, c, table, t, sums, like)


@compiled
def fit_channels(a, like):
    """Every channel's mixture after some steps, in place of the one given."""
    number, channels, samples = len(like), a[CHANNELS], np.float64(a[LENGTH])
    t, sums, table = floats(a[SCRATCH]), doubles(a[PARTIAL]), floats(a[LOGITS])
    nearest = ahead(sums, 4 * number)
    for c in range(channels):
        weights = ahead(floats(a[MIXTURE_WEIGHT]), c)
        for step in range(a[STEPS]):
            _expect_channel(a, c, table, t, sums, like)
            if step == 0 and a[DRAWS] != 0:
                draws = ahead(floats(a[DRAWS]), c)
                one, steps = (c, c + 1), (1, a[LENGTH])
                if _revive(a, one, steps, weights, channels, sums, draws, nearest, number):
                    _expect_channel(a, c, table, t, sums, like)
            for k in range(number):
                origin = np.float64(floats(a[CENTRE])[c]) + np.float64(table[k])
                _maximized(a, c, k, origin, sums[k], sums[2 * number + k], sums[3 * number + k])
            _weigh(weights, channels, sums, number, samples)
