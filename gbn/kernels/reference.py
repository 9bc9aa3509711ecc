"""The reference kernel: eager torch, the ground truth that every fused kernel is tested against.

With ``x_hat = (x - S) / D'``, ``D' = D + eps`` (see :mod:`gbn.kernels.epsilon`), ``g = dL/dy``, and S_k and D_k the
derivatives of S and D with respect to sample k (Yuan et al., AAAI 2019, arXiv 1812.03271; derivatives in
:mod:`gbn.risk`):

    dL/dweight = sum_i g_i x_hat_i          dL/dbias = sum_i g_i
    dL/dx_k    = weight / D' * [ g_k - S_k * sum_i g_i - D'_k * sum_i g_i x_hat_i ]

Order statistics need each channel's samples to be contiguous ("rows", ``(C, n)``). These copies are made in both
passes rather than kept in between; on a CPU, for a few channels at a time, which then stay in its cache.

float32 rows whose D is so large that squares, or coefficients of the derivatives, could leave the range of float32
are measured and differentiated in float64. Traced operations and GPU tensors skip this check, since it reads values.
"""

from __future__ import annotations

from typing import Any, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from gbn.kernels.activation import activate
from gbn.kernels.epsilon import denominator, denominator_slope
from gbn.kernels.gate import Gate, enhance
from gbn.risk.base import Deviation, Statistic
from gbn.risk.order import OrderStatistics

__all__ = ["normalize", "normalize_with"]

# Values per block of channels: the temporaries of the backward pass then stay in a core's level-2 cache.
_BLOCK_VALUES = 1 << 17

#: D at and above which float64 is used: its square, times the number of samples, still fits in float32.
_LARGE = 1e15


