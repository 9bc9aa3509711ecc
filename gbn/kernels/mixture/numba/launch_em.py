"""From torch tensors to the compiled steps of expectation-maximization."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from gbn.kernels.mixture.gaussians import Mixture
from gbn.kernels.numba.launch import plain
from gbn.kernels.numba.simd import LANES

from .entries import name_of
from .launch import Shape, run, table_of

__all__ = ["entries", "run_fit"]

#: Samples per tile, see :mod:`.launch`.
_PIECE = 256


@functools.cache
def entries(components: int) -> tuple[str, ...]:
    """Return the entry points of a fit."""
    return (name_of("fit_joint", components),)


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
    shape = Shape(True, 1, channels, count, 1, _PIECE)
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
