"""One mixture of scalars per channel: every value has K posteriors.

They are never held all at once: their normalizing constant is kept, one number per value, and a component's
posteriors are recomputed from it whenever they are needed, so memory does not grow with K.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gbn.kernels.mixture.gaussians import Mixture

__all__ = ["Normalize", "apply_components"]


class _Components:
    """The log-densities of K components at the values of a centered batch."""

    def __init__(self, centered: Tensor, mixture: Mixture, center: Tensor) -> None:
        self.centered = centered
        self.shape = (1, -1, *[1] * (centered.dim() - 2))
        self.dims = [i for i in range(centered.dim()) if i != 1]
        self.a, self.mean = mixture.var.reciprocal(), mixture.mean - center
        self.constant = mixture.weight.log() - 0.5 * mixture.var.log()
        self.number = mixture.mean.shape[0]

    def over(self, values: Tensor) -> Tensor:
        """Reshape (C,) so that it broadcasts along the batch."""
        return values.view(self.shape)

    def sum(self, values: Tensor) -> Tensor:
        """Sum over everything but the channels: the batch's shape -> (C,)."""
        return values.sum(self.dims)

    def log_joint(self, k: int) -> Tensor:
        """Return log (weight * density) of component k, in the batch's shape."""
        return self.apart(k).square() * (-0.5 * self.over(self.a[k])) + self.over(self.constant[k])

    def apart(self, k: int) -> Tensor:
        """Return the values' distances from the mean of component k.

        Their squares are never expanded: nothing would be left of a narrow component far from the center.
        """
        return self.centered - self.over(self.mean[k])

    def log_sum(self) -> Tensor:
        """Return the logarithm of the mixture's density."""
        found = self.log_joint(0)
        for k in range(1, self.number):
            found = torch.logaddexp(found, self.log_joint(k))
        return found

    def posterior(self, k: int, log_sum: Tensor) -> Tensor:
        """Return t of component k."""
        return (self.log_joint(k) - log_sum).exp()


def apply_components(x: Tensor, mixture: Mixture, gain: Tensor, bias: Tensor | None) -> Tensor:
    """Return ``sum_k t_ik gain_k (x_i - mean_k) + bias`` channel by channel, by plain operations."""
    center = (mixture.weight * mixture.mean).sum(0)
    shape = (1, -1, *[1] * (x.dim() - 2))
    centered = x - center.view(shape)
    of = _Components(centered, mixture, center)
    log_sum = of.log_sum()
    shift = gain * (center - mixture.mean)
    y = torch.zeros_like(centered) if bias is None else torch.zeros_like(centered) + of.over(bias)
    for k in range(of.number):
        y = y + of.posterior(k, log_sum) * (of.over(gain[k]) * centered + of.over(shift[k]))
    return y


class Normalize(torch.autograd.Function):
    """See :func:`gbn.kernels.mixture.normalize_by_batch`; saves the input and one number per value."""

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
        mixture = Mixture(*(part.to(wide) for part in (mixture_weight, mixture_mean, mixture_var)))
        center = center.to(wide)
        centered = x.to(wide) - center.view(1, -1, *[1] * (x.dim() - 2))
        of = _Components(centered, mixture, center)
        count = x.numel() // x.shape[1]
        log_sum = of.log_sum()
        total, first, second, squared = (torch.empty_like(mixture.mean) for _ in range(4))
        for k in range(of.number):
            t = of.posterior(k, log_sum)
            total[k], squared[k] = of.sum(t), of.sum(t.square())
            apart = of.apart(k)
            t = t * apart
            first[k], second[k] = of.sum(t), of.sum(t * apart)
        divisor = total.clamp(min=torch.finfo(wide).tiny)
        # moments about the component's own mean in the mixture, close to the new one
        moved = first / divisor
        mean = of.mean + moved
        var = (second / divisor - moved.square()).clamp_(min=0)
        factor = torch.rsqrt(divisor / count * (var + eps))
        gain = factor if weight is None else factor * weight.to(wide)
        shift = -gain * mean
        if bias is not None:
            shift = shift + bias.to(wide)
        y = torch.zeros_like(centered)
        for k in range(of.number):
            y.addcmul_(of.posterior(k, log_sum), of.over(gain[k]) * centered + of.over(shift[k]))
        outputs = (total / count, mean + center, var, squared / divisor / divisor)  # divisor squared may be 0
        ctx.mark_non_differentiable(*outputs)
        ctx.save_for_backward(x, log_sum, weight, bias, *mixture, center, mean, var, divisor, factor)
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
        x, log_sum, weight, bias, *saved = ctx.saved_tensors
        mixture, (center, mean, var, divisor, factor) = Mixture(*saved[:3]), saved[3:]
        wide = log_sum.dtype
        g = torch.empty_like(log_sum).copy_(grad)
        centered = x.to(wide) - center.view(1, -1, *[1] * (x.dim() - 2))
        of = _Components(centered, mixture, center)
        product = g * centered
        sums, along = torch.empty_like(mean), torch.empty_like(mean)
        for k in range(of.number):
            t = of.posterior(k, log_sum)
            sums[k], along[k] = of.sum(t * g), of.sum(t * product)
        # sum_i g t (x - m): the derivative with respect to the gain
        along -= mean * sums
        grad_weight = (factor * along).sum(0).to(weight.dtype) if weight is not None else None
        grad_bias = sums.sum(0).to(bias.dtype) if bias is not None else None
        if not ctx.needs_input_grad[0]:
            return None, grad_weight, grad_bias, *[None] * 6
        gain = factor if weight is None else factor * weight.to(wide)
        to_factor = along if weight is None else along * weight.to(wide)
        to_mean, to_var = -gain * sums, -0.5 * to_factor * factor / (var + ctx.eps)
        slope = 2.0 * to_var / divisor
        offset = to_mean / divisor - slope * mean
        dx = torch.zeros_like(g)
        for k in range(of.number):
            inner = of.over(gain[k]) * g + of.over(slope[k]) * centered + of.over(offset[k])
            dx.addcmul_(of.posterior(k, log_sum), inner)
        if ctx.posterior_gradient:
            to_share = -0.5 * to_factor * factor / divisor
            constant = to_share + (to_var * (mean.square() - var) - to_mean * mean) / divisor

            def to_t(k: int) -> Tensor:
                linear = of.over((to_mean[k] - 2.0 * to_var[k] * mean[k]) / divisor[k])
                inner = (of.over(to_var[k] / divisor[k]) * centered + linear) * centered
                return inner + of.over(gain[k]) * (product - of.over(mean[k]) * g) + of.over(constant[k])

            # the softmax's derivative: t_k (to_t_k - sum_j t_j to_t_j)
            average = torch.zeros_like(g)
            for k in range(of.number):
                average.addcmul_(of.posterior(k, log_sum), to_t(k))
            for k in range(of.number):
                to_logit = of.posterior(k, log_sum) * (to_t(k) - average)
                dx -= to_logit * of.over(of.a[k]) * of.apart(k)
        return dx.to(x.dtype), grad_weight, grad_bias, *[None] * 6
