"""From torch tensors to the compiled steps of expectation and maximization."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from gbn.kernels.cpu.launch import plain
from gbn.kernels.cpu.simd import LANES
from gbn.kernels.mixture.gaussians import Mixture

from .channels import scratch_size
from .entries import name_of
from .launch import Shape, run, table_of
from .turn import TURN, to_planes

__all__ = ["entries", "run_fit"]

#: Samples of a tile, see :mod:`.launch`.
_PIECE = 256


@functools.cache
def entries(components: int, joint: bool) -> tuple[str, ...]:
    """The entry points of a fit."""
    return (name_of("fit_joint", components),) if joint else (name_of("fit_channels", components), TURN)


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
    joint = start.weight.shape[1] == 1
    parts = [part.to(torch.float32).contiguous() for part in start]
    given = [plain(one) for one in (floor, draws, mean, var)]
    mixture = Mixture(parts[0].clone(), parts[1].clone(), torch.maximum(parts[2], floor.to(torch.float32)))
    x = samples.contiguous() if joint else to_planes(samples.contiguous())
    shape = Shape(joint, 1, channels, count, 1, _PIECE)
    blocks = -(-count // LANES)
    sums = 2 * number * (channels + 1) if joint else 4 * number
    posteriors = samples.new_empty((blocks, number, LANES))
    logits, constants = samples.new_zeros(shape.width(2 * number + 1) + 3 * number), samples.new_empty(number)
    partial = samples.new_empty(sums + count, dtype=torch.float64)
    call = table_of(
        shape, number, 0.0, size=4 * LANES * (LANES + 1) * number if joint else scratch_size(blocks, number),
        steps=steps, x=x, posteriors=posteriors, logits=logits, constants=constants, partial=partial, centre=given[2],
        var=given[3], floor=given[0], draws=given[1], mixture_weight=mixture.weight, mixture_mean=mixture.mean,
        mixture_var=mixture.var,
    )  # fmt: skip
    run("fit_joint" if joint else "fit_channels", call, number)
    return mixture
