"""Checks of mixtures and of the steps that fit them, in addition to :mod:`gbn.kernels.checks`."""

from __future__ import annotations

from torch import Tensor

from gbn.kernels.checks import check_batch, check_not_empty, check_shape, check_vectors
from gbn.kernels.mixture.gaussians import Mixture

__all__ = ["check_draws", "check_fit", "check_mixture"]


def check_mixture(x: Tensor, mixture: Mixture) -> None:
    """Raise RuntimeError unless it has at least one component, and fits the channels of x, ``(N, C, *spatial)``."""
    channels = x.shape[1]
    components = mixture.mean.shape[0] if mixture.mean.dim() and mixture.mean.shape[0] else 1
    each = (components, channels)
    check_shape(x, "the mixture's mean", mixture.mean, each)
    check_shape(x, "the mixture's var", mixture.var, each)
    check_shape(x, "the mixture's weight", mixture.weight, (components, 1), each)


def check_draws(samples: Tensor, draws: Tensor, number: int) -> None:
    """Raise RuntimeError unless there are ``number`` draws."""
    check_shape(samples, "draws", draws, (number,))


def check_fit(
    samples: Tensor, start: Mixture, floor: Tensor, draws: Tensor | None, **moments: Tensor
) -> None:
    """Check the arguments of :func:`gbn.kernels.mixture.fitted`, and moments ``(C,)`` of the samples.

    Raises:
        ValueError: there are no samples, or they are not ``(S, C)``.
        RuntimeError: anything else is wrong.
    """
    check_batch(samples)
    if samples.dim() != 2:
        raise ValueError(f"samples (S, C) are expected, got {samples.dim()}D {tuple(samples.shape)}")
    check_not_empty(samples)
    check_mixture(samples, start)
    check_vectors(samples, floor=floor, **moments)
    if draws is not None:
        check_draws(samples, draws, start.weight.numel())
