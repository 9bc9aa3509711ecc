# mypy: disable-error-code="no-untyped-def"
"""Kernels that bracket each wanted order statistic by two of a sample: a few thousand values of each channel.

The sample is stratified (one value from each of m equal runs, its place in the run hashed), so its ranks scatter less
than those of independent draws, and no period of the data can resonate with it. A rank that falls outside its bracket
anyway is found by :mod:`.settle` in the whole channel: a wrong bracket costs time, never exactness.
"""

from __future__ import annotations

import math

import triton
import triton.language as tl

from .places import key, place

__all__ = ["draw", "edges", "sample_ranks", "sample_size"]

#: Standard deviations of a sample rank on each side: with independent draws a bracket misses once in 16,000 times.
_REACH = 4.0


def sample_size(n: int) -> int:
    """Return the size of a channel's sample, a power of 2: a larger one narrows brackets and takes longer to draw."""
    return 1 << min(14, max(11, (n // 32).bit_length()))


def sample_ranks(rank: int, n: int, m: int) -> tuple[int, int]:
    """Return the ranks, among m of n values sampled, that bracket a rank; below 1 and above m there is no bound."""
    center = m * (rank - 0.5) / n
    reach = _REACH * math.sqrt(max(center * (1.0 - center / m), 0.0)) + 2.0
    return max(0, math.floor(center - reach)), min(m + 1, math.ceil(center + reach) + 1)


@triton.jit(do_not_specialize=["strips"])
def draw(
    x,
    sample,
    n,
    stride,
    step,
    channels,
    strips,
    LENGTH: tl.constexpr,
    LANES: tl.constexpr,
    M: tl.constexpr,
    DRAWN: tl.constexpr,
):
    """Write the samples; a program writes DRAWN values of LANES channels.

    x                               (N, C, *spatial) float32, bfloat16 or float16, addressed as in :mod:`.geometry`
    sample                          (C, M) in x's dtype, written
    n, stride, step, channels,
    strips                          int32, of :class:`.geometry.View`
    """
    pid = tl.program_id(0)
    strip, part = pid % strips, pid // strips
    channel = strip * LANES + tl.arange(0, LANES)[None, :]
    i = (part * DRAWN + tl.arange(0, DRAWN)[:, None]).to(tl.int64)
    first = i * n // M
    run = tl.maximum((i + 1) * n // M - first, 1)
    # Knuth's multiplicative hash picks the place within run i; int64, since i * n would overflow
    j = first + ((i * 2654435761) >> 7) % run
    here = (j < n) & (channel < channels)
    v = tl.load(x + place(j.to(tl.int32), channel, stride, step, LENGTH), mask=here, other=0.0)
    tl.store(sample + channel * M + i, v, mask=here)


@triton.jit(do_not_specialize=["counters"])
def edges(
    sample,
    targets,
    brackets,
    kept,
    channels,
    counters,
    ranks,
    M: tl.constexpr,
    SHIFT: tl.constexpr,
):
    """Write the brackets: per rank the sample's order statistics of two target ranks.

    sample          (C, M) float32, bfloat16 or float16
    targets         (ranks, 2) int32, of :func:`sample_ranks`
    brackets        (ranks, 2, C) float32, written
    kept            (counters, C) int32: set to 0 for :mod:`.scan` by the programs of the first rank

    A program handles one rank of one channel.
    """
    pid = tl.program_id(0)
    channel, r = pid // ranks, pid % ranks
    v = tl.load(sample + channel * M + tl.arange(0, M)).to(tl.float32)
    k = key(v, SHIFT)
    target_low, target_high = tl.load(targets + 2 * r), tl.load(targets + 2 * r + 1)
    least, greatest = tl.min(k, axis=0), tl.max(k, axis=0)
    low, low_end, high, high_end = least, greatest, least, greatest
    # bisect the keys for both ends at once; the sample stays in registers, so a step is one reduction each
    while (low < low_end) | (high < high_end):
        half = (low & low_end) + ((low ^ low_end) >> 1)  # the mean, rounded down, without overflow
        enough = tl.sum((k <= half).to(tl.int32), axis=0) >= target_low
        low_end = tl.where(enough, half, low_end)
        low = tl.where(enough, low, tl.minimum(half + 1, low_end))
        half = (high & high_end) + ((high ^ high_end) >> 1)
        enough = tl.sum((k <= half).to(tl.int32), axis=0) >= target_high
        high_end = tl.where(enough, half, high_end)
        high = tl.where(enough, high, tl.minimum(half + 1, high_end))
    # from key back to value: all samples with the key are equal, since keys drop only bits that the dtype lacks
    none = -float("inf")
    edge = tl.max(tl.where(k == low, v, none), axis=0)
    tl.store(brackets + 2 * r * channels + channel, tl.where(target_low < 1, none, edge))
    edge = tl.max(tl.where(k == high, v, none), axis=0)
    tl.store(brackets + (2 * r + 1) * channels + channel, tl.where(target_high > M, -none, edge))
    if r == 0:
        for i in range(counters):
            tl.store(kept + i * channels + channel, 0)
