"""A mixture of numbers for each channel, where each channel of an image is a plane: a thread works on one channel.

A value has K posteriors; those of one channel at a time are held, in the thread's scratch, between the pass that
makes them and adds up what they weigh, and the pass that writes a result.

``like`` is a tuple as long as there are components (:mod:`.bundles`).
"""

from __future__ import annotations

import math

import numpy as np

from gbn.kernels.cpu.compiling import compiled, inlined
from gbn.kernels.cpu.memory import (
    ahead,
    claim,
    doubles,
    fence,
    floats,
    halves,
    load,
    load_first,
    prefetch,
    store,
    store_first,
    stream,
)
from gbn.kernels.cpu.simd import LANES, fma, maximum, splat, where

from .bundles import (
    add_each,
    add_totals,
    dot,
    fma_each,
    keep_first,
    load_mask,
    loads,
    multiply_each,
    softmax2,
    splats,
    store_mask,
    stores,
    subtract_each,
    zeros,
)
from .call import (
    BIAS,
    CENTRE,
    CHANNELS,
    CONCENTRATION,
    DBIAS,
    DWEIGHT,
    IMAGES,
    KEPT,
    LENGTH,
    LOGITS,
    MASK,
    MEAN,
    MIXTURE_MEAN,
    MIXTURE_VAR,
    MIXTURE_WEIGHT,
    NEXT,
    PAST,
    RELU,
    SCRATCH,
    SHARES,
    SIZE,
    THREADS,
    VAR,
    WANTED,
    WEIGHT,
    G,
    X,
    Y,
    blocks_of,
    clear,
)
from .settle import LOG2E, TINY, log2, variance

__all__ = ["backward", "forward", "logits_of_channel", "measure", "scratch_size"]

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)

#: Vectors summed in float32 before the sums go to float64.
_PIECE = 128


def scratch_size(blocks: int, components: int) -> int:
    """Bytes that a thread needs: sums, a table of three rows, the posteriors of a channel."""
    return 4 * LANES * components * blocks + 4 * 4 * components + 8 * 4 * components + 128


@compiled
def _workspace(a, number):
    """This thread's posteriors, table and sums."""
    address = a[SCRATCH] + claim(a, THREADS) * a[SIZE]
    posteriors = 4 * LANES * number * blocks_of(a) * a[IMAGES]
    return (
        floats(address),
        floats(address + posteriors),
        doubles(address + posteriors + 16 * number),
    )


@compiled
def logits_of_channel(a, c, table, number):
    """A channel's ``h (x - centre - mean)^2 + constant`` to base 2: rows of mean, h and constant.

    The square is never multiplied out: of a narrow component far from the centre nothing would be left of it.
    """
    for k in range(number):
        place = k * a[CHANNELS] + c
        var = np.float64(floats(a[MIXTURE_VAR])[place])
        weight = np.float64(floats(a[MIXTURE_WEIGHT])[place])
        table[k] = np.float64(floats(a[MIXTURE_MEAN])[place]) - np.float64(floats(a[CENTRE])[c])
        table[number + k] = -0.5 * LOG2E / var
        table[2 * number + k] = log2(weight) - 0.5 * log2(var)


@inlined
def _posterior(apart, many, h, constants):
    return keep_first(many, softmax2(fma_each(multiply_each(h, apart), apart, constants)))


@compiled
def measure(a, c, table, t, sums, like):
    """Posteriors of a channel, and the sums of them, of their squares, and of what they weigh: K numbers each.

    What they weigh is the distance from the component's mean in the given mixture, and its square.
    """
    x, channels, length, number = floats(a[X]), a[CHANNELS], a[LENGTH], len(like)
    m = splat(floats(a[CENTRE])[c])
    means, h = splats(table, 0, like), splats(table, number, like)
    constants = splats(table, 2 * number, like)
    total, squared, first, second = zeros(like), zeros(like), zeros(like), zeros(like)
    at = since = 0
    for image in range(a[IMAGES]):
        start = (image * channels + c) * length
        for i in range(start, start + length, LANES):
            prefetch(x, i + channels * length)
            many = min(LANES, start + length - i)
            u = (load(x, i) if many == LANES else load_first(x, i, many, m)) - m
            apart = subtract_each(u, means)
            p = _posterior(apart, many, h, constants)
            stores(t, at, LANES, p)
            at += LANES * number
            total, squared = add_each(total, p), fma_each(p, p, squared)
            weighed = multiply_each(p, apart)
            first, second = add_each(first, weighed), fma_each(weighed, apart, second)
            since += 1
            if since == _PIECE:
                add_totals(sums, 0, total)
                add_totals(sums, number, squared)
                add_totals(sums, 2 * number, first)
                add_totals(sums, 3 * number, second)
                total, squared, first, second = zeros(like), zeros(like), zeros(like), zeros(like)
                since = 0
    add_totals(sums, 0, total)
    add_totals(sums, number, squared)
    add_totals(sums, 2 * number, first)
    add_totals(sums, 3 * number, second)


