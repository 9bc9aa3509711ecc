"""From torch tensors to the compiled passes and the compiled fit of one mixture for the whole vector of channels."""

from __future__ import annotations

import ctypes
import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gbn.kernels.checks import kept_numbers
from gbn.kernels.mixture.gaussians import Mixture
from gbn.kernels.numba.launch import address, plain, room, run_entry
from gbn.kernels.numba.layout import LAST, layout, layout_of, like
from gbn.kernels.numba.simd import LANES

from .call import Call
from .entries import entry, name_of

__all__ = [
    "SHORT",
    "Kept",
    "Shape",
    "entries",
    "fit_entries",
    "kept_sizes",
    "run_backward",
    "run_fit",
    "run_forward",
]

#: Values per tile: those of x stay in a core's level-2 cache.
_TILE = 1 << 16
#: Positions per tile: their posteriors stay in the level-1 cache along with what streams through.
_MOST_POSITIONS = 1024
#: The same where channels are last, so that the lines that 16 channels at a time share with others stay there too.
_MOST_POSITIONS_LAST = 256
_MOST_SPANS = 32
#: As in :mod:`gbn.kernels.numba.launch`.
_PAST = 2 << 20
#: Planes shorter than this leave most lanes of a vector empty: channels are then moved last.
SHORT = 12


