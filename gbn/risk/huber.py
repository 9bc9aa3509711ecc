"""Huber's location and the mean Huber loss about it.

The loss is z^2 / (2 b) up to b and abs(z) - b / 2 beyond (Huber 1964, divided by b, so that b -> 0 gives the
mean absolute deviation about the median). With ``scaled`` the threshold is b standard deviations of the row: the
deviation is then positively homogeneous, but only nearly subadditive. With a fixed threshold it is convex but not
homogeneous.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from . import gaussian
from .base import Deviation, Saved, Statistic
from .order import OrderStatistics, traced
from .parameters import SCALED, B
from .steps import over

#: Safeguarded Newton steps; about 5 are taken, while bisection alone would need one per bit.
_MOST_STEPS = 100


def _locate_eagerly(rows: Tensor, start: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """Solve sum clip(x - S, -t, t) = 0; return S and the reach within which samples move it.

    The reach is the threshold, unless no sample lies within it: then every S between two samples is a
    minimizer, S is their midpoint, and the reach is the distance to both. It is 0 on constant rows.
    """
    n = rows.shape[-1]
    far = torch.tensor(torch.inf, dtype=rows.dtype, device=rows.device)
    low = torch.nextafter(rows.amin(-1, keepdim=True), -far)  # the bracket is open: S may be a sample
    high = torch.nextafter(rows.amax(-1, keepdim=True), far)
    eps = torch.finfo(rows.dtype).eps
    location = start.clone()
    for _ in range(_MOST_STEPS):
        centered = rows - location
        clipped = torch.minimum(centered, threshold).clamp_min_(-threshold)
        force = clipped.sum(-1, keepdim=True)
        low, high = torch.where(force >= 0, location, low), torch.where(force <= 0, location, high)
        n_inside = n - centered.sub_(clipped).sign_().abs_().sum(-1, keepdim=True)
        newton = location + force / n_inside
        inside = (newton > low) & (newton < high) & (n_inside > 0)
        proposal = torch.where(inside, newton, 0.5 * (low + high))
        small = force.abs() <= 4 * eps * n * threshold
        if bool((small | (proposal == location) | force.isnan()).all()):
            break
        location = torch.where(small, location, proposal)
    centered = rows - location
    gap = centered.abs().amin(-1, keepdim=True)
    rounding = 16 * eps * (location.abs() + threshold)  # the location may be at an end of the flat part
    flat = (gap >= threshold - rounding) & (threshold > rounding)
    # samples closer together than rounding resolves count as a constant row
    reach = torch.where((gap >= threshold) & ~flat, 0.0, threshold)
    if not bool(flat.any()):
        return location, reach
    below = rows.masked_fill(centered > 0, -torch.inf).amax(-1, keepdim=True)
    above = rows.masked_fill(centered < 0, torch.inf).amin(-1, keepdim=True)
    middle, half = 0.5 * (below + above), 0.5 * (above - below)
    return torch.where(flat, middle, location), torch.where(flat, half * (1.0 + 16 * eps), reach)


_locate_operator = torch.library.custom_op("gbn::huber_location", _locate_eagerly, mutates_args=())


@_locate_operator.register_fake
def _(rows: Tensor, start: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(start), torch.empty_like(threshold)


def _scale(rows: Tensor, orders: OrderStatistics) -> Tensor:
    """Return the standard deviation of each row."""
    return orders.once("std", lambda: (rows - orders.mean()).square_().mean(-1, keepdim=True).sqrt_())


def _solve(rows: Tensor, orders: OrderStatistics, b: float, scaled: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return location, reach and threshold, computed once for a statistic and its deviation."""

    def compute() -> tuple[Tensor, Tensor, Tensor]:
        threshold = b * _scale(rows, orders) if scaled else torch.full_like(rows[..., :1], b)
        locate = _locate_operator if traced(rows) else _locate_eagerly
        location, reach = locate(rows, orders.mean(), threshold)
        return location, reach, threshold

    return orders.once(("huber", b, scaled), compute)


