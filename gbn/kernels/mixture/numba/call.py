# mypy: ignore-errors
# Compiled by numba: a language of its own that only looks like Python.
"""The argument of an entry point, one table, and what all entry points derive from it."""

from __future__ import annotations

import ctypes

import numpy as np

from gbn.kernels.numba.compiling import compiled
from gbn.kernels.numba.memory import NEXT, THREADS, ahead, claim, doubles, fence, floats, int64s, reader
from gbn.kernels.numba.simd import LANES

from .bundles import add_each, add_totals, fma_each, loads, zeros

__all__ = [
    "Call",
    "blocks_of",
    "clear",
    "count_tile",
    "over_sums",
    "over_tiles",
    "place_of",
    "read",
    "tile_of",
    "tiles_of",
]


_ZERO = np.float32(0.0)


class Call(ctypes.Structure):
    """The table of a call: counters, sizes, flags, then addresses (0: none).

    N images, C channels, L positions, K components. Where channels are last in memory, all positions count as one
    image's. A table of R rows is (C, R) float32 for planes, (ceil(C / 16), R, 16) where channels are last.
    """

    _fields_ = (
        *int64s(
            "next",  # the next span, or channel, to claim
            "threads",  # threads that have started
            "lanes",  # adjacent channels in tables: 1 (planes) or 16 (last)
            "images",
            "channels",
            "length",  # positions of an image
            "components",
            "together",  # images per tile
            "piece",  # positions of an image per tile
            "spans",  # runs of tiles, which threads claim
            "size",  # bytes of scratch per thread
            "past",  # whether results are written past the caches (non-temporal stores)
            "relu",
            "steps",  # of expectation-maximization
            "scratch",  # ``size`` bytes per thread, aligned to 64
            "x",  # float32 (N, C, L); (L, C) where channels are last
            "y",  # like x: y, or dx
            "g",  # like x: the cotangent
            "posteriors",  # float32 (blocks of 16 samples, K, 16)
            "mask",  # 16 bits per vector of y: where the ReLU lets through; (C, blocks), or (L, ceil(C / 16))
            "logits",  # table of 2 K + 1 rows: center, b, -a/2
            "constants",  # float32 (K,)
            "table",  # of 2 K + 1 rows: center, gains, shifts; or of 3 K + 1: center, gains, slopes, offsets
            "partial",  # float64 (spans, C + 1, 2, K): sums of spans
            "weight",  # float32 (C,), as are the next two
            "bias",
            "center",
            "mixture_weight",  # float32 (K, 1)
            "mixture_mean",  # float32 (K, C)
            "mixture_var",  # float32 (K, C)
            "shares",  # the moments, float32: l, (K, 1)
            "mean",  # (K, C)
            "var",  # (K, C); in a fit the samples' variance (C,)
            "concentration",  # (K, 1)
            "kept",  # float64 (4, K, C): divisor, mean from the center, variance, factor
            "dweight",  # float32 (C,)
            "dbias",  # float32 (C,)
            "floor",  # float32 (C,), of the components' variances
            "draws",  # float32 (K,), uniform numbers
        ),
        ("eps", ctypes.c_double),
    )


read = reader(Call)


@compiled
def place_of(a, row, rows, c):
    """Return the index in a table of number ``row`` of ``rows`` of channel c."""
    lanes = a.lanes
    return (c // lanes * rows + row) * lanes + c % lanes


@compiled
def tiles_of(a):
    """Return the number of tiles, and the number of pieces of an image."""
    pieces = (a.length + a.piece - 1) // a.piece
    return (a.images + a.together - 1) // a.together * pieces, pieces


@compiled
def span_of(a):
    """Claim the next span: return its number, its first tile, and the one past its last."""
    k = claim(a, NEXT)
    tiles, _ = tiles_of(a)
    if k >= a.spans:
        return k, 0, 0
    return k, k * tiles // a.spans, (k + 1) * tiles // a.spans


@compiled
def tile_of(a, tile):
    """Return the range of a tile's images, and the range of positions in each."""
    _, pieces = tiles_of(a)
    image, place = tile // pieces * a.together, tile % pieces * a.piece
    return image, min(image + a.together, a.images), place, min(place + a.piece, a.length)


@compiled
def blocks_of(a):
    """Return the number of blocks of 16 samples per image."""
    return (a.length + LANES - 1) // LANES


@compiled
def clear(numbers, size):
    """Set ``size`` numbers to zero."""
    for i in range(size):
        numbers[i] = 0.0


@compiled
def count_tile(a, tile, sums, like):
    """Add a tile's sums of the posteriors, and of their squares, to the last row of ``sums``, (C + 1, 2, K)."""
    t, number = floats(a.posteriors), len(like)
    last_row = 2 * number * a.channels
    first, last, begin, end = tile_of(a, tile)
    totals, squares = zeros(like), zeros(like)
    for image in range(first, last):
        start = image * blocks_of(a)
        for block in range(start + begin // LANES, start + (end + LANES - 1) // LANES):
            p = loads(t, block * number * LANES, like)
            totals, squares = add_each(totals, p), fma_each(p, p, squares)
    add_totals(sums, last_row, totals)
    add_totals(sums, last_row + number, squares)


def over_tiles(do):
    """Return a pass that calls ``do(a, tile, like)`` for each tile."""

    @compiled
    def run(a, like):
        while True:
            k, first, last = span_of(a)
            if k >= a.spans:
                break
            for tile in range(first, last):
                do(a, tile, like)
        fence()

    return run


def over_sums(do):
    """Return a pass that calls ``do(a, tile, square, sums, like)`` for each tile, with the sums of its span.

    square      float32, this thread's scratch, 0 at first: rows beyond the last sample are read in vain
    sums        float64 (C + 1, 2, K), 0 at the beginning of a span
    """

    @compiled
    def run(a, like):
        size = 2 * len(like) * (a.channels + 1)
        square = floats(a.scratch + claim(a, THREADS) * a.size)
        for i in range(LANES * LANES * len(like)):
            square[i] = _ZERO
        while True:
            k, first, last = span_of(a)
            if k >= a.spans:
                break
            sums = ahead(doubles(a.partial), k * size)
            clear(sums, size)
            for tile in range(first, last):
                do(a, tile, square, sums, like)
        fence()

    return run
