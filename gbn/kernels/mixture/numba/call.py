# mypy: ignore-errors
# Compiled by numba: a language of its own that only looks like Python.
"""The argument of an entry point, one table of integers, and what all entry points derive from it."""

from __future__ import annotations

from enum import IntEnum

from gbn.kernels.numba.compiling import compiled
from gbn.kernels.numba.memory import claim, floats
from gbn.kernels.numba.simd import LANES

from .bundles import add_each, add_totals, fma_each, loads, zeros

__all__ = ["Call", "blocks_of", "clear", "count_tile", "place_of", "span_of", "tile_of", "tiles_of"]


class Call(IntEnum):
    """Slots of the table, int64 each: counters, sizes, flags, then addresses (0: none).

    N images, C channels, L positions, K components. Where channels are last in memory, all positions count as one
    image's. A table of R rows is (C, R) float32 for planes, (ceil(C / 16), R, 16) where channels are last.
    """

    NEXT = 0  # the next span, or channel, to claim
    THREADS = 1  # threads that have started
    LANES_ = 2  # adjacent channels in tables: 1 (planes) or 16 (last)
    IMAGES = 3
    CHANNELS = 4
    LENGTH = 5  # positions of an image
    COMPONENTS = 6
    TOGETHER = 7  # images per tile
    PIECE = 8  # positions of an image per tile
    SPANS = 9  # runs of tiles, which threads claim
    SIZE = 10  # bytes of scratch per thread
    PAST = 11  # whether results are written past the caches (non-temporal stores)
    RELU = 12
    WANTED = 13  # whether dx is needed
    STEPS = 14  # of expectation-maximization
    EPS = 15  # the bits of a float64
    SCRATCH = 16  # SIZE bytes per thread, aligned to 64
    X = 17  # float32 (N, C, L); (L, C) where channels are last
    Y = 18  # like X: y, or dx
    G = 19  # like X: the cotangent
    POSTERIORS = 20  # float32 (blocks of 16 samples, K, 16)
    MASK = 21  # 16 bits per vector of y: where the ReLU lets through; (C, blocks), or (L, ceil(C / 16))
    LOGITS = 22  # table of 2 K + 1 rows: center, b, -a/2
    CONSTANTS = 23  # float32 (K,)
    TABLE = 24  # table of 2 K + 1 rows: center, gains, shifts; or of 3 K + 1: center, gains, slopes, offsets
    PARTIAL = 25  # float64 (SPANS, C + 1, 2, K): sums of spans
    WEIGHT = 26  # float32 (C,), as are the next two
    BIAS = 27
    CENTER = 28
    MIXTURE_WEIGHT = 29  # float32 (K, 1)
    MIXTURE_MEAN = 30  # float32 (K, C)
    MIXTURE_VAR = 31  # float32 (K, C)
    SHARES = 32  # the moments, float32: l, (K, 1)
    MEAN = 33  # (K, C)
    VAR = 34  # (K, C); in a fit the samples' variance (C,)
    CONCENTRATION = 35  # (K, 1)
    KEPT = 36  # float64 (4, K, C): divisor, mean from the center, variance, factor
    DWEIGHT = 37  # float32 (C,)
    DBIAS = 38  # float32 (C,)
    FLOOR = 39  # float32 (C,), of the components' variances
    DRAWS = 40  # float32 (K,), uniform numbers


# numba treats plain integers at module level as constants.
(
    NEXT, THREADS, LANES_, IMAGES, CHANNELS, LENGTH, COMPONENTS, TOGETHER, PIECE, SPANS, SIZE, PAST, RELU, WANTED,
    STEPS, EPS, SCRATCH, X, Y, G, POSTERIORS, MASK, LOGITS, CONSTANTS, TABLE, PARTIAL, WEIGHT, BIAS, CENTER,
    MIXTURE_WEIGHT, MIXTURE_MEAN, MIXTURE_VAR, SHARES, MEAN, VAR, CONCENTRATION, KEPT, DWEIGHT, DBIAS, FLOOR, DRAWS,
) = (int(place) for place in Call)  # fmt: skip


@compiled
def place_of(a, row, rows, c):
    """Return the index in a table of number ``row`` of ``rows`` of channel c."""
    lanes = a[LANES_]
    return (c // lanes * rows + row) * lanes + c % lanes


@compiled
def tiles_of(a):
    """Return the number of tiles, and the number of pieces of an image."""
    pieces = (a[LENGTH] + a[PIECE] - 1) // a[PIECE]
    return (a[IMAGES] + a[TOGETHER] - 1) // a[TOGETHER] * pieces, pieces


@compiled
def span_of(a):
    """Claim the next span: return its number, its first tile, and the one past its last."""
    k = claim(a, NEXT)
    tiles, _ = tiles_of(a)
    if k >= a[SPANS]:
        return k, 0, 0
    return k, k * tiles // a[SPANS], (k + 1) * tiles // a[SPANS]


@compiled
def tile_of(a, tile):
    """Return the range of a tile's images, and the range of positions in each."""
    _, pieces = tiles_of(a)
    image, place = tile // pieces * a[TOGETHER], tile % pieces * a[PIECE]
    return image, min(image + a[TOGETHER], a[IMAGES]), place, min(place + a[PIECE], a[LENGTH])


@compiled
def blocks_of(a):
    """Return the number of blocks of 16 samples per image."""
    return (a[LENGTH] + LANES - 1) // LANES


@compiled
def clear(numbers, size):
    """Set ``size`` numbers to zero."""
    for i in range(size):
        numbers[i] = 0.0


@compiled
def count_tile(a, tile, sums, like):
    """Add the sums of the posteriors over a tile, followed by those of their squares, to ``sums``, (2, K) float64."""
    t, number = floats(a[POSTERIORS]), len(like)
    first, last, begin, end = tile_of(a, tile)
    totals, squares = zeros(like), zeros(like)
    for image in range(first, last):
        start = image * blocks_of(a)
        for block in range(start + begin // LANES, start + (end + LANES - 1) // LANES):
            p = loads(t, block * number * LANES, like)
            totals, squares = add_each(totals, p), fma_each(p, p, squares)
    add_totals(sums, 0, totals)
    add_totals(sums, number, squares)