@dataclass(frozen=True)
class Huber(Statistic):
    """Huber's location: the minimizer of the mean Huber loss."""

    name: ClassVar[str] = "huber"
    b: float = B.default
    scaled: bool = SCALED.default

    @property
    def homogeneous(self) -> bool:
        """True only if the threshold follows the data."""
        return self.scaled

    def evaluate(self, rows: Tensor, orders: OrderStatistics) -> tuple[Tensor, Saved]:
        """See :meth:`Functional.evaluate`."""
        location, reach, threshold = _solve(rows, orders, self.b, self.scaled)
        saved = (location, reach, threshold)
        return location, (*saved, orders.mean(), _scale(rows, orders)) if self.scaled else saved

    def gradient(self, rows: Tensor, saved: Saved) -> Tensor:
        """Return 1 / count for the samples within the threshold, minus the effect of the threshold's own change.

        On a constant row every sample has 1 / n.
        """
        location, reach, threshold = saved[:3]
        centered = rows - location
        inside = (reach - centered.abs()).sign_().add_(torch.where(reach == 0, 2.0, 0.0)).clamp_(0.0, 1.0)
        count = inside.sum(-1, keepdim=True)
        signed = centered.sign().mul_(inside)
        balance = signed.sum(-1, keepdim=True)
        # two samples (and ties with them) on either side of a flat minimum: each side has half
        flat = reach > threshold
        n_above, n_below = 0.5 * (count + balance), 0.5 * (count - balance)
        level = torch.where(flat, 0.25 / n_below + 0.25 / n_above, 1.0 / count)
        slope = torch.where(flat, 0.25 / n_above - 0.25 / n_below, 0.0)
        if not self.scaled:
            return inside.mul_(level).add_(signed.mul_(slope))
        mean, std = saved[3:]
        pull = centered.mul_(inside).sum(-1, keepdim=True) / count
        pull = torch.where(flat | (std == 0), 0.0, pull / (rows.shape[-1] * std.square()))
        return inside.mul_(level).add_(signed.mul_(slope)).sub_((rows - mean).mul_(pull))

    def gaussian(self, n: int | None = None) -> float:
        """Return 0."""
        return 0.0


@dataclass(frozen=True)
class HuberDeviation(Deviation):
    """The mean Huber loss about Huber's location."""

    name: ClassVar[str] = "huber"
    b: float = B.default
    scaled: bool = SCALED.default

    @property
    def homogeneous(self) -> bool:
        """True only if the threshold follows the data."""
        return self.scaled

    @property
    def about(self) -> Statistic:
        """Huber's location with the same threshold."""
        return Huber(b=self.b, scaled=self.scaled)

    def evaluate(self, rows: Tensor, orders: OrderStatistics) -> tuple[Tensor, Saved]:
        """See :meth:`Functional.evaluate`."""
        location, _, threshold = _solve(rows, orders, self.b, self.scaled)
        centered = rows - location
        clipped = torch.minimum(centered, threshold).clamp_min_(-threshold)
        value = over(clipped.mul(centered.sub_(clipped, alpha=0.5)).mean(-1, keepdim=True), threshold)
        if not self.scaled:
            return value, (location, threshold)
        spread = clipped.square_().mean(-1, keepdim=True)
        return value, (location, threshold, spread, orders.mean(), _scale(rows, orders))

    def gradient(self, rows: Tensor, saved: Saved) -> Tensor:
        """Return clip((x_k - S) / b, -1, 1) / n, plus the effect of the threshold if it follows the data."""
        n = rows.shape[-1]
        location, threshold = saved[:2]
        centered = rows - location
        clipped = torch.minimum(centered, threshold).clamp_min_(-threshold)
        gradient = over(clipped, threshold * n)
        if not self.scaled:
            return gradient
        spread, mean, std = saved[2:]
        # per unit of b the loss falls by (min(abs(z), b) / b)^2 / 2; per unit of s, b changes by b / s
        fall = torch.where(std == 0, 0.0, 0.5 * spread / (threshold * std.square() * n))
        return gradient.sub_((rows - mean).mul_(fall))

    def gaussian(self, n: int | None = None) -> float:
        """Return the mean Huber loss of the standard normal distribution."""
        return gaussian.huber(self.b)

    def error(self, rows: Tensor) -> Tensor:
        """Return the mean Huber loss of x itself; a scaled threshold follows the deviation of x from its mean."""
        if self.scaled:
            centered = rows - rows.mean(-1, keepdim=True)
            norm = torch.linalg.vector_norm(centered, dim=-1, keepdim=True)
            # a constant row: the loss tends to abs(x)
            threshold = (self.b * norm / rows.shape[-1] ** 0.5).clamp_min(torch.finfo(rows.dtype).tiny)
        else:
            threshold = torch.full_like(rows[..., :1], self.b)
        size = rows.abs()
        clipped = torch.minimum(size, threshold)
        return (clipped / threshold * (size - 0.5 * clipped)).mean(-1, keepdim=True)
