# mypy: ignore-errors
# Compiled by numba: a language of its own that only looks like Python.
"""Write the record of a channel (:mod:`gbn.kernels.plan`), and read it back as one function of x."""

from __future__ import annotations

import numpy as np

from gbn.kernels.plan import HEAD, POINT

from .compiling import compiled

__all__ = ["merge", "put_point"]


@compiled
def put_point(record, j, b, at, rise, bend, span):
    """Write breakpoint j.

    record              (HEAD + POINT * points,) float32
    j                   int64, index of the breakpoint
    b, at, rise, bend,
    span                float64 or float32, rounded to float32 on the way in
    """
    place = HEAD + POINT * j
    record[place] = b
    record[place + 1] = at
    record[place + 2] = rise
    record[place + 3] = bend
    record[place + 4] = span


@compiled
def merge(record, points, s_points, s_factor, d_factor, unit, merged):
    """Merge the derivatives of S and D, each times its factor, into one record.

    ``merged`` starts with base, slope, shift, multiple; the breakpoints stay where they are. Slopes, bends and spans
    refer to distances in the channel's unit (:func:`.call.affine`).

    record, merged      (HEAD + POINT * points,) float32
    points, s_points    int64, breakpoints in all, and those of S
    s_factor, d_factor  float64
    unit                float32, a power of two
    """
    # A weighted sum of piecewise linear functions is one as well: bases and slopes add up, all breakpoints stay.
    # A distance of 1 in x is a distance of ``unit`` in the channel's unit: slopes shrink by it, spans grow.
    size = 1.0 / np.float64(unit)
    merged[0] = record[0] * s_factor + record[2] * d_factor
    merged[1] = (record[1] * s_factor + record[3] * d_factor) * size
    merged[2] = record[4]
    merged[3] = record[5] * s_factor + record[6] * d_factor
    for j in range(points):
        factor = s_factor if j < s_points else d_factor
        place = HEAD + POINT * j
        merged[place] = record[place]
        merged[place + 1] = record[place + 1] * factor
        merged[place + 2] = record[place + 2] * factor
        merged[place + 3] = record[place + 3] * factor * size
        merged[place + 4] = record[place + 4] * unit
