# mypy: disable-error-code="no-untyped-def"
"""The backward kernels: sums over a channel, the merging of the record's two functions, and the pass that writes dx.

    dx = scale (g' - f(x)),   f = f_S sum g' + f_D slope sum g' x_hat,   g' = g where the ReLU let y pass

so f is one record as well, whose coefficients are merged per channel.
"""

from __future__ import annotations

import triton
import triton.language as tl

from gbn.kernels import plan

from .affine import channels_of, divided, numbers_of, shifted, transform
from .places import place, samples_of, summed

__all__ = ["MERGED", "gradient", "merge", "reduce"]

#: Numbers of a merged record before its breakpoints: base and slope.
MERGED = 2
_MERGED = tl.constexpr(MERGED)
_HEAD = tl.constexpr(plan.HEAD)
_POINT = tl.constexpr(plan.POINT)


@triton.jit
def _passed(g, u, scale, shift, RELU: tl.constexpr, BIAS: tl.constexpr):
    """Return g where the ReLU let y pass, 0 elsewhere; a NaN passes, as it did in the forward pass."""
    if RELU:
        return tl.where(shifted(u, scale, shift, BIAS) <= 0.0, 0.0, g)
    else:
        return g


@triton.jit(do_not_specialize=["strips", "tiles", "chunks", "per_chunk"])
def reduce(
    g,
    x,
    s,
    d,
    weight,
    bias,
    partial,
    eps,
    n,
    stride,
    step,
    channels,
    strips,
    tiles,
    chunks,
    per_chunk,
    LENGTH: tl.constexpr,
    SAMPLES: tl.constexpr,
    LANES: tl.constexpr,
    RELU: tl.constexpr,
    ROOT: tl.constexpr,
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
):
    """Write the sums of g' and of g' (x - S), one program per chunk of a strip.

    g, x                            (N, C, *spatial) float32, bfloat16 or float16, addressed as in :mod:`.geometry`
    s, d                            (C,) float32
    weight, bias                    (C,) floating point, read if WEIGHT, BIAS
    partial                         (2, C, chunks) float32, written
    eps                             float
    n, stride, step, channels,
    strips, tiles, chunks,
    per_chunk                       int32, of :class:`.geometry.View`
    """
    pid = tl.program_id(0)
    strip, chunk = pid % strips, pid // strips
    channel = channels_of(strip, LANES)
    at = numbers_of(s, channel, channels, LANES)
    scale, shift = transform(weight, bias, d, channel, channels, eps, LANES, ROOT, WEIGHT, BIAS)
    total = tl.zeros([1, LANES], tl.float32)
    moment = tl.zeros([1, LANES], tl.float32)
    for tile in range(chunk * per_chunk, tl.minimum(tiles, (chunk + 1) * per_chunk)):
        j = samples_of(tile, SAMPLES, LANES)
        mask = j < n
        if LANES > 1:
            mask = mask & (channel < channels)
        offset = place(j, channel, stride, step, LENGTH)
        u = tl.load(x + offset, mask=mask, other=0.0).to(tl.float32) - at
        dy = tl.load(g + offset, mask=mask, other=0.0).to(tl.float32)
        dy = _passed(dy, u, scale, shift, RELU, BIAS)
        total += summed(dy, LANES)
        # u of a missing sample is -S, not 0
        moment += summed(tl.where(mask, dy * u, 0.0), LANES)
    flat = strip * LANES + tl.arange(0, LANES)[None, :]
    tl.store(partial + flat * chunks + chunk, total, mask=flat < channels)
    tl.store(partial + (channels + flat) * chunks + chunk, moment, mask=flat < channels)


