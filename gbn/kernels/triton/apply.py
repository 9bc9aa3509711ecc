# mypy: disable-error-code="no-untyped-def"
"""The kernel that writes y when S and D are known and nothing else is left to find."""

from __future__ import annotations

import triton
import triton.language as tl

from .affine import channels_of, numbers_of, shifted, transform
from .places import place, samples_of

__all__ = ["apply"]


@triton.jit(do_not_specialize=["strips"])
def apply(
    x,
    y,
    s,
    d,
    weight,
    bias,
    eps,
    n,
    stride,
    step,
    channels,
    strips,
    LENGTH: tl.constexpr,
    SAMPLES: tl.constexpr,
    LANES: tl.constexpr,
    RELU: tl.constexpr,
    ROOT: tl.constexpr,
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
):
    """Write y, one tile per program.

    x, y                            (N, C, *spatial) float32, bfloat16 or float16, addressed as in :mod:`.geometry`
    s, d                            (C,) float32
    weight, bias                    (C,) floating point, read if WEIGHT, BIAS
    eps                             float
    n, stride, step, channels,
    strips                          int32, of :class:`.geometry.View`
    LENGTH, SAMPLES, LANES          the view's length, and the tile
    RELU, ROOT, WEIGHT, BIAS        flags
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
    at = numbers_of(s, channel, channels, LANES)
    scale, shift = transform(weight, bias, d, channel, channels, eps, LANES, ROOT, WEIGHT, BIAS)
    out = shifted(v - at, scale, shift, BIAS)
    if RELU:
        out = tl.where(out <= 0.0, 0.0, out)  # a maximum would lose NaN
    tl.store(y + offset, out.to(y.dtype.element_ty), mask=mask)
