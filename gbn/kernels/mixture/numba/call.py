# mypy: ignore-errors
# Compiled by numba: a language of its own that only looks like Python.
"""What an entry point is told: one table of integers, and what all of them make of it."""

from __future__ import annotations

from enum import IntEnum

from gbn.kernels.numba.compiling import compiled
from gbn.kernels.numba.memory import claim, floats
from gbn.kernels.numba.simd import LANES

from .bundles import add_each, add_totals, fma_each, loads, zeros

__all__ = ["Call", "blocks_of", "clear", "count_tile", "place_of", "span_of", "tile_of", "tiles_of"]


class Call(IntEnum):
    """Places of the table: counters, sizes, flags, then addresses (0: none)."""

    NEXT = 0  # the next span, or channel, to claim
    THREADS = 1  # threads that have come
    LANES_ = 2  # channels that lie side by side in tables: 1 (planes) or 16 (last)
    IMAGES = 3
    CHANNELS = 4
    LENGTH = 5  # positions of an image; of all, as one image, where channels lie last
    COMPONENTS = 6
    TOGETHER = 7  # images of a tile
    PIECE = 8  # positions of an image in a tile
    SPANS = 9  # runs of tiles, which threads claim
    SIZE = 10  # bytes of scratch a thread
    PAST = 11  # whether results are written past the caches
    RELU = 12
    WANTED = 13  # whether dx is
    STEPS = 14  # of expectation and maximization
    EPS = 15  # the bits of a float64
    SCRATCH = 16
    X = 17
    Y = 18  # y, or dx
    G = 19
    POSTERIORS = 20  # 16 samples of each component after one another, blocks of samples
    MASK = 21  # 16 bits a vector of y: where the ReLU lets through
    LOGITS = 22  # table of centre, b, -a/2
    CONSTANTS = 23  # (K,), or (C, K) of a mixture a channel
    TABLE = 24  # of centre and gains, shifts; or of centre and gains, slopes, offsets
    PARTIAL = 25  # float64, sums of spans
    WEIGHT = 26
    BIAS = 27
    CENTRE = 28
    MIXTURE_WEIGHT = 29
    MIXTURE_MEAN = 30
    MIXTURE_VAR = 31
    SHARES = 32  # the moments: l
    MEAN = 33
    VAR = 34
    CONCENTRATION = 35
    KEPT = 36  # float64, rows of (K, C): divisor, mean from the centre, variance, factor
    DWEIGHT = 37
    DBIAS = 38
    FLOOR = 39  # of the components' variances, (C,)
    DRAWS = 40  # uniform numbers, (K,) or (K, C)


# numba takes plain integers at module level as constants.
(
    NEXT, THREADS, LANES_, IMAGES, CHANNELS, LENGTH, COMPONENTS, TOGETHER, PIECE, SPANS, SIZE, PAST, RELU, WANTED,
    STEPS, EPS, SCRATCH, X, Y, G, POSTERIORS, MASK, LOGITS, CONSTANTS, TABLE, PARTIAL, WEIGHT, BIAS, CENTRE,
    MIXTURE_WEIGHT, MIXTURE_MEAN, MIXTURE_VAR, SHARES, MEAN, VAR, CONCENTRATION, KEPT, DWEIGHT, DBIAS, FLOOR, DRAWS,
) = (int(place) for place in Call)  # fmt: skip


@compiled
def place_of(a, row, rows, c):
    """Where number ``row`` of ``rows`` of channel c stands in a table."""
    lanes = a[LANES_]
    return (c // lanes * rows + row) * lanes + c % lanes


@compiled
def tiles_of(a):
    """How many tiles there are, and how many pieces an image has."""
    pieces = (a[LENGTH] + a[PIECE] - 1) // a[PIECE]
    return (a[IMAGES] + a[TOGETHER] - 1) // a[TOGETHER] * pieces, pieces


@compiled
def span_of(a):
    """The tiles of the next span that no thread has claimed: its number, the first, the one behind the last."""
    k = claim(a, NEXT)
    tiles, _ = tiles_of(a)
    if k >= a[SPANS]:
        return k, 0, 0
    return k, k * tiles // a[SPANS], (k + 1) * tiles // a[SPANS]


@compiled
def tile_of(a, tile):
    """A tile's images, from one up to another, and positions in each."""
    _, pieces = tiles_of(a)
    image, place = tile // pieces * a[TOGETHER], tile % pieces * a[PIECE]
    return image, min(image + a[TOGETHER], a[IMAGES]), place, min(place + a[PIECE], a[LENGTH])


@compiled
def blocks_of(a):
    """Blocks of 16 samples that an image has."""
    return (a[LENGTH] + LANES - 1) // LANES


@compiled
def clear(numbers, size):
    """Write zeros."""
    for i in range(size):
        numbers[i] = 0.0


@compiled
def count_tile(a, tile, sums, like):
    """Add the posteriors' sums, and behind them those of their squares, over a tile."""
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
