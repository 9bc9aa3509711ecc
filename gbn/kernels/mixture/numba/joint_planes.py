# mypy: ignore-errors
# Compiled by numba: a language of its own that only looks like Python.
"""One mixture for the whole vector of channels, where each channel of an image is a plane.

A tile, the same positions of all channels of some images, fits in a core's level-2 cache: one pass over it finds the
posteriors (16 positions per vector, sums over channels in registers), a second one the moments. Channels are taken in
pairs, which halves the loads of posteriors.

``like`` is any tuple of length K (:mod:`.bundles`). Arguments of all functions:

    a                   a :class:`.call.Call`, which lists shapes and dtypes of all tensors
    x, y, g, dx         float32 (N, C, L); the passes get g as (pointer, relu)
    t                   float32 (blocks of 16 samples, K, 16)
    table               float32 (C, rows)
    sums                float64 (C + 1, 2, K)
    place, place_of_mask, many, tile    int64
    m                   f32x16, the center
    p, gain, shift      bundles
"""

from __future__ import annotations

import numpy as np

from gbn.kernels.numba.compiling import compiled, inlined
from gbn.kernels.numba.memory import (
    ahead,
    floats,
    halves,
    load,
    load_first,
    prefetch,
    store,
    store_first,
    stream,
)
from gbn.kernels.numba.simd import LANES, fma, maximum, splat, where

from .bundles import (
    add_totals,
    dot,
    fma_each,
    keep_first,
    load_mask,
    loads,
    softmax2,
    splats,
    store_mask,
    stores,
    zeros,
)
from .call import blocks_of, count_tile, over_sums, over_tiles, tile_of

__all__ = ["differentiate", "moments", "normalize", "reduce"]

_ZERO = np.float32(0.0)


@compiled
def _posteriors_of_two(x, place, length, channels, table, constants, t, like):
    """Write the posteriors of 32 samples: two vectors share each load of the table."""
    s, z = splats(constants, 0, like), splats(constants, 0, like)
    at, number = 0, len(like)
    for _ in range(channels):
        m, b, h = splat(table[at]), splats(table, at + 1, like), splats(table, at + 1 + number, like)
        # the next 32 positions of this channel: the tile is read channel by channel, with a stride of a plane
        prefetch(x, place + 2 * LANES)
        prefetch(x, place + 3 * LANES)
        u, v = load(x, place) - m, load(x, place + LANES) - m
        # -a/2 u^2 + b u by Horner's rule, added up over the channels
        s = fma_each(fma_each(h, u, b), u, s)
        z = fma_each(fma_each(h, v, b), v, z)
        place += length
        at += 2 * number + 1
    stores(t, 0, LANES, softmax2(s))
    stores(t, number * LANES, LANES, softmax2(z))


@compiled
def _posteriors_of_one(x, place, many, length, channels, table, constants, t, like):
    """Write the posteriors of at most 16 samples; 0 in the lanes beyond, so that sums may run over whole blocks."""
    s = splats(constants, 0, like)
    at, number = 0, len(like)
    for _ in range(channels):
        m, b, h = splat(table[at]), splats(table, at + 1, like), splats(table, at + 1 + number, like)
        u = load_first(x, place, many, m) - m
        s = fma_each(fma_each(h, u, b), u, s)
        place += length
        at += 2 * number + 1
    stores(t, 0, LANES, keep_first(many, softmax2(s)))


