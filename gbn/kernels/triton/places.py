# mypy: disable-error-code="no-untyped-def"
"""Device functions: the offset of a sample (see :mod:`.geometry`), and integer keys in the order of the samples."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["key", "middle", "place", "samples_of", "summed"]

#: Samples per row of a tile that has one channel: eight for each thread of 4 warps, so that a thread can hold a run
#: that one load brings, and row sums stay within a thread.
ROW = tl.constexpr(1024)


@triton.jit
def place(j, channel, stride, step, LENGTH: tl.constexpr):
    """Return the offset of sample j (int32) of a channel (int32), in values."""
    if LENGTH == 1:
        return j * stride + channel * step
    else:
        plane = (j.to(tl.uint32) // LENGTH).to(tl.int32)
        return j + plane * (stride - LENGTH) + channel * step


@triton.jit
def samples_of(tile, SAMPLES: tl.constexpr, LANES: tl.constexpr):
    """Return the samples of a tile: (SAMPLES, 1) if its columns are channels, (rows, ROW) for one channel."""
    if LANES > 1:
        return tile * SAMPLES + tl.arange(0, SAMPLES)[:, None]
    else:
        return tile * SAMPLES + tl.arange(0, SAMPLES // ROW)[:, None] * ROW + tl.arange(0, ROW)[None, :]


@triton.jit
def summed(values, LANES: tl.constexpr):
    """Return the sum over a tile's samples: (1, lanes), or a scalar for one channel."""
    if LANES > 1:
        return tl.sum(values, axis=0)[None, :]
    else:
        return tl.sum(tl.sum(values, axis=0), axis=0)


@triton.jit
def key(v, SHIFT: tl.constexpr):
    """Return int32 keys in the order of the float32 numbers v, with -0 and 0 the same.

    SHIFT drops the bits that a half-precision number widened to float32 does not have: 16 for bfloat16, 13 for
    float16.
    """
    bits = tl.where(v == 0.0, 0.0, v).to(tl.int32, bitcast=True)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)) >> SHIFT


@triton.jit
def middle(low, high, like):
    """Return a finite number between two float32 numbers, of which either may be infinite, in the dtype of
    ``like``.
    """
    inside = 0.5 * low + 0.5 * high
    far = float("inf")
    inside = tl.where(tl.abs(inside) < far, inside, tl.where(tl.abs(low) < far, low, high))
    inside = tl.where(tl.abs(inside) < far, inside, 0.0)
    return inside.to(like.dtype.element_ty).to(tl.float32)
