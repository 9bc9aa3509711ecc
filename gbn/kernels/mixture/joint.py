"""One mixture for the whole vector of channels: K posteriors per sample.

Everything is a matrix product with one side of length K, so no array of K times the input's size ever exists: the
posteriors have K values per sample, the input has C.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gbn.kernels.mixture.gaussians import Mixture, quadratic

__all__ = ["Normalize", "apply_components"]


class _Layout:
    """A batch as matrices: (N, C, L) where channels are planes, (M, C) where channels are last in memory.

    t denotes an array of K values per sample: (N, K, L) or (M, K).
    """

    def __init__(self, x: Tensor) -> None:
        self.shape = x.shape
        self.last = x.dim() == 2 or (
            not x.is_contiguous()
            and x.dim() in (4, 5)
            and x.is_contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)
        )

    def matrices(self, x: Tensor) -> Tensor:
        """Return the batch as matrices, as a view where its memory allows."""
        if not self.last:
            return x.flatten(2)
        return x.movedim(1, -1).reshape(-1, self.shape[1])

    def empty(self, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return a new batch in this layout, and its matrices: this way no view leaves an autograd function."""
        if not self.last or len(self.shape) == 2:
            batch = torch.empty(self.shape, dtype=dtype, device=device)
        else:
            form = torch.channels_last if len(self.shape) == 4 else torch.channels_last_3d
            batch = torch.empty(self.shape, dtype=dtype, device=device, memory_format=form)
        return batch, self.matrices(batch)

    def channels(self, values: Tensor) -> Tensor:
        """Reshape (C,) or (K,) so that it broadcasts along matrices."""
        return values if self.last else values.unsqueeze(1)

    def gather(self, table: Tensor, x: Tensor) -> Tensor:
        """Sum over channels: (K, C), x -> t."""
        return x @ table.T if self.last else torch.matmul(table, x)

    def reduce(self, t: Tensor, x: Tensor) -> Tensor:
        """Sum over samples: t, x -> (K, C)."""
        return t.T @ x if self.last else torch.bmm(t, x.transpose(1, 2)).sum(0)

    def spread(self, table: Tensor, t: Tensor, out: Tensor | None = None) -> Tensor:
        """Sum over components: (K, C), t -> matrices."""
        if self.last:
            return torch.mm(t, table, out=out)
        return torch.bmm(table.T.expand(t.shape[0], -1, -1), t, out=out)

    def add_spread(self, y: Tensor, table: Tensor, t: Tensor) -> Tensor:
        """Add spread(table, t) to y in place."""
        if self.last:
            return y.addmm_(t, table)
        return y.baddbmm_(table.T.expand(t.shape[0], -1, -1), t)

    def count(self, t: Tensor) -> int:
        """Return the number of samples."""
        return t.shape[0] if self.last else t.shape[0] * t.shape[2]

    def total(self, t: Tensor) -> Tensor:
        """Sum over samples: t -> (K, 1)."""
        return (t.sum(0) if self.last else t.sum((0, 2))).unsqueeze(1)


def _posteriors(at: _Layout, centered: Tensor, squares: Tensor, mixture: Mixture, center: Tensor) -> Tensor:
    a, b, c = quadratic(mixture, center)
    logits = at.gather(b, centered) + at.gather(-0.5 * a, squares)
    logits += at.channels(c.sum(1) + mixture.weight.squeeze(1).log())
    return torch.softmax(logits, 1)


