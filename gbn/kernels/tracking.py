"""A pair's forward pass with batch normalization's backward pass.

With k = (S - mu) / sigma and c = D / sigma, a pair is ``(x - mu - k sigma) / (c sigma)``. Here k and c are constants
of the backward pass, so that the gradient with respect to x passes through mu and sigma only:

    dx = weight / c * (g - mean(g) - x_hat mean(g x_hat)) / sigma,        x_hat = (x - mu) / sigma

The result, and the gradients with respect to gain, bias and gate, are the pair's. eps: sigma is BatchNorm's
``sqrt(var + eps)``, and c sigma is the pair's own divisor (:mod:`gbn.kernels.epsilon`), so both passes are exactly
those of the two layers, also where a channel is constant.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gbn import kernels
from gbn.kernels.activation import activate
from gbn.kernels.autograd import refuse_second_derivative
from gbn.kernels.epsilon import denominator
from gbn.kernels.gate import Gate, enhance
from gbn.risk.base import Deviation, Statistic

__all__ = ["normalize_tracking"]


def normalize_tracking(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    statistic: Statistic,
    deviation: Deviation,
    eps: float,
    act: str | None = None,
    gate: Gate | None = None,
    *,
    eps_of_std: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what :func:`gbn.kernels.normalize` returns, differentiable as batch normalization is.

    Args:
        eps_of_std: the eps in sigma; the other arguments are those of :func:`gbn.kernels.normalize`.

    Raises:
        as :func:`gbn.kernels.normalize`.
    """
    if gate is None:
        y, s, d = _Tracking.apply(x, weight, bias, statistic, deviation, eps, eps_of_std)
    else:
        x_hat, s, d = _Tracking.apply(x, None, None, statistic, deviation, eps, eps_of_std)
        y = enhance(x_hat, x, weight, bias, gate)
    return activate(y, act), s, d


class _Tracking(torch.autograd.Function):
    """(x, weight, bias) -> (y, S, D); S and D are not differentiable outputs."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        statistic: Statistic,
        deviation: Deviation,
        eps: float,
        eps_of_std: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        y, s, d = kernels.normalize(x, weight, bias, statistic, deviation, eps)
        var, mean = torch.var_mean(x.to(s.dtype), [0, *range(2, x.dim())], correction=0)
        inverse = (var + eps_of_std).rsqrt()  # 1 / sigma
        k, c = (s - mean) * inverse, denominator(deviation, d, eps) * inverse
        ctx.save_for_backward(x, weight, mean, inverse, k, c)
        ctx.eps, ctx.bias_dtype = eps_of_std, None if bias is None else bias.dtype
        ctx.mark_non_differentiable(s, d)
        return y, s, d

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        if not torch.compiler.is_compiling():
            refuse_second_derivative()
        x, weight, mean, inverse, k, c = ctx.saved_tensors
        gain = c.reciprocal() if weight is None else weight.to(c.dtype) / c
        # sum_gx is the sum of g x_hat over a channel, sum_g that of g
        dx, sum_gx, sum_g = torch.ops.aten.native_batch_norm_backward(
            cotangents[0], x, gain, None, None, mean, inverse, True, ctx.eps, [True, True, True]
        )
        return (
            dx,
            ((sum_gx - k * sum_g) / c).to(weight.dtype) if ctx.needs_input_grad[1] else None,
            sum_g.to(ctx.bias_dtype) if ctx.needs_input_grad[2] else None,
            *(None, None, None, None),
        )