@compiled
def _measured(a, c, eps, sums, logits, table, number):
    """Moments of a channel, what its backward pass needs of them, and the gains and shifts that make y."""
    count, size = np.float64(a[IMAGES] * a[LENGTH]), number * a[CHANNELS]
    kept, weight, bias = doubles(a[KEPT]), _ONE, _ZERO
    if a[WEIGHT] != 0:
        weight = floats(a[WEIGHT])[c]
    if a[BIAS] != 0:
        bias = floats(a[BIAS])[c]
    for k in range(number):
        place, divisor = k * a[CHANNELS] + c, max(sums[k], TINY)
        moved = sums[2 * number + k] / divisor
        mean = np.float64(logits[k]) + moved
        var = variance(sums[3 * number + k] / divisor, moved)
        factor = 1.0 / math.sqrt(divisor / count * (var + eps))
        floats(a[SHARES])[place], floats(a[VAR])[place] = sums[k] / count, var
        floats(a[MEAN])[place] = mean + np.float64(floats(a[CENTRE])[c])
        floats(a[CONCENTRATION])[place] = sums[number + k] / divisor / divisor
        kept[place], kept[size + place] = divisor, mean
        kept[2 * size + place], kept[3 * size + place] = var, factor
        gain = factor * np.float64(weight)
        table[k], table[number + k] = gain, np.float64(bias) - gain * mean


@inlined
def _put(target, place, many, value, past):
    if many < LANES:
        store_first(target, place, many, value)
    elif past:
        stream(target, place, value)
    else:
        store(target, place, value)


@compiled
def _normalize(a, c, table, t, mask, like):
    x, y, channels, length, number = floats(a[X]), floats(a[Y]), a[CHANNELS], a[LENGTH], len(like)
    m, zero, past = splat(floats(a[CENTRE])[c]), splat(_ZERO), a[PAST] != 0
    gain, shift = splats(table, 0, like), splats(table, number, like)
    floor = zero if a[RELU] != 0 else splat(-np.float32(np.inf))
    bits, at = c * blocks_of(a) * a[IMAGES], 0
    for image in range(a[IMAGES]):
        start = (image * channels + c) * length
        for i in range(start, start + length, LANES):
            many = min(LANES, start + length - i)
            u = (load(x, i) if many == LANES else load_first(x, i, many, m)) - m
            p = loads(t, at * LANES * number, like)
            value = dot(p, fma_each(gain, u, shift), zero)  # what cancels does so within a component
            if mask is not None:
                store_mask(mask, bits + at, value > floor)
            _put(y, i, many, maximum(floor, value), past)
            at += 1


@compiled
def forward(a, eps, like):
    """y, the moments, and what :func:`backward` needs."""
    number = len(like)
    t, table, sums = _workspace(a, number)
    while True:
        c = claim(a, NEXT)
        if c >= a[CHANNELS]:
            break
        logits = ahead(floats(a[LOGITS]), 3 * number * c)
        logits_of_channel(a, c, logits, number)
        clear(sums, 4 * number)
        measure(a, c, logits, t, sums, like)
        _measured(a, c, eps, sums, logits, table, number)
        if a[MASK] != 0:
            _normalize(a, c, table, t, halves(a[MASK]), like)
        else:
            _normalize(a, c, table, t, None, like)
    fence()


@inlined
def _passed(g, i, many, mask, at, relu):
    """The cotangent where the ReLU, if any, lets it through."""
    value = load(g, i) if many == LANES else load_first(g, i, many, splat(_ZERO))
    if relu:
        value = where(load_mask(mask, at), value, splat(_ZERO))
    return value