def apply_components(x: Tensor, mixture: Mixture, gain: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``sum_k t_ik gain_k (x_i - mean_k) + bias``, by plain operations."""
    at = _Layout(x)
    center = (mixture.weight * mixture.mean).sum(0)
    centered = at.matrices(x) - at.channels(center)
    t = _posteriors(at, centered, centered.square(), mixture, center)
    shift = gain * (center - mixture.mean)
    if bias is not None:
        shift = shift + bias  # posteriors sum to 1
    y = centered * at.spread(gain, t) + at.spread(shift, t)
    if not at.last:
        return y.reshape(x.shape)
    return y.view(x.shape[0], *x.shape[2:], x.shape[1]).movedim(-1, 1)


class Normalize(torch.autograd.Function):
    """See :func:`gbn.kernels.mixture.normalize_by_batch`; the posteriors are saved, everything else is recomputed."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mixture_weight: Tensor,
        mixture_mean: Tensor,
        mixture_var: Tensor,
        center: Tensor,
        eps: float,
        posterior_gradient: bool,
    ) -> tuple[Tensor, ...]:
        """Return (y, l, m, q, sum of squared weights)."""
        wide = torch.promote_types(x.dtype, torch.float32)
        at = _Layout(x)
        mixture = Mixture(*(part.to(wide) for part in (mixture_weight, mixture_mean, mixture_var)))
        center = center.to(wide)
        centered = at.matrices(x).to(wide) - at.channels(center)
        squares = centered.square()
        t = _posteriors(at, centered, squares, mixture, center)
        total = at.total(t)
        divisor = total.clamp(min=torch.finfo(wide).tiny)
        mean = at.reduce(t, centered) / divisor
        var = (at.reduce(t, squares) / divisor - mean.square()).clamp_(min=0)
        share = divisor / at.count(t)
        factor = torch.rsqrt(share * (var + eps))
        gain = factor if weight is None else factor * weight.to(wide)
        shift = -gain * mean
        if bias is not None:
            shift = shift + bias.to(wide)
        del squares  # of the input's size: freed before y is allocated
        y, matrices = at.empty(wide, x.device)
        # y = (gain t) u + shift t, in place: K never multiplies the input's size
        at.add_spread(at.spread(gain, t, matrices).mul_(centered), shift, t)
        concentration = at.total(t.square()) / divisor / divisor  # divisor squared may be 0
        outputs = (total / at.count(t), mean + center, var, concentration)
        ctx.mark_non_differentiable(*outputs)
        ctx.save_for_backward(x, t, weight, bias, *mixture, center, mean, var, divisor, factor)
        ctx.eps, ctx.posterior_gradient = eps, posterior_gradient
        return (y.to(x.dtype), *outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, weight and bias."""
        with torch.autocast(grad.device.type, enabled=False):
            return Normalize._backward(ctx, grad)

    @staticmethod
    def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, t, weight, bias, *saved = ctx.saved_tensors
        mixture, (center, mean, var, divisor, factor) = Mixture(*saved[:3]), saved[3:]
        at, wide = _Layout(x), t.dtype
        # autograd may deliver the gradient in another layout than x
        if at.last != _Layout(grad).last or not (grad.is_contiguous() or at.last):
            grad = torch.empty_like(x, dtype=grad.dtype).copy_(grad)
        g = at.matrices(grad).to(wide)
        centered = at.matrices(x).to(wide) - at.channels(center)
        product = g * centered
        sums = at.reduce(t, g)
        # sum_i g t (x - m): the derivative with respect to the gain
        along = at.reduce(t, product) - mean * sums
        grad_weight = (factor * along).sum(0).to(weight.dtype) if weight is not None else None
        grad_bias = sums.sum(0).to(bias.dtype) if bias is not None else None
        if not ctx.needs_input_grad[0]:
            return None, grad_weight, grad_bias, *[None] * 6
        gain = factor if weight is None else factor * weight.to(wide)
        to_factor = along if weight is None else along * weight.to(wide)
        to_mean = -gain * sums
        to_var = -0.5 * to_factor * factor / (var + ctx.eps)
        to_logits = None
        if ctx.posterior_gradient:
            to_t = _to_posteriors(at, g, product, centered, gain, mean, to_mean, to_var, divisor)
            to_share = (-0.5 * to_factor * factor).sum(1, keepdim=True) / divisor
            inner = ((to_var * var + to_mean * mean).sum(1, keepdim=True)) / divisor
            to_t += at.channels((to_share - inner).squeeze(1))
            to_logits = t * (to_t - (t * to_t).sum(1, keepdim=True))
        del product
        slope = 2.0 * to_var / divisor
        offset = to_mean / divisor - slope * mean
        # A clamped sum of weights or variance passes no gradient: a component without samples has none.
        dx, matrices = at.empty(wide, x.device)
        at.spread(gain, t, matrices).mul_(g)
        matrices += at.spread(slope, t).mul_(centered)
        at.add_spread(matrices, offset, t)
        if to_logits is not None:
            a, b, _ = quadratic(mixture, center)
            matrices -= at.spread(a, to_logits).mul_(centered)
            at.add_spread(matrices, b, to_logits)
        return dx.to(x.dtype), grad_weight, grad_bias, *[None] * 6


def _to_posteriors(
    at: _Layout,
    g: Tensor,
    product: Tensor,
    centered: Tensor,
    gain: Tensor,
    mean: Tensor,
    to_mean: Tensor,
    to_var: Tensor,
    divisor: Tensor,
) -> Tensor:
    """Return the gradient of t_ik, except for what is the same for all samples of a component."""
    to_t = at.gather(gain, product) - at.gather(gain * mean, g)
    to_t += at.gather(to_var / divisor, centered.square())
    to_t += at.gather((to_mean - 2.0 * to_var * mean) / divisor, centered)
    return to_t + at.channels(((to_var * mean.square()).sum(1, keepdim=True) / divisor).squeeze(1))
