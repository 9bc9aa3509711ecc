# mypy: disable-error-code="no-untyped-def"
"""Device functions of y = scale (x - S) + bias: one arithmetic for the forward pass and for the backward's mask.

Per-channel numbers are scalars where a tile has one channel, else of shape (1, lanes): loaded as a (1, 1) tensor they
would take a register for each of a thread's eight samples.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["channels_of", "divided", "numbers_of", "shifted", "transform"]


@triton.jit
def channels_of(strip, LANES: tl.constexpr):
    """The channels of a tile."""
    if LANES == 1:
        return strip
    else:
        return strip * LANES + tl.arange(0, LANES)[None, :]


@triton.jit
def numbers_of(pointer, channel, channels, LANES: tl.constexpr):
    """One float32 number of each channel of a tile, 0 beyond the last."""
    if LANES == 1:
        return tl.load(pointer + channel).to(tl.float32)
    else:
        return tl.load(pointer + channel, mask=channel < channels, other=0.0).to(tl.float32)


@triton.jit
def divided(d, eps, ROOT: tl.constexpr):
    """What a deviation makes x be divided by (:mod:`gbn.kernels.epsilon`)."""
    if ROOT:
        return tl.where(
            d > 1e18, d, tl.sqrt_rn(d * d + eps)
        )  # there eps is nothing, and the square may be infinite
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
    """Scale and bias of a tile's channels; ``weight`` and ``bias`` are read where there are any."""
    divisor = divided(numbers_of(d, channel, channels, LANES), eps, ROOT)
    if WEIGHT:
        scale = tl.div_rn(numbers_of(weight, channel, channels, LANES), divisor)
    else:
        scale = 1.0 / divisor
    if BIAS:
        shift = numbers_of(bias, channel, channels, LANES)
    else:
        shift = scale  # not looked at
    return scale, shift


@triton.jit
def shifted(u, scale, shift, BIAS: tl.constexpr):
    """y before the activation, for u = x - S: S itself gives the bias exactly."""
    if BIAS:
        return tl.fma(u, scale, shift)
    else:
        return u * scale