@compiled
def _reduce(a, c, table, t, sums, like):
    """Posteriors of a channel, and sums of the cotangent and of it times the sample, weighted by them."""
    x, g, channels, length, number = floats(a[X]), floats(a[G]), a[CHANNELS], a[LENGTH], len(like)
    m, relu, mask = splat(floats(a[CENTRE])[c]), a[RELU] != 0, halves(a[MASK])
    means, h = splats(table, 0, like), splats(table, number, like)
    constants = splats(table, 2 * number, like)
    first, second = zeros(like), zeros(like)
    bits, at, since = c * blocks_of(a) * a[IMAGES], 0, 0
    for image in range(a[IMAGES]):
        start = (image * channels + c) * length
        for i in range(start, start + length, LANES):
            prefetch(x, i + channels * length)
            prefetch(g, i + channels * length)
            many = min(LANES, start + length - i)
            u = (load(x, i) if many == LANES else load_first(x, i, many, m)) - m
            p = _posterior(subtract_each(u, means), many, h, constants)
            stores(t, at * LANES * number, LANES, p)
            passed = _passed(g, i, many, mask, bits + at, relu)
            first, second = fma_each(p, passed, first), fma_each(p, passed * u, second)
            at += 1
            since += 1
            if since == _PIECE:
                add_totals(sums, 0, first)
                add_totals(sums, number, second)
                first, second = zeros(like), zeros(like)
                since = 0
    add_totals(sums, 0, first)
    add_totals(sums, number, second)


@compiled
def _differentiated(a, c, eps, sums, table, number):
    """Gradients of a channel's gain and bias, and the gains, slopes and offsets that make dx."""
    kept, size, weight = doubles(a[KEPT]), number * a[CHANNELS], _ONE
    if a[WEIGHT] != 0:
        weight = floats(a[WEIGHT])[c]
    to_weight, to_bias = 0.0, 0.0
    for k in range(number):
        place = k * a[CHANNELS] + c
        divisor, mean, var, factor = (
            kept[place],
            kept[size + place],
            kept[2 * size + place],
            kept[3 * size + place],
        )
        along = sums[number + k] - mean * sums[k]
        to_weight += factor * along
        to_bias += sums[k]
        gain = factor * np.float64(weight)
        # A clamped weight sum or variance passes nothing on: a component without samples has no gradient.
        slope = -along * np.float64(weight) * factor / (var + eps) / divisor
        table[k], table[number + k] = gain, slope
        table[2 * number + k] = -gain * sums[k] / divisor - slope * mean
    floats(a[DWEIGHT])[c], floats(a[DBIAS])[c] = to_weight, to_bias


@compiled
def _differentiate(a, c, table, t, like):
    x, g, dx = floats(a[X]), floats(a[G]), floats(a[Y])
    channels, length, number = a[CHANNELS], a[LENGTH], len(like)
    m, zero, past = splat(floats(a[CENTRE])[c]), splat(_ZERO), a[PAST] != 0
    relu, mask = a[RELU] != 0, halves(a[MASK])
    gain, slope = splats(table, 0, like), splats(table, number, like)
    offset = splats(table, 2 * number, like)
    bits, at = c * blocks_of(a) * a[IMAGES], 0
    for image in range(a[IMAGES]):
        start = (image * channels + c) * length
        for i in range(start, start + length, LANES):
            many = min(LANES, start + length - i)
            u = (load(x, i) if many == LANES else load_first(x, i, many, m)) - m
            p = loads(t, at * LANES * number, like)
            passed = _passed(g, i, many, mask, bits + at, relu)
            value = fma(passed, dot(p, gain, zero), dot(p, fma_each(slope, u, offset), zero))
            _put(dx, i, many, value, past)
            at += 1


@compiled
def backward(a, eps, like):
    """dx where it is wanted, and the gradients to gain and bias."""
    number = len(like)
    t, table, sums = _workspace(a, number)
    while True:
        c = claim(a, NEXT)
        if c >= a[CHANNELS]:
            break
        clear(sums, 2 * number)
        _reduce(a, c, ahead(floats(a[LOGITS]), 3 * number * c), t, sums, like)
        _differentiated(a, c, eps, sums, table, number)
        if a[WANTED] != 0:
            _differentiate(a, c, table, t, like)
    fence()