@triton.jit(do_not_specialize=["chunks"])
def merge(
    partial,
    d,
    record,
    merged,
    dweight,
    dbias,
    eps,
    channels,
    chunks,
    CHUNKS: tl.constexpr,
    WIDTH: tl.constexpr,
    S_POINTS: tl.constexpr,
    POINTS: tl.constexpr,
    ROOT: tl.constexpr,
):
    """Write dweight, dbias and the merged record of one channel per program.

    partial         (2, C, chunks) float32, of :func:`reduce`
    d               (C,) float32
    record          (C, WIDTH) float32
    merged          (MERGED + 5 points, C) float32, written: a row per number, so that a column tile reads whole lines
    dweight, dbias  (C,) float32, written
    """
    channel = tl.program_id(0)
    c = tl.arange(0, CHUNKS)
    there = c < chunks
    # chunks in a fixed order, in float64: the partial sums may cancel
    total = tl.sum(tl.load(partial + channel * chunks + c, mask=there, other=0.0).to(tl.float64), axis=0)
    second = partial + (channels + channel) * chunks
    moment = tl.sum(tl.load(second + c, mask=there, other=0.0).to(tl.float64), axis=0)
    value = tl.load(d + channel)
    divisor = divided(value, eps, ROOT)
    moment = moment / divisor.to(tl.float64)
    tl.store(dweight + channel, moment.to(tl.float32))
    tl.store(dbias + channel, total.to(tl.float32))
    # dweight is sum g' x_hat; D enters through D', whose derivative is D / D' where D' is a root
    of_d = moment
    if ROOT:
        of_d = moment * (value / divisor).to(tl.float64)
    row, out = record + channel * WIDTH, merged + channel
    for i in tl.static_range(2):  # base, slope
        tl.store(out + i * channels, (tl.load(row + i) * total + tl.load(row + 2 + i) * of_d).to(tl.float32))
    for i in tl.static_range(POINTS):
        factor = total
        if i >= S_POINTS:
            factor = of_d
        for k in tl.static_range(_POINT):
            number = tl.load(row + (_HEAD + _POINT * i + k))
            if (k >= 1) and (k <= 3):  # at, rise, bend; not b, not span
                number = (number * factor).to(tl.float32)
            tl.store(out + (_MERGED + _POINT * i + k) * channels, number)


@triton.jit(do_not_specialize=["strips"])
def gradient(
    g,
    x,
    dx,
    s,
    d,
    weight,
    bias,
    merged,
    eps,
    n,
    stride,
    step,
    channels,
    strips,
    LENGTH: tl.constexpr,
    SAMPLES: tl.constexpr,
    LANES: tl.constexpr,
    POINTS: tl.constexpr,
    BENDS: tl.constexpr,
    RELU: tl.constexpr,
    ROOT: tl.constexpr,
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
):
    """Write dx, one tile per program.

    g, x, dx                        (N, C, *spatial) float32, bfloat16 or float16, addressed as in :mod:`.geometry`
    s, d                            (C,) float32
    weight, bias                    (C,) floating point, read if WEIGHT, BIAS
    merged                          (MERGED + 5 points, C) float32, of :func:`merge`
    eps                             float
    n, stride, step, channels,
    strips                          int32, of :class:`.geometry.View`
    """
    pid = tl.program_id(0)
    strip, tile = pid % strips, pid // strips
    channel = channels_of(strip, LANES)
    j = samples_of(tile, SAMPLES, LANES)
    mask = j < n
    if LANES > 1:
        mask = mask & (channel < channels)
    offset = place(j, channel, stride, step, LENGTH)
    v = tl.load(x + offset, mask=mask, other=0.0).to(tl.float32)
    dy = tl.load(g + offset, mask=mask, other=0.0).to(tl.float32)
    at = numbers_of(s, channel, channels, LANES)
    scale, shift = transform(weight, bias, d, channel, channels, eps, LANES, ROOT, WEIGHT, BIAS)
    u = v - at
    dy = _passed(dy, u, scale, shift, RELU, BIAS)
    base = numbers_of(merged, channel, channels, LANES)
    slope = numbers_of(merged + channels, channel, channels, LANES)
    f = tl.fma(slope, u, base)
    for i in tl.static_range(POINTS):
        point = merged + (_MERGED + _POINT * i) * channels
        b = numbers_of(point, channel, channels, LANES)
        there = numbers_of(point + channels, channel, channels, LANES)
        rise = numbers_of(point + 2 * channels, channel, channels, LANES)
        # a NaN is on no side of b; u carries it into f
        if i < BENDS:
            bend = numbers_of(point + 3 * channels, channel, channels, LANES)
            span = numbers_of(point + 4 * channels, channel, channels, LANES)
            f += tl.where(v > b, tl.fma(bend, tl.minimum(v - b, span), rise), tl.where(v == b, there, 0.0))
        else:
            f += tl.where(v > b, rise, tl.where(v == b, there, 0.0))
    tl.store(dx + offset, (scale * (dy - f)).to(dx.dtype.element_ty), mask=mask)
