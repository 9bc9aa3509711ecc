"""Mixture normalization of a batch by its own moments, or of any input by a given mixture."""

from __future__ import annotations

import torch
from torch import Tensor

from gbn.kernels.activation import activate
from gbn.kernels.checks import check_batch, check_not_empty
from gbn.kernels.mixture import autograd, joint, per_channel
from gbn.kernels.mixture.checks import check_mixture
from gbn.kernels.mixture.gaussians import Mixture, Moments, has_small_squares
from gbn.risk.order import traced

__all__ = ["implementation", "normalize_by_batch", "normalize_by_mixture"]


def normalize_by_batch(
    x: Tensor,
    mixture: Mixture,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    posterior_gradient: bool = False,
    center: Tensor | None = None,
    act: str | None = None,
) -> tuple[Tensor, Moments]:
    """Return ``act(weight * sum_k t_ik / sqrt(l_k) * (x_i - m_k) / sqrt(q_k + eps) + bias)``.

    The moments m, q and l are those of the batch.

    Args:
        x: ``(N, C, *spatial)``.
        mixture: determines the posteriors t; it gets no gradient.
        weight, bias: (C,) or None.
        eps: added to the weighted variances q.
        posterior_gradient: whether the gradient accounts for the posteriors' dependence on x; otherwise they are
            constants.
        center: (C,), subtracted from the samples first, so that their squares are not much larger than what is
            measured; something near the batch's mean. The mixture's mean by default.
        act: activation applied to the result, None or a name in :data:`gbn.kernels.ACTIVATIONS`.

    Returns:
        The result, with the shape, dtype and memory format of ``x``, and the moments, without gradient, in float32 or
        wider. Differentiable once.

    Raises:
        ValueError: x has no channel dimension, or no values.
        RuntimeError: x is not strided and floating point; gain, bias, center or the mixture have another shape or are
            on another device.
    """
    check_batch(x, weight=weight, bias=bias, center=center)
    check_not_empty(x)
    check_mixture(x, mixture)
    if center is None:
        center = (mixture.weight * mixture.mean).sum(0)
    is_joint = mixture.weight.shape[1] == 1
    if is_joint and autograd.serves(x, mixture.mean.shape[0], posterior_gradient):
        relu = act == "relu"
        y, moments = autograd.normalize(x, weight, bias, mixture, center, eps, relu)
        return (y if relu else activate(y, act)), moments
    form = joint if is_joint else per_channel
    y, *moments = form.Normalize.apply(x, weight, bias, *mixture, center, eps, posterior_gradient)
    return activate(y, act), Moments(*moments)


def implementation(x: Tensor, components: int, joint: bool, posterior_gradient: bool = False) -> str:
    """Return the name of the implementation that :func:`normalize_by_batch` would use: numba or reference."""
    return "numba" if joint and autograd.serves(x, components, posterior_gradient) else "reference"


def _needs_float64(x: Tensor, mixture: Mixture) -> bool:
    """Return whether squares may overflow float32; False where asking would wait for a device."""
    if traced(x) or x.device.type != "cpu" or x.numel() == 0:
        return False
    return not (has_small_squares(x) and has_small_squares(mixture.mean))


def normalize_by_mixture(
    x: Tensor,
    mixture: Mixture,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    floor: Tensor | float = 0.0,
) -> Tensor:
    """Normalize by a mixture's own weights, means and variances, as in evaluation; all derivatives are exact.

    ``floor``, (C,) or a number, is the smallest variance used for posteriors: a component's own can be 0.
    Errors are those of :func:`normalize_by_batch`, but x may be empty.
    """
    check_batch(x, weight=weight, bias=bias, floor=floor if isinstance(floor, Tensor) else None)
    check_mixture(x, mixture)
    wide = torch.float64 if _needs_float64(x, mixture) else torch.promote_types(x.dtype, torch.float32)
    factor = torch.rsqrt(mixture.weight * (mixture.var + eps))
    # A component of weight 0 has posterior 0: its factor, infinite otherwise, must not turn the product into NaN.
    factor = torch.where(mixture.weight > 0, factor, 0.0).to(wide)
    gain = factor if weight is None else factor * weight.to(wide)
    bias = None if bias is None else bias.to(wide)
    form = joint if mixture.weight.shape[1] == 1 else per_channel
    mixture = Mixture(mixture.weight, mixture.mean, mixture.var.clamp(min=floor))
    y = form.apply_components(x.to(wide), Mixture(*(part.to(wide) for part in mixture)), gain, bias)
    return y.to(x.dtype)
