"""From torch tensors to the compiled passes of a mixture for each channel."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gbn.kernels.checks import kept_numbers
from gbn.kernels.cpu.launch import plain
from gbn.kernels.cpu.simd import LANES
from gbn.kernels.mixture.gaussians import Mixture

from .channels import scratch_size
from .entries import name_of
from .launch import SHORT, Kept, Shape, past, run, table_of
from .turn import TURN, to_planes

__all__ = ["entries", "kept_sizes", "run_backward", "run_forward"]


def _planes(x: Tensor) -> Tensor:
    """x as (N, C, L) with whole planes; where it does not lie so, or planes are short, a copy (1, C, N L)."""
    if _is_as_it_lies(x):
        return x.flatten(2)
    return _turned(x)


def _turned(x: Tensor) -> Tensor:
    return to_planes(x.movedim(1, -1).reshape(-1, x.shape[1]).contiguous()).unsqueeze(0)


def _is_as_it_lies(x: Tensor) -> bool:
    return x.is_contiguous() and x.numel() >= SHORT * x.shape[0] * x.shape[1]


def _result(planes: Tensor, x: Tensor) -> Tensor:
    """Memory for a result of the passes: x's shape where x is read as it lies, that of ``planes`` otherwise."""
    return x.new_empty(x.shape) if _is_as_it_lies(x) else torch.empty_like(planes)


def _as_batch(result: Tensor, x: Tensor) -> Tensor:
    """The result in x's shape. No view: it leaves an autograd function, and may be changed in place after that."""
    if _is_as_it_lies(x):
        return result
    last = torch.empty((x.shape[0], *x.shape[2:], x.shape[1]), device="meta").movedim(-1, 1)
    return to_planes(result.squeeze(0), x.new_empty_strided(last.shape, last.stride()))


def _shape(planes: Tensor) -> Shape:
    images, channels, length = planes.shape
    return Shape(False, images, channels, length, 1, length)


def kept_sizes(shape: Sequence[int], components: int, relu: bool) -> tuple[int, int, int]:
    """As :func:`gbn.kernels.mixture.cpu.launch.kept_sizes`."""
    images, channels, length = shape[0], shape[1], math.prod(shape[2:])
    if length < SHORT:
        blocks = (images * length + LANES - 1) // LANES
    else:
        blocks = images * ((length + LANES - 1) // LANES)
    return 0, channels * blocks if relu else 0, channels * 3 * components


def entries(x: Tensor, components: int) -> tuple[str, ...]:
    """The entry points of a training step."""
    return _entries(_is_as_it_lies(x), components)


@functools.cache
def _entries(as_it_lies: bool, components: int) -> tuple[str, ...]:
    passes = tuple(name_of(name, components) for name in ("forward_channels", "backward_channels"))
    return passes if as_it_lies else (*passes, TURN)


def run_forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mixture: Mixture,
    centre: Tensor,
    eps: float,
    relu: bool,
) -> tuple[Tensor, tuple[Tensor, ...], Kept]:
    """As :func:`gbn.kernels.mixture.cpu.launch.run_forward`; no posteriors are kept."""
    planes = _planes(x)
    shape = _shape(planes)
    number, channels = mixture.mean.shape
    given = [plain(part) for part in (*mixture, centre)]
    weight, bias = plain(weight), plain(bias)
    y = _result(planes, x)
    mask = planes.new_empty(shape.masks, dtype=torch.int16) if relu else None
    logits = planes.new_empty((channels, 3, number))
    numbers = planes.new_empty((4, number, channels), dtype=torch.float64)
    moments = planes.new_empty((4, number, channels)).unbind()
    call = table_of(
        shape, number, eps, size=_size(shape, number), relu=relu, past=past(planes, shape), x=planes, y=y,
        mask=mask, logits=logits, weight=weight, bias=bias, centre=given[3], mixture_weight=given[0],
        mixture_mean=given[1], mixture_var=given[2], shares=moments[0], mean=moments[1], var=moments[2],
        concentration=moments[3], kept=numbers,
    )  # fmt: skip
    run("forward_channels", call, number, channels)
    assert given[3] is not None
    return _as_batch(y, x), moments, Kept(None, mask, logits, numbers, given[3])


def run_backward(
    g: Tensor, x: Tensor, weight: Tensor | None, kept: Sequence[Any], eps: float, relu: bool, wanted: bool
) -> tuple[Tensor | None, Tensor, Tensor]:
    """(dx where it is wanted, gradient to gain, gradient to bias)."""
    kept = Kept(*kept)
    planes = _planes(x)
    shape = _shape(planes)
    g = g.contiguous().flatten(2) if _is_as_it_lies(x) else _turned(g)
    weight, centre = plain(weight), plain(kept.centre)
    number, channels = kept.numbers.shape[1:]
    mask = kept_numbers(kept.mask, shape.masks, x, torch.int16) if relu else None
    logits = kept_numbers(kept.logits, channels * 3 * number, x)
    numbers = kept.numbers.contiguous()
    dx = _result(planes, x) if wanted else None
    to_weight, to_bias = planes.new_empty((2, channels)).unbind()
    call = table_of(
        shape, number, eps, size=_size(shape, number), relu=relu, past=past(planes, shape), wanted=wanted,
        x=planes, y=dx, g=g, mask=mask, logits=logits, weight=weight, centre=centre,
        kept=numbers, dweight=to_weight, dbias=to_bias,
    )  # fmt: skip
    run("backward_channels", call, number, channels)
    return None if dx is None else _as_batch(dx, x), to_weight, to_bias


def _size(shape: Shape, number: int) -> int:
    size = scratch_size(shape.blocks, number)
    return size + -size % (4 * LANES)
