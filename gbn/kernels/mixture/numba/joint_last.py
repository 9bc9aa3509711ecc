# mypy: ignore-errors
# Compiled by numba: a language of its own that only looks like Python.
"""One mixture for the whole vector of channels, where channels are adjacent in memory: 16 channels per vector.

Posteriors are stored as where channels are planes (:mod:`.joint_planes`), so that sums over channels become vectors
of 16 samples before the exponentials are taken. All positions count as one image's.

``like`` is any tuple of length K (:mod:`.bundles`). Arguments of all functions:

    a                   a :class:`.call.Call`, which lists shapes and dtypes of all tensors
    x, y, g, dx         float32 (L, C); the passes get g as (pointer, relu)
    t                   float32 (blocks of 16 samples, K, 16)
    table               float32 (ceil(C / 16), rows, 16)
    sums                float64 (C + 1, 2, K)
    square              float32 scratch: (K, 16, 16), then (K, 16)
    lanes               float32 scratch: (2 K, 16)
    place, place_of_mask, many, lane, tile    int64
    m                   f32x16, the center of 16 channels
"""

from __future__ import annotations

import numpy as np

from gbn.kernels.numba.compiling import compiled, inlined
from gbn.kernels.numba.convert import row_totals
from gbn.kernels.numba.memory import floats, halves, load, load_first, store, store_first, stream
from gbn.kernels.numba.simd import LANES, fma, maximum, splat, where

from .bundles import (
    add_each,
    dot,
    fma_each,
    keep_first,
    load_mask,
    loads,
    softmax2,
    splats,
    spread,
    store_mask,
    stores,
    zeros,
)
from .call import count_tile, over_sums, over_tiles, tile_of

__all__ = [
    "differentiate_last",
    "find_posteriors",
    "moments_last",
    "normalize_last",
    "reduce_last",
    "sum_tile",
]

_ZERO = np.float32(0.0)


@inlined
def _load(x, place, many):
    return load(x, place) if many == LANES else load_first(x, place, many, splat(_ZERO))


@inlined
def _from_center(x, place, many, m):
    """Return differences from the center; 0 in lanes beyond, where the center is 0."""
    return _load(x, place, many) - m


@compiled
def _squares(x, place, channels, table, square, lane, like):
    """Write four samples' logits as 16 partial sums each, to rows ``lane`` to ``lane + 3`` of K squares."""
    number = len(like)
    # four samples share each load of the table, and their sums do not wait for each other
    p, q, r, s = zeros(like), zeros(like), zeros(like), zeros(like)
    at = 0
    for c in range(0, channels, LANES):
        many = min(LANES, channels - c)
        m, b, h = (
            load(table, at),
            loads(table, at + LANES, like),
            loads(table, at + (1 + number) * LANES, like),
        )
        u = _from_center(x, place + c, many, m)
        p = fma_each(fma_each(h, u, b), u, p)
        u = _from_center(x, place + channels + c, many, m)
        q = fma_each(fma_each(h, u, b), u, q)
        u = _from_center(x, place + 2 * channels + c, many, m)
        r = fma_each(fma_each(h, u, b), u, r)
        u = _from_center(x, place + 3 * channels + c, many, m)
        s = fma_each(fma_each(h, u, b), u, s)
        at += (2 * number + 1) * LANES
    step = LANES * LANES
    stores(square, lane * LANES, step, p)
    stores(square, (lane + 1) * LANES, step, q)
    stores(square, (lane + 2) * LANES, step, r)
    stores(square, (lane + 3) * LANES, step, s)


@compiled
def _square(x, place, channels, table, square, lane, like):
    """Do the same for one sample."""
    number, at = len(like), 0
    p = zeros(like)
    for c in range(0, channels, LANES):
        m, b, h = (
            load(table, at),
            loads(table, at + LANES, like),
            loads(table, at + (1 + number) * LANES, like),
        )
        u = _from_center(x, place + c, min(LANES, channels - c), m)
        p = fma_each(fma_each(h, u, b), u, p)
        at += (2 * number + 1) * LANES
    stores(square, lane * LANES, LANES * LANES, p)


