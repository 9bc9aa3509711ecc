# mypy: disable-error-code="no-untyped-def"
"""Device functions of y = scale (x - S) + bias: the same arithmetic for the forward pass and for the backward mask.

Per-channel numbers are scalars where a tile has one channel, else of shape (1, lanes): as a (1, 1) tensor they would
take a register for each of a thread's eight samples.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["channels_of", "divided", "numbers_of", "shifted", "transform"]


@triton.jit
def channels_of(strip, LANES: tl.constexpr):
    """Return the channels of a tile, int32."""
    if LANES == 1:
        return strip
    else:
        return strip * LANES + tl.arange(0, LANES)[None, :]


@triton.jit
def numbers_of(pointer, channel, channels, LANES: tl.constexpr):
    """Return one number per channel of a tile as float32, 0 beyond the last; ``pointer`` is (C,), floating point."""
    if LANES == 1:
        return tl.load(pointer + channel).to(tl.float32)
    else:
        return tl.load(pointer + channel, mask=channel < channels, other=0.0).to(tl.float32)


@triton.jit
def divided(d, eps, ROOT: tl.constexpr):
    """Return the divisor for deviation d, float32 (:mod:`gbn.kernels.epsilon`)."""
    if ROOT:
        # above 1e18 eps is negligible, and the square may be infinite
        return tl.where(d > 1e18, d, tl.sqrt_rn(d * d + eps))
    else:
        return d + eps


@triton.jit
def transform(
    weight,
    bias,
    d,
    channel,
    channels,
    eps,
    LANES: tl.constexpr,
    ROOT: tl.constexpr,
    WEIGHT: tl.constexpr,
    BIAS: tl.constexpr,
):
    """Return scale and bias of a tile's channels, float32; ``weight`` and ``bias``, (C,), are read if present."""
    divisor = divided(numbers_of(d, channel, channels, LANES), eps, ROOT)
    if WEIGHT:
        scale = tl.div_rn(numbers_of(weight, channel, channels, LANES), divisor)
    else:
        scale = 1.0 / divisor
    if BIAS:
        shift = numbers_of(bias, channel, channels, LANES)
    else:
        shift = scale  # not read
    return scale, shift


@triton.jit
def shifted(u, scale, shift, BIAS: tl.constexpr):
    """Return y before the activation, for u = x - S, float32: the sample equal to S gives the bias exactly."""
    if BIAS:
        return tl.fma(u, scale, shift)
    else:
        return u * scale
