"""Fitting a mixture to a batch, shared by mixture normalization and its controls."""

from __future__ import annotations

import contextlib

import torch
from torch import Tensor

from gbn.kernels.mixture import (
    FORMS,
    LARGE,
    Mixture,
    Moments,
    channel_moments,
    fitted,
    has_small_squares,
    sample,
    seeded,
    uniform,
)
from gbn.nn.too_few import TooFewValues
from gbn.suggest import did_you_mean

__all__ = ["MixtureFit", "full_precision", "overflowed"]

_SEEDING, _REVIVAL = 1, 2  # purposes of the draws; 0 is the choice of the samples


class MixtureFit:
    """Fits a mixture to a batch; holds the options that the layer and its controls share.

    Args:
        components: K, at least 1; the paper uses 3 and 5.
        mixture: ``joint`` for one mixture of C-vectors, ``per_channel`` for one mixture of scalars per channel.
        em_steps: steps of expectation-maximization (EM) per batch, at least 0.
        subset: number of samples used by the EM steps, drawn anew for each batch; at least K.
        variance_floor: no component's variance is less than this fraction of the channel's plus eps.

    Raises:
        ValueError: for an option out of range.
    """

    def __init__(
        self, components: int, mixture: str, em_steps: int, subset: int, variance_floor: float
    ) -> None:
        if components < 1:
            raise ValueError(
                f"components={components}: a mixture has at least 1 (batch normalization), 3 and 5 are usual"
            )
        if mixture not in FORMS:
            hint = did_you_mean(str(mixture), FORMS)
            raise ValueError(f"mixture={mixture!r}{hint}: allowed are {', '.join(FORMS)}")
        if em_steps < 0:
            raise ValueError(f"em_steps={em_steps}: it must be at least 0")
        if subset < components:
            raise ValueError(f"subset={subset}: components={components} need at least as many samples")
        if not 0 < variance_floor <= 1:
            raise ValueError(f"variance_floor={variance_floor} is a fraction of a variance: 0 < floor <= 1")
        self.components, self.mixture, self.em_steps = components, mixture, em_steps
        self.subset, self.variance_floor = subset, variance_floor

    def weights(self, num_features: int) -> int:
        """Return the number of weights per component: 1, or one per channel."""
        return 1 if self.mixture == "joint" else num_features

    @torch.no_grad()
    def __call__(
        self, x: Tensor, eps: float, stream: Tensor, count: Tensor, start: Mixture | None = None
    ) -> tuple[Mixture, Tensor]:
        """Return the mixture fitted to a batch, and the mean of its samples (C,), both in at least float32.

        Args:
            x: the batch, (N, C, *spatial).
            eps: the smallest variance.
            stream, count: int64 scalars that determine every draw.
            start: the mixture to start from; None for k-means++ seeds.
        """
        channels = x.shape[1]
        wide = torch.promote_types(x.dtype, torch.float32)
        samples = sample(x, self.subset, stream, count).to(wide)
        mean, var = channel_moments(samples)
        if self.components == 1:  # its posterior is 1 whatever its mean and variance
            weight = torch.ones_like(mean[None, : self.weights(channels)])
            return Mixture(weight, mean[None], var[None] + eps), mean
        number = self.components * self.weights(channels)
        draws = uniform(stream, count, _SEEDING if start is None else _REVIVAL, number)
        if start is None:
            start = seeded(samples, self.components, draws, self.mixture)
        else:
            # Copies, since the backward pass reads them after the running averages have changed.
            start = Mixture(*(part.to(wide, copy=True) for part in start))
        return fitted(samples, start, self.em_steps, self.floor(var, eps), draws), mean

    def floor(self, var: Tensor, eps: float) -> Tensor:
        """Return the smallest variance of a component, given the variance of the channels."""
        return var * self.variance_floor + eps

    def check_samples(self, x: Tensor, name: str) -> None:
        """Raise TooFewValues, a ValueError, for a batch with fewer samples than components."""
        count = x.numel() // x.shape[1]
        if 0 < count < self.components:
            raise TooFewValues(
                f"{name} has components={self.components} and got a batch of {count} samples, {tuple(x.shape)}: "
                "use fewer components or a larger batch"
            )

    def __repr__(self) -> str:
        return (
            f"components={self.components}, mixture={self.mixture!r}, em_steps={self.em_steps}, "
            f"subset={self.subset}, variance_floor={self.variance_floor}"
        )


def full_precision(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Return a context that turns autocast off: posteriors in bfloat16 would be wrong in their leading digits."""
    if x.device.type not in ("cpu", "cuda"):
        return contextlib.nullcontext()
    return torch.autocast(x.device.type, enabled=False)


def overflowed(x: Tensor, moments: Moments, start: Mixture | None = None) -> bool:
    """Return whether squares of a finite batch, or of the mixture it started from, overflow float32, or nearly so.

    To avoid synchronizing with a device, the answer is always False except on the CPU.
    """
    if torch.compiler.is_compiling() or x.device.type != "cpu" or x.dtype == torch.float64:
        return False
    within = has_small_squares(moments.mean) and bool(moments.var.amax() < LARGE**2)  # False for NaN
    if start is not None:
        within = within and has_small_squares(start.mean)
    return not within and bool(x.isfinite().all())
