"""The fused kernels' side of autograd, and when they serve: in training, on the CPU, without posteriors' gradient.

A form's kernels (:mod:`gbn.kernels.mixture.cpu`) offer two functions of plain float32 tensors:

* ``run_forward(x, weight, bias, mixture, centre, eps, relu) -> (y, moments, kept)``
* ``run_backward(g, x, weight, kept, eps, relu, wanted) -> (dx or None, dweight, dbias)``

Half precision is widened before and rounded after. ``kept`` is a tuple of tensors or Nones.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gbn import kernels
from gbn.kernels.mixture.gaussians import Mixture
from gbn.risk.order import traced

__all__ = ["MOST_COMPONENTS", "Normalize", "fit", "serves", "serves_fit"]

#: Beyond as many components their vectors would not fit a processor's registers.
MOST_COMPONENTS = 8

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_FORMS = {True: "launch", False: "launch_channels"}


def serves(x: Tensor, components: int, posterior_gradient: bool) -> bool:
    """Whether the fused kernels compute this: not in a compiler's trace, nor under ``GBN_KERNELS=reference``."""
    return (
        not posterior_gradient
        and x.device.type == "cpu"
        and x.dtype in _DTYPES
        and x.numel() > 0
        and components <= MOST_COMPONENTS
        and not traced(x)
        and kernels.selected("cpu") == "numba"
    )


def serves_fit(samples: Tensor, components: int) -> bool:
    """Whether compiled steps of expectation and maximization serve; see :func:`serves`."""
    return serves(samples, components, False) and samples.dtype == torch.float32


def fit(
    samples: Tensor,
    start: Mixture,
    steps: int,
    floor: Tensor,
    draws: Tensor | None,
    mean: Tensor,
    var: Tensor,
) -> Mixture:
    """:func:`gbn.kernels.mixture.fitted` by one compiled call."""
    from gbn.kernels.mixture.cpu.launch_em import run_fit

    return run_fit(samples, start, steps, floor, draws, mean, var)


def _form(joint: bool) -> Any:
    # numba is imported when it is first needed: a machine without it runs the eager kernels
    return import_module(f"gbn.kernels.mixture.cpu.{_FORMS[joint]}")


class Normalize(torch.autograd.Function):
    """See :func:`gbn.kernels.mixture.normalize_by_batch`; kept: x, posteriors or what makes them, a bit a value."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mixture_weight: Tensor,
        mixture_mean: Tensor,
        mixture_var: Tensor,
        centre: Tensor,
        eps: float,
        relu: bool,
    ) -> tuple[Tensor, ...]:
        """(y, l, m, q, sum of squared weights)."""
        ctx.joint = mixture_weight.shape[1] == 1
        mixture = Mixture(mixture_weight, mixture_mean, mixture_var)
        y, moments, kept = _form(ctx.joint).run_forward(
            x.to(torch.float32), weight, bias, mixture, centre, eps, relu
        )
        ctx.mark_non_differentiable(*moments)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight, bias, *kept)
        ctx.eps, ctx.relu = eps, relu
        return (_as(y, x), *moments)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        """To x, weight and bias."""
        if grad is None:
            return (None,) * 9
        x, weight, bias, *kept = ctx.saved_tensors
        dx, to_weight, to_bias = _form(ctx.joint).run_backward(
            grad.to(torch.float32),
            x.to(torch.float32),
            weight,
            kept,
            ctx.eps,
            ctx.relu,
            ctx.needs_input_grad[0],
        )
        return (
            None if dx is None else _as(dx, x),
            to_weight.to(weight.dtype) if ctx.needs_input_grad[1] else None,
            to_bias.to(bias.dtype) if ctx.needs_input_grad[2] else None,
            *[None] * 6,
        )


def _as(result: Tensor, x: Tensor) -> Tensor:
    """A result with the dtype and the memory format of x."""
    like = torch.empty_like(x)
    if result.stride() == like.stride():
        return result.to(x.dtype)
    return like.copy_(result)