@compiled
def _find_posteriors(a, tile, like):
    x, t, table, constants = floats(a.x), floats(a.posteriors), floats(a.logits), floats(a.constants)
    channels, length, step = a.channels, a.length, LANES * len(like)
    first, last, begin, end = tile_of(a, tile)
    for image in range(first, last):
        start = image * channels * length
        i = begin
        while i < end:
            target = ahead(t, (image * blocks_of(a) + i // LANES) * step)
            if i + 2 * LANES <= end:
                _posteriors_of_two(x, start + i, length, channels, table, constants, target, like)
                i += 2 * LANES
            else:
                _posteriors_of_one(x, start + i, end - i, length, channels, table, constants, target, like)
                i += LANES


@inlined
def _values(x, g, mask, place, place_of_mask, many, m):
    """Return the summands: u and its square; with a cotangent, what the ReLU lets through of it, and that times u."""
    if many < LANES:
        u = load_first(x, place, many, m) - m
    else:
        u = load(x, place) - m
    if g is None:
        return u, u * u
    if many < LANES:
        passed = load_first(g[0], place, many, splat(_ZERO))
    else:
        passed = load(g[0], place)
    if g[1]:
        passed = where(load_mask(mask, place_of_mask), passed, splat(_ZERO))
    return passed, passed * u


@compiled
def _sum_tile(a, tile, table, width, sums, g, like):
    """Add a tile's sums, weighted by the posteriors, to those of its span: 2 K numbers per channel."""
    x, t, mask = floats(a.x), floats(a.posteriors), halves(a.mask)
    channels, length, blocks, number = a.channels, a.length, blocks_of(a), len(like)
    first, last, begin, end = tile_of(a, tile)
    every = blocks * a.images
    for c in range(0, channels, 2):
        d = min(c + 1, channels - 1)  # an odd last channel is paired with itself, and counted once
        m, n = splat(table[c * width]), splat(table[d * width])
        f, q, r, s = zeros(like), zeros(like), zeros(like), zeros(like)
        for image in range(first, last):
            one, two = (image * channels + c) * length, (image * channels + d) * length
            at = image * blocks + begin // LANES
            whole = begin + (end - begin) // LANES * LANES
            for i in range(begin, whole, LANES):
                p = loads(t, at * number * LANES, like)
                prefetch(x, one + i + 2 * length)
                v, w = _values(x, g, mask, one + i, c * every + at, LANES, m)
                f, q = fma_each(p, v, f), fma_each(p, w, q)
                v, w = _values(x, g, mask, two + i, d * every + at, LANES, n)
                r, s = fma_each(p, v, r), fma_each(p, w, s)
                at += 1
            if whole < end:
                p = loads(t, at * number * LANES, like)
                v, w = _values(x, g, mask, one + whole, c * every + at, end - whole, m)
                f, q = fma_each(p, v, f), fma_each(p, w, q)
                v, w = _values(x, g, mask, two + whole, d * every + at, end - whole, n)
                r, s = fma_each(p, v, r), fma_each(p, w, s)
        add_totals(sums, 2 * number * c, f)
        add_totals(sums, 2 * number * c + number, q)
        if d > c:
            add_totals(sums, 2 * number * d, r)
            add_totals(sums, 2 * number * d + number, s)


@compiled
def _moments_tile(a, tile, _, sums, like):
    # all three while the tile is in the cache
    _find_posteriors(a, tile, like)
    count_tile(a, tile, sums, like)
    _sum_tile(a, tile, floats(a.logits), 2 * len(like) + 1, sums, None, like)


@compiled
def _reduce_tile(a, tile, _, sums, like):
    _sum_tile(a, tile, floats(a.logits), 2 * len(like) + 1, sums, (floats(a.g), a.relu != 0), like)


#: Compute the posteriors, and the sums that the moments are made of.
moments = over_sums(_moments_tile)
#: Sum the cotangent, and the cotangent times the sample from the center, weighted by the posteriors.
reduce = over_sums(_reduce_tile)


@inlined
def _put(target, place, many, value, past):
    if many < LANES:
        store_first(target, place, many, value)
    elif past:
        stream(target, place, value)
    else:
        store(target, place, value)


@inlined
def _normalized(x, y, mask, place, place_of_mask, many, m, p, gain, shift, floor, past):
    if many < LANES:
        u = load_first(x, place, many, m) - m
    else:
        u = load(x, place) - m
    zero = splat(_ZERO)
    # the gain and the shift of this sample: averages over components, weighted by its posteriors
    value = fma(u, dot(p, gain, zero), dot(p, shift, zero))
    if mask is not None:
        store_mask(mask, place_of_mask, value > floor)
    _put(y, place, many, maximum(floor, value), past)


@compiled
def _normalize_tile(a, tile, mask, like):
    x, y, t, table = floats(a.x), floats(a.y), floats(a.posteriors), floats(a.table)
    channels, length, blocks, number, past = a.channels, a.length, blocks_of(a), len(like), a.past != 0
    first, last, begin, end = tile_of(a, tile)
    whole = begin + (end - begin) // LANES * LANES
    floor = splat(_ZERO) if a.relu != 0 else splat(-np.float32(np.inf))
    at_table = 0
    for c in range(channels):
        m, gain = splat(table[at_table]), splats(table, at_table + 1, like)
        shift = splats(table, at_table + 1 + number, like)
        at_table += 2 * number + 1
        for image in range(first, last):
            start = (image * channels + c) * length
            at = image * blocks + begin // LANES
            bits = c * blocks * a.images
            for i in range(begin, whole, LANES):
                prefetch(x, start + i + length)
                p = loads(t, at * number * LANES, like)
                _normalized(x, y, mask, start + i, bits + at, LANES, m, p, gain, shift, floor, past)
                at += 1
            if whole < end:
                p = loads(t, at * number * LANES, like)
                _normalized(x, y, mask, start + whole, bits + at, end - whole, m, p, gain, shift, floor, past)


@compiled
def _normalize_any(a, tile, like):
    if a.mask != 0:
        _normalize_tile(a, tile, halves(a.mask), like)
    else:
        _normalize_tile(a, tile, None, like)


#: Compute y from gains and shifts, and the mask of the ReLU if that is needed.
normalize = over_tiles(_normalize_any)


@inlined
def _differentiated(x, dx, g, mask, place, place_of_mask, many, m, p, rows, past):
    gain, slope, offset = rows
    passed, _ = _values(x, g, mask, place, place_of_mask, many, m)
    u = (load_first(x, place, many, m) if many < LANES else load(x, place)) - m
    zero = splat(_ZERO)
    value = fma(passed, dot(p, gain, zero), fma(u, dot(p, slope, zero), dot(p, offset, zero)))
    _put(dx, place, many, value, past)


@compiled
def _differentiate_tile(a, tile, like):
    x, dx, t, table, mask = (
        floats(a.x),
        floats(a.y),
        floats(a.posteriors),
        floats(a.table),
        halves(a.mask),
    )
    channels, length, blocks, number, past = a.channels, a.length, blocks_of(a), len(like), a.past != 0
    first, last, begin, end = tile_of(a, tile)
    whole = begin + (end - begin) // LANES * LANES
    g = floats(a.g), a.relu != 0
    width = 3 * number + 1
    for c in range(channels):
        at_table = c * width
        m, gain = splat(table[at_table]), splats(table, at_table + 1, like)
        slope = splats(table, at_table + 1 + number, like)
        offset = splats(table, at_table + 1 + 2 * number, like)
        rows = gain, slope, offset
        for image in range(first, last):
            start = (image * channels + c) * length
            at = image * blocks + begin // LANES
            bits = c * blocks * a.images
            for i in range(begin, whole, LANES):
                prefetch(x, start + i + length)
                prefetch(g[0], start + i + length)
                p = loads(t, at * number * LANES, like)
                _differentiated(x, dx, g, mask, start + i, bits + at, LANES, m, p, rows, past)
                at += 1
            if whole < end:
                p = loads(t, at * number * LANES, like)
                _differentiated(x, dx, g, mask, start + whole, bits + at, end - whole, m, p, rows, past)


#: Compute dx from gains, slopes and offsets.
differentiate = over_tiles(_differentiate_tile)