@compiled
def find_posteriors(a, tile, square, like):
    """Compute and store the posteriors of a tile."""
    x, t, table, channels = floats(a.x), floats(a.posteriors), floats(a.logits), a.channels
    constants, number = splats(floats(a.constants), 0, like), len(like)
    _, _, begin, end = tile_of(a, tile)
    for i in range(begin, end, LANES):
        many = min(LANES, end - i)
        for j in range(0, many - 3, 4):
            _squares(x, (i + j) * channels, channels, table, square, j, like)
        for j in range(many // 4 * 4, many):
            _square(x, (i + j) * channels, channels, table, square, j, like)
        # summing the rows of a square turns 16 samples' partial sums into one vector of 16 logits
        for k in range(number):
            store(square, (number * LANES + k) * LANES, row_totals(square, k * LANES * LANES))
        p = softmax2(add_each(loads(square, number * LANES * LANES, like), constants))
        stores(t, i * number, LANES, keep_first(many, p))


@inlined
def _values(x, g, mask, place, place_of_mask, many, m):
    u = _from_center(x, place, many, m)
    if g is None:
        return u, u * u
    passed = _load(g[0], place, many)
    if g[1]:
        passed = where(load_mask(mask, place_of_mask), passed, splat(_ZERO))
    return passed, passed * u


@compiled
def sum_tile(a, tile, table, lanes, sums, g, like):
    """Add a tile's sums, weighted by the posteriors, to those of its span: 2 K numbers per channel."""
    x, t, mask = floats(a.x), floats(a.posteriors), halves(a.mask)
    channels, number = a.channels, len(like)
    vectors, width = (channels + LANES - 1) // LANES, 2 * number + 1
    _, _, begin, end = tile_of(a, tile)
    for vector in range(vectors):
        c = vector * LANES
        many = min(LANES, channels - c)
        m = load(table, vector * width * LANES)
        f, q = zeros(like), zeros(like)
        for i in range(begin, end):
            p = spread(t, i // LANES * LANES * number + i % LANES, like)
            v, w = _values(x, g, mask, i * channels + c, i * vectors + vector, many, m)
            f, q = fma_each(p, v, f), fma_each(p, w, q)
        # a lane is a channel: only its float64 sums are added to the span's
        stores(lanes, 0, LANES, f)
        stores(lanes, number * LANES, LANES, q)
        for lane in range(many):
            for k in range(2 * number):
                sums[2 * number * (c + lane) + k] += lanes[k * LANES + lane]


@compiled
def _moments_tile(a, tile, square, sums, like):
    find_posteriors(a, tile, square, like)
    count_tile(a, tile, sums, like)
    sum_tile(a, tile, floats(a.logits), square, sums, None, like)


@compiled
def _reduce_tile(a, tile, lanes, sums, like):
    sum_tile(a, tile, floats(a.logits), lanes, sums, (floats(a.g), a.relu != 0), like)


#: The passes of :mod:`.joint_planes`.
moments_last = over_sums(_moments_tile)
reduce_last = over_sums(_reduce_tile)


@inlined
def _put(target, place, many, value, past):
    if past:
        stream(target, place, value)
    elif many == LANES:
        store(target, place, value)
    else:
        store_first(target, place, many, value)


@compiled
def _normalize_tile(a, tile, mask, like):
    x, y, t, table = floats(a.x), floats(a.y), floats(a.posteriors), floats(a.table)
    channels, number, zero, past = a.channels, len(like), splat(_ZERO), a.past != 0
    vectors, width = (channels + LANES - 1) // LANES, 2 * number + 1
    floor = zero if a.relu != 0 else splat(-np.float32(np.inf))
    _, _, begin, end = tile_of(a, tile)
    for vector in range(vectors):
        c, at = vector * LANES, vector * width * LANES
        many = min(LANES, channels - c)
        m, gain = load(table, at), loads(table, at + LANES, like)
        shift = loads(table, at + (1 + number) * LANES, like)
        for i in range(begin, end):
            p = spread(t, i // LANES * LANES * number + i % LANES, like)
            u = _from_center(x, i * channels + c, many, m)
            value = fma(u, dot(p, gain, zero), dot(p, shift, zero))
            if mask is not None:
                store_mask(mask, i * vectors + vector, value > floor)
            _put(y, i * channels + c, many, maximum(floor, value), past)


@compiled
def _normalize_any(a, tile, like):
    if a.mask != 0:
        _normalize_tile(a, tile, halves(a.mask), like)
    else:
        _normalize_tile(a, tile, None, like)


normalize_last = over_tiles(_normalize_any)


@compiled
def _differentiate_tile(a, tile, like):
    x, dx, t, table, mask = (
        floats(a.x),
        floats(a.y),
        floats(a.posteriors),
        floats(a.table),
        halves(a.mask),
    )
    channels, number, zero, past = a.channels, len(like), splat(_ZERO), a.past != 0
    vectors, width = (channels + LANES - 1) // LANES, 3 * number + 1
    g = floats(a.g), a.relu != 0
    _, _, begin, end = tile_of(a, tile)
    for vector in range(vectors):
        c, at = vector * LANES, vector * width * LANES
        many = min(LANES, channels - c)
        m, gain = load(table, at), loads(table, at + LANES, like)
        slope = loads(table, at + (1 + number) * LANES, like)
        offset = loads(table, at + (1 + 2 * number) * LANES, like)
        for i in range(begin, end):
            p = spread(t, i // LANES * LANES * number + i % LANES, like)
            passed, _ = _values(x, g, mask, i * channels + c, i * vectors + vector, many, m)
            u = _from_center(x, i * channels + c, many, m)
            value = fma(passed, dot(p, gain, zero), fma(u, dot(p, slope, zero), dot(p, offset, zero)))
            _put(dx, i * channels + c, many, value, past)


differentiate_last = over_tiles(_differentiate_tile)
