"""A mixture of Gaussians with diagonal variances, and the moments that the transform measures in a batch."""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["FORMS", "LARGE", "Mixture", "Moments", "channel_moments", "has_small_squares", "quadratic"]

FORMS = ("joint", "per_channel")


#: Sums of squares of larger values, or in units of a small variance, may overflow float32.
LARGE = 1e15


class Mixture(NamedTuple):
    """K components over C channels.

    Attributes:
        weight: (K, 1) for a joint mixture, (K, C) for one per channel; sums to 1 over K.
        mean, var: (K, C).
    """

    weight: Tensor
    mean: Tensor
    var: Tensor


class Moments(NamedTuple):
    """The statistics that normalize a batch, given its posteriors t_ik.

    Attributes:
        weight: l_k = mean of t_ik over the samples, (K, 1) or (K, C).
        mean, var: (K, C), weighted by w_ik = t_ik / sum_i t_ik.
        concentration: sum of w_ik squared over the samples, (K, 1) or (K, C): one over the effective number of
            samples of a component.
    """

    weight: Tensor
    mean: Tensor
    var: Tensor
    concentration: Tensor


def channel_moments(samples: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of each column of (S, C), in two passes (torch.var_mean takes much longer here)."""
    mean = samples.mean(0)
    return mean, (samples - mean).square_().mean(0)


def has_small_squares(values: Tensor) -> bool:
    """Return whether no value exceeds :data:`LARGE`; False with a NaN. Waits for the device."""
    low, high = torch.aminmax(values.detach())
    return bool((high < LARGE) & (low > -LARGE))


def quadratic(mixture: Mixture, center: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return coefficients of a component's log-density: ``-a/2 (x - center)^2 + b (x - center) + c`` per channel.

    Args:
        mixture: its variances are positive.
        center: (C,): subtracted from the samples first, so that squares do not swamp their differences.

    Returns:
        (a, b, c), each (K, C); c without the component's weight and the Gaussian constant.
    """
    a = mixture.var.reciprocal()
    mean = mixture.mean - center
    b = a * mean
    return a, b, -0.5 * (b * mean + mixture.var.log())