def normalize(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    statistic: Statistic,
    deviation: Deviation,
    eps: float,
    act: str | None = None,
    gate: Gate | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`gbn.kernels.normalize`."""
    if gate is None:
        y, s, d = _Normalize.apply(x, weight, bias, statistic, deviation, eps)
    else:
        wide = x.to(_wide(x.dtype))  # so that the result is rounded only once, at the end
        x_hat, s, d = _Normalize.apply(wide, None, None, statistic, deviation, eps)
        y = enhance(x_hat, wide, weight, bias, gate).to(x.dtype)
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
    gate: Gate | None = None,
) -> Tensor:
    """See :func:`gbn.kernels.normalize_with`."""
    wide = _wide(x.dtype)
    shift, divisor = _to(statistic_value, wide), denominator(deviation, _to(deviation_value, wide), eps)
    if gate is None:
        y = _affine(x, shift, divisor, _to(weight, wide), _to(bias, wide))
    else:
        x_wide = x.to(wide)
        y = enhance(_affine(x_wide, shift, divisor, None, None), x_wide, weight, bias, gate).to(x.dtype)
    return activate(y, act)


def _wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of statistics and sums: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


@overload
def _to(tensor: Tensor, dtype: torch.dtype) -> Tensor: ...
@overload
def _to(tensor: None, dtype: torch.dtype) -> None: ...
def _to(tensor: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """Return the tensor in a dtype; evaluation of a small layer notices what torch takes to change nothing."""
    return tensor if tensor is None or tensor.dtype is dtype else tensor.to(dtype)


def _affine(x: Tensor, shift: Tensor, divisor: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    """Return ``(x - shift) / divisor * weight + bias`` per channel, in one pass, in x's memory format and dtype."""
    # BatchNorm in evaluation mode is exactly this map, and twice as fast on a CPU as a broadcast addcmul. The divisor
    # goes into the gain, not into the variance, because its square could be infinite.
    gain = divisor.reciprocal() if weight is None else weight / divisor
    return F.batch_norm(x, shift, torch.ones_like(divisor), gain, bias, training=False, eps=0.0)


def _channels_slow(x: Tensor) -> bool:
    """Return whether channels are not the innermost dimension in memory (NCHW; not channels_last, not (N, C))."""
    return x.stride(1) != 1 or x.shape[1] == 1


def _by_channel(x: Tensor) -> Tensor:
    """Return ``(N, C, *spatial)`` as ``(C, N, *spatial)``: a view where slices along C can be read at full speed."""
    view = x.transpose(0, 1)
    return view if _channels_slow(x) else view.contiguous()


def _new_by_channel(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return an uninitialized tensor like ``x``, and one like its :func:`_by_channel` to write its values to."""
    new = torch.empty_like(x)
    view = new.transpose(0, 1)
    return new, view if _channels_slow(new) else view.new_empty(view.shape)


def _finish_by_channel(new: Tensor, by_channel: Tensor) -> Tensor:
    """Return the first tensor of :func:`_new_by_channel` after the second one has been written."""
    if not _channels_slow(new):
        new.transpose(0, 1).copy_(by_channel)
    return new


def _rows(part: Tensor, dtype: torch.dtype) -> Tensor:
    """Return ``(c, N, *spatial)`` as contiguous rows ``(c, n)`` in a wide dtype; may be a view."""
    return part.flatten(1).to(dtype).contiguous()


def _blocks(x: Tensor) -> list[slice]:
    """Return ranges of channels to work on in turn: all at once, or on a CPU as many as fit in its cache."""
    channels = x.shape[1]
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return [slice(0, channels)]
    samples = max(1, x.numel() // channels)
    step = max(1, _BLOCK_VALUES // samples)
    return [slice(first, min(first + step, channels)) for first in range(0, channels, step)]


class _Normalize(torch.autograd.Function):
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
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide = dtype = _wide(x.dtype)
        y, s, d, saved_s, saved_d = _forward(x, weight, bias, statistic, deviation, eps, dtype)
        if x.device.type == "cpu" and not torch.compiler.is_compiling() and _is_large(x, d):
            dtype = torch.float64
            y, s, d, saved_s, saved_d = _forward(x, weight, bias, statistic, deviation, eps, dtype)
        s, d = s.to(wide), d.to(wide)
        ctx.save_for_backward(x, weight, s, d, *saved_s, *saved_d)
        ctx.saved_by_statistic, ctx.dtype = len(saved_s), dtype
        ctx.statistic, ctx.deviation, ctx.eps = statistic, deviation, eps
        ctx.bias_dtype = None if bias is None else bias.dtype
        ctx.mark_non_differentiable(s, d)
        return y, s, d

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            # torch's own once_differentiable lets a constant cotangent through, with 0 as its second derivative.
            raise RuntimeError(
                "generalized batch normalization is differentiable once: create_graph=True (a gradient "
                "penalty, a Hessian) is not supported through it; use BatchNorm there"
            )
        x, weight, s, d, *saved = ctx.saved_tensors
        divisor = denominator(ctx.deviation, d, ctx.eps)
        slope = denominator_slope(ctx.deviation, d, divisor)
        scale = (1.0 if weight is None else weight.to(s.dtype)) / divisor
        x_by_c, g_by_c, (dx, dx_by_c) = _by_channel(x), _by_channel(cotangents[0]), _new_by_channel(x)
        sums = []
        for c in _blocks(x):
            rows, g = _rows(x_by_c[c], ctx.dtype), _rows(g_by_c[c], ctx.dtype)
            sum_g = g.sum(-1, keepdim=True)
            sum_gx = (rows - s[c, None]).mul_(g).sum(-1, keepdim=True).div_(divisor[c, None])  # sum g x_hat
            sums.append((sum_g, sum_gx))
            if ctx.needs_input_grad[0]:
                block_saved = [value[c] for value in saved]
                s_k = ctx.statistic.gradient(rows, tuple(block_saved[: ctx.saved_by_statistic]))
                d_k = ctx.deviation.gradient(rows, tuple(block_saved[ctx.saved_by_statistic :]))
                dx_rows = torch.addcmul(g, s_k, -sum_g).addcmul_(d_k, -slope[c, None] * sum_gx)
                dx_by_c[c].copy_(dx_rows.mul_(scale[c, None]).view(dx_by_c[c].shape))
        dx = _finish_by_channel(dx, dx_by_c)
        sum_g, sum_gx = (torch.cat(parts).squeeze(-1) for parts in zip(*sums, strict=True))
        return (
            dx if ctx.needs_input_grad[0] else None,
            sum_gx.to(weight.dtype) if ctx.needs_input_grad[1] else None,
            sum_g.to(ctx.bias_dtype) if ctx.needs_input_grad[2] else None,
            None,
            None,
            None,
        )


_Measured = tuple[Tensor, Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]


def _forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    statistic: Statistic,
    deviation: Deviation,
    eps: float,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return y, S and D ``(C,)``, and what their subgradients need, ``(C, 1)``, computed in a wide dtype."""
    x_by_c, (y, y_by_c) = _by_channel(x), _new_by_channel(x)
    measured = []
    for c in _blocks(x):
        rows = _rows(x_by_c[c], dtype)
        block = _measure(rows, statistic, deviation)
        # Subtract first: the sample equal to S then maps to the bias exactly, and ReLU's fraction is exact.
        y_rows = rows - block[0]
        scale = denominator(deviation, block[1], eps).reciprocal()
        y_rows.mul_(scale if weight is None else scale * weight[c, None])
        y_by_c[c].copy_((y_rows if bias is None else y_rows.add_(bias[c, None])).view(y_by_c[c].shape))
        measured.append(block)
    return _finish_by_channel(y, y_by_c), *_gather(measured)


def _is_large(x: Tensor, d: Tensor) -> bool:
    """Return whether float32 may misrepresent the D of some channel whose samples are finite."""
    far = ~(d < _LARGE)
    return bool(far.any()) and bool(x.transpose(0, 1)[far].flatten(1).isfinite().all(1).any())


def _measure(rows: Tensor, statistic: Statistic, deviation: Deviation) -> _Measured:
    """Return S and D of a block of channels, and what their subgradients need besides the samples; all ``(c, 1)``."""
    orders = OrderStatistics(rows, statistic, deviation)
    s, saved_s = statistic.evaluate(rows, orders)
    d, saved_d = deviation.evaluate(rows, orders)
    spoilt = rows.mul(0.0).sum(-1, keepdim=True)  # NaN where a sample is not finite, else 0
    return s + spoilt, d + spoilt, saved_s, saved_d


def _gather(blocks: list[_Measured]) -> _Measured:
    """Concatenate the blocks into all channels; S and D as ``(C,)``."""
    s, d, saved_s, saved_d = zip(*blocks, strict=True)
    return (
        torch.cat(s).squeeze(-1),
        torch.cat(d).squeeze(-1),
        tuple(torch.cat(parts) for parts in zip(*saved_s, strict=True)),
        tuple(torch.cat(parts) for parts in zip(*saved_d, strict=True)),
    )
