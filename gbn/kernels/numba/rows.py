# mypy: ignore-errors
# Compiled by numba: a language of its own that only looks like Python.
"""Copy channels from a tensor to rows of float32 and back, for what the passes cannot read in place.

Channels that are adjacent in memory (:mod:`.layout`) move 16 at a time through transposed squares. Half precision is
widened on the way in and rounded on the way out.
"""

from __future__ import annotations

import numpy as np

from .compiling import compiled, inlined
from .convert import load_bfloat16, load_float16, store_bfloat16, store_float16, transpose
from .layout import PLANES
from .memory import load, load_first, prefetch, store, store_first
from .simd import LANES, splat

__all__ = [
    "BFLOAT16",
    "FLOAT16",
    "FLOAT32",
    "fetch",
    "load_part",
    "put_back",
    "store_part",
]

FLOAT32, BFLOAT16, FLOAT16 = range(3)

_ZERO = np.float32(0.0)


@inlined
def load_part(tensor, place, size, short):
    """Return ``size`` (at most 16) values from a place of a tensor; the other lanes are undefined.

    tensor      (float32 pointer, uint16 pointer, kind): any layout, flat
    place       int64, offset in values
    size        int64, 1 to 16
    short       (16,) uint16, scratch
    """
    wide, half, kind = tensor
    if kind == FLOAT32:
        if size == LANES:
            return load(wide, place)
        return load_first(wide, place, size, splat(_ZERO))
    source, begin = half, place
    if size < LANES:  # never read beyond the tensor
        for i in range(size):
            short[i] = half[place + i]
        source, begin = short, 0
    return load_bfloat16(source, begin) if kind == BFLOAT16 else load_float16(source, begin)


@inlined
def store_part(tensor, place, size, value, short):
    """Write the first ``size`` lanes to a place of a tensor, rounded to its kind.

    value       f32x16; the other arguments as in :func:`load_part`
    """
    wide, half, kind = tensor
    if kind == FLOAT32:
        if size == LANES:
            store(wide, place, value)
        else:
            store_first(wide, place, size, value)
        return
    target, begin = half, place
    # a half-precision store is always a whole vector: write it to scratch, then copy what belongs to the tensor
    if size < LANES:
        target, begin = short, 0
    if kind == BFLOAT16:
        store_bfloat16(target, begin, value)
    else:
        store_float16(target, begin, value)
    if size < LANES:
        for i in range(size):
            half[place + i] = short[i]


@compiled
def fetch(tensor, shape, c, many, rows, width, stage):
    """Copy ``many`` channels from c on to consecutive rows of ``width`` floats (the samples and up to 16 more).

    tensor      (float32 pointer, uint16 pointer, kind)
    shape       (layout, N, C, L) int64
    c, many     int64; many is at most 16 for LAST
    rows        (many, width) float32, written; (16, width) for LAST
    stage       scratch: (16, 16) float32 and (16,) uint16
    """
    wide, _, kind = tensor
    layout, images, channels, length = shape
    square, short = stage
    if layout == PLANES:
        for image in range(images):
            for j in range(many):
                source = (image * channels + c + j) * length
                target = j * width + image * length
                if kind == FLOAT32:
                    for i in range(0, length // LANES * LANES, LANES):
                        prefetch(wide, source + i + channels * length)
                        store(rows, target + i, load(wide, source + i))
                    if length % LANES:
                        i = length // LANES * LANES
                        # writes a whole vector: the next image, or the row's slack, takes what lies beyond
                        store(rows, target + i, load_first(wide, source + i, length - i, splat(_ZERO)))
                    continue
                for i in range(0, length, LANES):
                    size = min(LANES, length - i)
                    store(rows, target + i, load_part(tensor, source + i, size, short))
        return
    # LAST: 16 positions x 16 channels become 16 rows; only a full float32 square can be transposed in place
    n = images * length
    for i in range(0, n, LANES):
        size = min(LANES, n - i)
        if kind == FLOAT32 and many == LANES and size == LANES:
            transpose(wide, i * channels + c, channels, rows, i, width)
            continue
        for row in range(size):
            store(square, LANES * row, load_part(tensor, (i + row) * channels + c, many, short))
        transpose(square, 0, LANES, rows, i, width)


@compiled
def put_back(tensor, shape, c, many, rows, width, short):
    """Do the inverse of :func:`fetch` for the layout PLANES; what rows hold beyond the samples is left out.

    rows        (many, width) float32
    short       (16,) uint16, scratch; the other arguments as in :func:`fetch`
    """
    _, images, channels, length = shape
    for image in range(images):
        for j in range(many):
            target = (image * channels + c + j) * length
            source = j * width + image * length
            for i in range(0, length, LANES):
                size = min(LANES, length - i)
                store_part(tensor, target + i, size, load(rows, source + i), short)
