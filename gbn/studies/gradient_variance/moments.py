"""Moments of gradients from sums over batches: variance, mean, angles, each with its Monte Carlo error.

The gradients of several arms are computed on the same batches, so they are paired, and whatever they share cancels in
every ratio and every angle between them. Nothing is stored per batch: sums of gradients and of their inner products
are enough for estimates that the noise does not bias. :class:`GradientSums` keeps them in several groups of batches,
and leaving out one group at a time (the jackknife) gives each estimate its error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["GROUPS", "NETWORK", "GradientSums", "Reading", "readings"]

GROUPS = 16  # groups of the jackknife: enough for a stable error, few enough to keep in memory
NETWORK = "network"  # the row of all weights together


@dataclass(frozen=True)
class Reading:
    """One measured number.

    Attributes:
        arm: whose gradient.
        layer: whose weight, or :data:`NETWORK`.
        quantity: see :func:`readings`.
        against: the arm that it is compared with; empty if there is none.
        value: the estimate.
        error: its Monte Carlo standard error, from the limited number of batches; NaN with fewer than two groups.
    """

    arm: str
    layer: str
    quantity: str
    against: str
    value: float
    error: float


class GradientSums:
    """Sums over batches of the arms' gradients, their inner products, and their angles with the weights.

    Args:
        arms: names, in the order of the rows given to :meth:`add`.
        sizes: layer -> number of weights, in the order of the columns.
        groups: number of groups; batches are assigned to them in turn.
        batch_size: images per batch (for the noise scale).
        unnormalized: layers not followed by a normalizer, which are left out of the network's angle with its weights.

    Raises:
        ValueError: the number of groups is below 1.
    """

    def __init__(
        self,
        arms: Sequence[str],
        sizes: Mapping[str, int],
        *,
        groups: int = GROUPS,
        batch_size: int = 1,
        unnormalized: Iterable[str] = (),
    ) -> None:
        if groups < 1:
            raise ValueError(f"groups={groups}: give at least one group of batches")
        self.arms, self.sizes, self.batch_size = list(arms), dict(sizes), batch_size
        self.normalized = [layer not in set(unnormalized) for layer in sizes]
        shape = (groups, len(self.sizes), len(self.arms))
        wide: dict[str, Any] = {"dtype": torch.float64}
        self.counts = torch.zeros(groups, dtype=torch.int64)
        self.sums = torch.zeros(groups, len(self.arms), sum(self.sizes.values()), **wide)
        self.products = torch.zeros(*shape, len(self.arms), **wide)
        self.angles = torch.zeros(groups, len(self.sizes) + 1, len(self.arms), 2, **wide)
        self._next = 0

    def add(self, gradients: Tensor, weights: Tensor | None = None) -> None:
        """Add one batch.

        Args:
            gradients: (arms, weights of all layers), any real dtype and device.
            weights: (weights of all layers), at which the gradients were taken; None for no angles.
        """
        group = self._next % len(self.counts)
        self._next += 1
        self.counts[group] += 1
        g = gradients.detach().to("cpu", torch.float64)
        self.sums[group] += g
        parts = g.split(list(self.sizes.values()), dim=1)
        products = torch.stack([part @ part.T for part in parts])
        self.products[group] += products
        if weights is None:
            return
        w = weights.detach().to("cpu", torch.float64).split(list(self.sizes.values()))
        along = torch.stack([part @ own for part, own in zip(parts, w, strict=True)])  # (layers, arms)
        squares = torch.stack([own.square().sum() for own in w])
        lengths = products.diagonal(dim1=1, dim2=2)
        inside = torch.tensor(self.normalized)
        total = along[inside].sum(0) / (squares[inside].sum() * lengths[inside].sum(0)).sqrt()
        cosines = torch.cat([along / (squares[:, None] * lengths).sqrt(), total[None]]).nan_to_num(0.0)
        self.angles[group] += torch.stack([cosines, cosines.square()], -1)

    @property
    def batches(self) -> int:
        """The number of batches added."""
        return int(self.counts.sum())

    def replicas(self) -> Moments:
        """Return the moments of all batches, then of all but one group for each nonempty group.

        Raises:
            ValueError: one of them has fewer than two batches left.
        """
        used = [int(group) for group in self.counts.nonzero().flatten()]
        everything = torch.ones(len(self.counts), dtype=torch.bool)
        kept = [everything]
        for group in used if len(used) > 1 else ():
            kept.append(everything.clone())
            kept[-1][group] = False
        total = self.sums.sum(0)
        made = []
        for keep in kept:
            count = int(self.counts[keep].sum())
            if count < 2:
                raise ValueError(
                    f"{self.batches} batches in {len(used)} groups leave fewer than 2 to a part: "
                    "a variance needs more batches"
                )
            dropped = self.sums[~keep].sum(0)
            parts = (total - dropped).split(list(self.sizes.values()), dim=1)
            crossed = torch.stack([part @ part.T for part in parts])
            summed = self.products[keep].sum(0)
            made.append(
                (
                    # Over pairs of different batches, so that noise shared by arms does not count as signal.
                    (crossed - summed) / (count * (count - 1)),
                    (summed - crossed / count) / (count - 1),
                    self.angles[keep].sum(0) / count,
                )
            )
        means, covariances, angles = (torch.stack(part) for part in zip(*made, strict=True))
        return Moments(_with_network(means), _with_network(covariances), angles)


@dataclass(frozen=True)
class Moments:
    """Estimates of moments for each replica (the first: all batches) and layer (the last: the network).

    Attributes:
        means: (replicas, layers + 1, arms, arms): <E g_a, E g_b>, unbiased.
        covariances: the same shape: the trace of Cov(g_a, g_b), unbiased.
        angles: (replicas, layers + 1, arms, 2): mean and mean square of cos(weight, gradient).
    """

    means: Tensor
    covariances: Tensor
    angles: Tensor


def _with_network(by_layer: Tensor) -> Tensor:
    return torch.cat([by_layer, by_layer.sum(1, keepdim=True)], 1)


def readings(sums: GradientSums, against: Sequence[str] = ()) -> list[Reading]:
    """Return the readings of the sums, for every arm and layer.

    ==================  ==========================================================================================
    ``variance``        trace of the covariance of a batch's gradient
    ``mean_square``     squared length of the mean gradient; negative if noise leaves nothing of it
    ``noise_scale``     batch size * variance / mean_square, in images: B_simple of McCandlish et al. 2018
                        (arXiv 1812.06162), with a batch's covariance times its size for an example's
                        covariance, since examples that share batch statistics have no gradient of their own
    ``variance_ratio``  variance / the other arm's
    ``cosine``          of the angle between the two arms' mean gradients; numerator and denominator are unbiased, so
                        noise does not pull it to 0 (it may exceed 1)
    ``relative_bias``   squared distance of the two mean gradients / squared length of the other arm's
    ``along``           mean over batches of cos(weight, gradient); 0 if the loss does not change with the weight's
                        scale, as before a normalizer whose gradient keeps sum x_k S_k = S
    ``along_rms``       root mean square of the same over batches: nothing cancels
    ==================  ==========================================================================================

    Args:
        sums: of at least two batches.
        against: arms to compare each arm with.

    Raises:
        ValueError: ``against`` names an unknown arm, or there are too few batches.
    """
    for name in against:
        if name not in sums.arms:
            raise ValueError(f"no arm {name!r} to compare with; choose from {', '.join(sums.arms)}")
    moments = sums.replicas()
    variance = moments.covariances.diagonal(dim1=2, dim2=3)
    square = moments.means.diagonal(dim1=2, dim2=3)
    found: dict[tuple[str, str], Tensor] = {
        ("variance", ""): variance,
        ("mean_square", ""): square,
        ("noise_scale", ""): sums.batch_size * variance / square,
    }
    if moments.angles.any():
        found["along", ""] = moments.angles[..., 0]
        found["along_rms", ""] = moments.angles[..., 1].sqrt()
    for name in against:
        other = sums.arms.index(name)
        product, theirs = moments.means[..., other], square[..., other, None]
        found["variance_ratio", name] = variance / variance[..., other, None]
        found["cosine", name] = product / (square * theirs).sqrt()
        found["relative_bias", name] = (square - 2 * product + theirs) / theirs
    rows = []
    for (quantity, other_arm), values in found.items():
        errors = _jackknife(values)
        for place, layer in enumerate((*sums.sizes, NETWORK)):
            for index, arm in enumerate(sums.arms):
                if arm != other_arm:
                    value, error = float(values[0, place, index]), float(errors[place, index])
                    rows.append(Reading(arm, layer, quantity, other_arm, value, error))
    return rows


def _jackknife(values: Tensor) -> Tensor:
    """Return the standard error from replicas (all, all but one group, ...) along dimension 0."""
    left_out = values[1:]
    if len(left_out) < 2:
        return torch.full_like(values[0], math.nan)
    factor = (len(left_out) - 1) / len(left_out)
    return (factor * (left_out - left_out.mean(0)).square().sum(0)).sqrt()
