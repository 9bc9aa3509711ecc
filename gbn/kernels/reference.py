"""The reference kernel: eager torch, the truth that every fused kernel is tested against.

With ``x_hat = (x - S) / D'``, ``D' = D + eps`` (see :mod:`gbn.kernels.epsilon`), ``g = dL/dy``, and with S_k and
D_k the derivatives of S and D by sample k (Yuan et al., AAAI 2019, arXiv 1812.03271; derivatives in :mod:`gbn.risk`):

    dL/dweight = sum_i g_i x_hat_i          dL/dbias = sum_i g_i
    dL/dx_k    = weight / D' * [ g_k - S_k * sum_i g_i - D'_k * sum_i g_i x_hat_i ]

The sums and the first term of the bracket are what BatchNorm's evaluation mode computes in one pass over x and g;
torch's kernel for it is used. Order statistics need each channel's samples side by side ("rows", ``(C, n)``);
that copy is made in the forward pass and again in the backward pass rather than kept in between.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from gbn.kernels.activation import activate
from gbn.kernels.epsilon import denominator, denominator_slope
from gbn.risk.base import Deviation, Statistic
from gbn.risk.order import OrderStatistics

__all__ = ["normalize", "normalize_with"]


def normalize(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    statistic: Statistic,
    deviation: Deviation,
    eps: float,
    act: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`gbn.kernels.normalize`."""
    y, s, d = _Normalize.apply(x, weight, bias, statistic, deviation, eps)
    return activate(y, act), s, d


def normalize_with(
    x: Tensor,
    statistic_value: Tensor,
    deviation_value: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    deviation: Deviation,
    eps: float,
    act: str | None = None,
) -> Tensor:
    """See :func:`gbn.kernels.normalize_with`."""
    wide = _wide(x.dtype)
    divisor = denominator(deviation, deviation_value.to(wide), eps)
    y = _affine(x, statistic_value.to(wide), divisor, _to(weight, wide), _to(bias, wide))
    return activate(y, act)


def _wide(dtype: torch.dtype) -> torch.dtype:
    """The dtype of statistics and sums: float32, float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


def _to(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    return None if tensor is None else tensor.to(dtype)


def _affine(x: Tensor, shift: Tensor, divisor: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """``(x - shift) / divisor * weight + bias`` per channel, in one pass, memory format and dtype kept."""
    # BatchNorm in evaluation mode is exactly this map, and twice as fast on a CPU as a broadcast addcmul.
    return F.batch_norm(x, shift, divisor.square(), weight, bias, training=False, eps=0.0)


def _rows(x: Tensor) -> Tensor:
    """``(N, C, *spatial)`` -> ``(C, n)``, contiguous, each channel's samples side by side."""
    return x.transpose(0, 1).flatten(1).contiguous()


def _from_rows(rows: Tensor, shape: torch.Size) -> Tensor:
    """The inverse of :func:`_rows`, as a strided view."""
    return rows.view(shape[1], shape[0], *shape[2:]).transpose(0, 1)


class _Normalize(torch.autograd.Function):
    """(x, weight, bias) -> (y, S, D); S and D carry no gradient of their own."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        statistic: Statistic,
        deviation: Deviation,
        eps: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide = _wide(x.dtype)
        rows = _rows(x.to(wide))
        orders = OrderStatistics(rows, statistic, deviation)
        s, saved_s = statistic.evaluate(rows, orders)
        d, saved_d = deviation.evaluate(rows, orders)
        s, d = s.squeeze(-1), d.squeeze(-1)
        y = _affine(x, s, denominator(deviation, d, eps), _to(weight, wide), _to(bias, wide))
        ctx.save_for_backward(x, weight, s, d, *saved_s, *saved_d)
        ctx.saved_by_statistic = len(saved_s)
        ctx.statistic, ctx.deviation, ctx.eps = statistic, deviation, eps
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.mark_non_differentiable(s, d)
        return y, s, d

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, s, d, *saved = ctx.saved_tensors
        saved_s, saved_d = tuple(saved[: ctx.saved_by_statistic]), tuple(saved[ctx.saved_by_statistic :])
        wide = _wide(x.dtype)
        xw, gw = x.to(wide), cotangents[0].to(wide)
        gain = torch.ones_like(s) if weight is None else weight.to(wide)
        divisor = denominator(ctx.deviation, d, ctx.eps)
        # One pass over x and g: weight/D' * g, sum g x_hat, sum g.
        dx, sum_gx, sum_g = torch.ops.aten.native_batch_norm_backward(
            gw, xw, gain, s, divisor.square(), None, None, False, 0.0, [ctx.needs_input_grad[0], True, True]
        )
        if ctx.needs_input_grad[0]:
            scale = gain / divisor
            slope = denominator_slope(ctx.deviation, d, divisor)
            rows = _rows(xw)
            part = ctx.statistic.gradient(rows, saved_s) * (scale * sum_g).unsqueeze(-1)
            part.addcmul_(ctx.deviation.gradient(rows, saved_d), (scale * slope * sum_gx).unsqueeze(-1))
            dx = (dx - _from_rows(part, x.shape)).to(x.dtype)
        return (
            dx if ctx.needs_input_grad[0] else None,
            sum_gx.to(weight.dtype) if ctx.needs_input_grad[1] else None,
            sum_g.to(ctx.bias_dtype) if ctx.needs_input_grad[2] else None,
            None,
            None,
            None,
        )