class Shape(NamedTuple):
    """The memory layout of a batch, and how it is cut into tiles."""

    last: bool
    images: int
    channels: int
    length: int  # positions per image; all positions where channels are last
    together: int  # images per tile
    piece: int  # positions of an image per tile

    @property
    def lanes(self) -> int:
        """Number of adjacent channels in tables."""
        return LANES if self.last else 1

    @property
    def blocks(self) -> int:
        """Number of blocks of 16 samples."""
        return self.images * -(-self.length // LANES)

    @property
    def masks(self) -> int:
        """Number of vectors of y."""
        if self.last:
            return self.images * self.length * -(-self.channels // LANES)
        return self.channels * self.blocks

    @property
    def spans(self) -> int:
        """Number of runs of tiles; it does not depend on the threads, so neither do the results."""
        tiles = -(-self.images // self.together) * -(-self.length // self.piece)
        return min(_MOST_SPANS, tiles)

    def width(self, rows: int) -> int:
        """Return the numbers in a table of ``rows`` per channel."""
        return -(-self.channels // self.lanes) * self.lanes * rows


def shape_of(x: Tensor) -> tuple[Tensor, Shape]:
    """Return x, copied if no pass can read it in place, and its shape."""
    images, channels = x.shape[:2]
    length = x.numel() // (images * channels)
    if length < SHORT:  # even a single channel, for which both layouts are the same: kept_sizes relies on it
        x, found = x.movedim(1, -1).contiguous().movedim(-1, 1), LAST
    else:
        x, found = layout_of(x)
    last = found == LAST
    if last:
        images, length = 1, images * length
    most = _MOST_POSITIONS_LAST if last else _MOST_POSITIONS
    most = max(LANES, min(most, _TILE // channels // LANES * LANES))
    together = 1 if last else max(1, most // (-(-length // LANES) * LANES))
    return x, Shape(last, images, channels, length, together, length if together > 1 else min(length, most))


def entries(x: Tensor, components: int) -> tuple[str, ...]:
    """Return the entry points of a training step."""
    short = x.numel() < SHORT * x.shape[0] * x.shape[1]
    return _entries(short or layout(x) == LAST, components)


@functools.cache
def _entries(last: bool, components: int) -> tuple[str, ...]:
    after = "_last" if last else ""
    passes = [f"{name}{after}" for name in ("moments", "normalize", "reduce", "differentiate")]
    return tuple(name_of(name, components) for name in (*passes, "logits", "measured", "differentiated"))


@functools.cache
def fit_entries(components: int) -> tuple[str, ...]:
    """Return the entry points of a fit by expectation-maximization."""
    return (name_of("fit_joint", components),)


def table_of(shape: Shape, components: int, eps: float, **places: int | Tensor | None) -> Call:
    """Return the table of an entry point; ``places`` are fields of :class:`.call.Call`.

    The caller keeps the tensors alive while the table is used.
    """
    numbers = {name: value if isinstance(value, int) else address(value) for name, value in places.items()}
    return Call(
        lanes=shape.lanes,
        images=shape.images,
        channels=shape.channels,
        length=shape.length,
        components=components,
        together=shape.together,
        piece=shape.piece,
        spans=shape.spans,
        size=4 * LANES * (LANES + 1) * components,
        eps=eps,
        **numbers,
    )


def run(name: str, table: Call, components: int, shares: int = 1) -> None:
    """Call an entry point from as many threads as there are, at most one per share of the work."""
    threads = min(torch.get_num_threads(), shares)
    table.next = table.threads = 0
    table.scratch = room(table.size * threads + 64)
    run_entry(entry(name, components), ctypes.addressof(table), threads)


class Kept(NamedTuple):
    """The tensors saved besides x, gain and bias: K numbers per sample, a bit per value, tables."""

    posteriors: Tensor | None
    mask: Tensor | None
    logits: Tensor
    numbers: Tensor  # float64 (4, K, C): divisor, mean from the center, variance, factor
    center: Tensor


def kept_sizes(shape: Sequence[int], components: int, relu: bool) -> tuple[int, int, int]:
    """Return the sizes of posteriors, bits and logits in :class:`Kept`, large enough for any memory format.

    Sizes may be symbols of a tracer, which support sums and products.
    """
    images, channels, length = shape[0], shape[1], math.prod(shape[2:])
    across = (channels + LANES - 1) // LANES  # vectors of channels
    if length < SHORT:  # such planes are moved last, see shape_of
        blocks, masks = (images * length + LANES - 1) // LANES, images * length * across
    else:
        blocks = images * ((length + LANES - 1) // LANES)
        masks = LANES * across * blocks
    return blocks * components * LANES, masks if relu else 0, LANES * across * (2 * components + 1)


def run_forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mixture: Mixture,
    center: Tensor,
    eps: float,
    relu: bool,
) -> tuple[Tensor, tuple[Tensor, ...], Kept]:
    """Return y, (l, m, q, concentration), and what :func:`run_backward` needs; float32 throughout."""
    x, shape = shape_of(x)
    weight, bias = plain(weight), plain(bias)
    number, channels = mixture.mean.shape
    given = [plain(part) for part in (*mixture, center)]
    y = torch.empty_like(x)
    posteriors = x.new_empty((shape.blocks, number, LANES))
    mask = x.new_empty(shape.masks, dtype=torch.int16) if relu else None
    logits, table = x.new_zeros(shape.width(2 * number + 1)), x.new_zeros(shape.width(2 * number + 1))
    numbers = x.new_empty((4, number, channels), dtype=torch.float64)
    shares, concentration = x.new_empty((2, number, 1)).unbind()
    mean, var = x.new_empty((2, number, channels)).unbind()
    constants, partial = x.new_empty(number), _partial(x, shape, number)
    call = table_of(
        shape, number, eps, relu=relu, past=past(x, shape), x=x, y=y, posteriors=posteriors, mask=mask,
        logits=logits, constants=constants, table=table, partial=partial, weight=weight, bias=bias,
        center=given[3], mixture_weight=given[0], mixture_mean=given[1], mixture_var=given[2],
        shares=shares, mean=mean, var=var, concentration=concentration, kept=numbers,
    )  # fmt: skip
    after = "_last" if shape.last else ""
    run("logits", call, number)
    run("moments" + after, call, number, shape.spans)
    run("measured", call, number)
    run("normalize" + after, call, number, shape.spans)
    assert given[3] is not None
    return y, (shares, mean, var, concentration), Kept(posteriors, mask, logits, numbers, given[3])


def run_backward(
    g: Tensor, x: Tensor, weight: Tensor | None, kept: Sequence[Any], eps: float, relu: bool, wanted: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """Return (dx if it is needed, gradient of gain, gradient of bias)."""
    kept = Kept(*kept)
    x, shape = shape_of(x)
    g = like(g, x, LAST if shape.last else 1 - LAST)
    weight, center = plain(weight), plain(kept.center)
    number, channels = kept.numbers.shape[1:]
    posteriors = kept_numbers(kept.posteriors, shape.blocks * number * LANES, x)
    mask = kept_numbers(kept.mask, shape.masks, x, torch.int16) if relu else None
    logits = kept_numbers(kept.logits, shape.width(2 * number + 1), x)
    numbers = kept.numbers.contiguous()
    dx = torch.empty_like(x) if wanted else None
    to_weight, to_bias = x.new_empty((2, channels)).unbind()
    table, partial = x.new_zeros(shape.width(3 * number + 1)), _partial(x, shape, number)
    call = table_of(
        shape, number, eps, relu=relu, past=past(x, shape), x=x, y=dx, g=g, posteriors=posteriors,
        mask=mask, logits=logits, table=table, partial=partial, weight=weight, center=center,
        kept=numbers, dweight=to_weight, dbias=to_bias,
    )  # fmt: skip
    after = "_last" if shape.last else ""
    run("reduce" + after, call, number, shape.spans)
    run("differentiated", call, number)
    if wanted:
        run("differentiate" + after, call, number, shape.spans)
    return dx, to_weight, to_bias


def _partial(x: Tensor, shape: Shape, number: int) -> Tensor:
    return x.new_empty((shape.spans, shape.channels + 1, 2, number), dtype=torch.float64)


def past(x: Tensor, shape: Shape) -> bool:
    """Return whether results are written past the caches: only whole vectors at multiples of 64 bytes can be."""
    run = shape.channels if shape.last else shape.length
    return run % LANES == 0 and 4 * x.numel() >= _PAST


def run_fit(
    samples: Tensor,
    start: Mixture,
    steps: int,
    floor: Tensor,
    draws: Tensor | None,
    mean: Tensor,
    var: Tensor,
) -> Mixture:
    """See :func:`gbn.kernels.mixture.fitted`; ``mean`` and ``var``, (C,) each, are the samples'; all float32."""
    count, channels = samples.shape
    number = start.mean.shape[0]
    parts = [part.to(torch.float32).contiguous() for part in start]
    given = [plain(one) for one in (floor, draws, mean, var)]
    mixture = Mixture(parts[0].clone(), parts[1].clone(), torch.maximum(parts[2], floor.to(torch.float32)))
    x = samples.contiguous()
    shape = Shape(True, 1, channels, count, 1, _MOST_POSITIONS_LAST)
    blocks = -(-count // LANES)
    sums = 2 * number * (channels + 1)
    posteriors = samples.new_empty((blocks, number, LANES))
    logits, constants = samples.new_zeros(shape.width(2 * number + 1) + 3 * number), samples.new_empty(number)
    partial = samples.new_empty(sums + count, dtype=torch.float64)
    call = table_of(
        shape, number, 0.0, steps=steps, x=x, posteriors=posteriors, logits=logits, constants=constants,
        partial=partial, center=given[2], var=given[3], floor=given[0], draws=given[1],
        mixture_weight=mixture.weight, mixture_mean=mixture.mean, mixture_var=mixture.var,
    )  # fmt: skip
    run("fit_joint", call, number)
    return mixture
