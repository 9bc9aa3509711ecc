"""Deviations made of superquantiles (tail means): cvar, mad, mixed_cvar, quantile_radius.

superquantile_alpha(X) is the mean of the upper share 1 - alpha of X. The quantile at which it starts is the
order statistic of rank ceil(n alpha), exact including the atom there (Rockafellar, Uryasev 2000, 2013).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from . import gaussian
from .base import Deviation, Saved, Statistic
from .order import OrderStatistics, Window, rank
from .parameters import ALPHA, ALPHAS, WEIGHTS
from .quantiles import Median, MixedQuantile, Quantile, QuantileMidpoint
from .steps import tail_weights


def tail_deviation(rows: Tensor, level: Tensor, alpha: float) -> Tensor:
    """Return superquantile_alpha - mean, given the order statistic of rank ceil(n alpha).

    Written about the level, as mean [x - q]_+ / (1 - alpha) - mean (x - q): exact, including the atom at q,
    without cancellation against a large common offset, and 0 on constants.
    """
    centered = rows - level
    below = centered.mean(-1, keepdim=True)
    return (centered.relu_().mean(-1, keepdim=True) / (1.0 - alpha) - below).clamp_min_(0.0)


@dataclass(frozen=True)
class Cvar(Deviation):
    """Superquantile deviation (SQD, CVaR deviation): superquantile_alpha - mean."""

    name: ClassVar[str] = "cvar"
    alpha: float = ALPHA.default

    @property
    def about(self) -> Statistic:
        """The quantile at the same alpha."""
        return Quantile(alpha=self.alpha)

    def needs(self, n: int) -> tuple[tuple[int, ...], tuple[Window, ...]]:
        """See :meth:`Functional.needs`."""
        return (rank(n, self.alpha),), ()

    def evaluate(self, rows: Tensor, orders: OrderStatistics) -> tuple[Tensor, Saved]:
        """See :meth:`Functional.evaluate`."""
        level = orders.kth(rank(rows.shape[-1], self.alpha))
        return tail_deviation(rows, level, self.alpha), (level,)

    def gradient(self, rows: Tensor, saved: Saved) -> Tensor:
        """Return 1 / (n (1 - alpha)) above the quantile, 0 below it, the rest shared at it; minus 1 / n."""
        return tail_weights(rows, saved[0], self.alpha, -1.0 / rows.shape[-1])

    def gaussian(self, n: int | None = None) -> float:
        """Return phi(z) / (1 - alpha)."""
        return gaussian.superquantile(self.alpha)

    def error(self, rows: Tensor) -> Tensor:
        """Return mean (alpha / (1 - alpha) x_+ + x_-), the normalized Koenker-Bassett error."""
        up = rows.clamp_min(0.0).mean(-1, keepdim=True)
        down = (-rows).clamp_min(0.0).mean(-1, keepdim=True)
        return self.alpha / (1.0 - self.alpha) * up + down


@dataclass(frozen=True)
class Mad(Deviation):
    """Mean absolute deviation about the median: the superquantile deviation at alpha = 1/2."""

    name: ClassVar[str] = "mad"

    @property
    def about(self) -> Statistic:
        """The median."""
        return Median()

    def needs(self, n: int) -> tuple[tuple[int, ...], tuple[Window, ...]]:
        """See :meth:`Functional.needs`."""
        return (rank(n, 0.5),), ()

    def evaluate(self, rows: Tensor, orders: OrderStatistics) -> tuple[Tensor, Saved]:
        """See :meth:`Functional.evaluate`."""
        level = orders.kth(rank(rows.shape[-1], 0.5))
        return (rows - level).abs_().mean(-1, keepdim=True), (level,)

    def gradient(self, rows: Tensor, saved: Saved) -> Tensor:
        """Return 1 / n above the median and -1 / n below it; the samples at it bring the sum to 0."""
        return tail_weights(rows, saved[0], 0.5, -1.0 / rows.shape[-1])

    def gaussian(self, n: int | None = None) -> float:
        """Return sqrt(2 / pi)."""
        return math.sqrt(2.0 / math.pi)

    def error(self, rows: Tensor) -> Tensor:
        """Return mean abs(x)."""
        return rows.abs().mean(-1, keepdim=True)


@dataclass(frozen=True)
class MixedCvar(Deviation):
    """sum_k weight_k superquantile_{alpha_k} - mean."""

    name: ClassVar[str] = "mixed_cvar"
    weights: tuple[float, ...] = WEIGHTS.default
    alphas: tuple[float, ...] = ALPHAS.default

    @property
    def about(self) -> Statistic:
        """The mixed quantile with the same weights and alphas."""
        return MixedQuantile(weights=self.weights, alphas=self.alphas)

    def needs(self, n: int) -> tuple[tuple[int, ...], tuple[Window, ...]]:
        """See :meth:`Functional.needs`."""
        return tuple(rank(n, alpha) for alpha in self.alphas), ()

    def evaluate(self, rows: Tensor, orders: OrderStatistics) -> tuple[Tensor, Saved]:
        """See :meth:`Functional.evaluate`."""
        levels = tuple(orders.kth(rank(rows.shape[-1], alpha)) for alpha in self.alphas)
        parts = [
            weight * tail_deviation(rows, level, alpha)
            for weight, level, alpha in zip(self.weights, levels, self.alphas, strict=True)
        ]
        return torch.stack(parts).sum(0), levels

    def gradient(self, rows: Tensor, saved: Saved) -> Tensor:
        """Return the weighted sum of the gradients of the superquantile deviations."""
        shift = -1.0 / rows.shape[-1]
        parts = [
            tail_weights(rows, level, alpha, shift).mul_(weight)
            for weight, level, alpha in zip(self.weights, saved, self.alphas, strict=True)
        ]
        total = parts[0]
        for part in parts[1:]:
            total = total.add_(part)
        return total

    def gaussian(self, n: int | None = None) -> float:
        """Return sum_k weight_k phi(z_k) / (1 - alpha_k)."""
        pairs = zip(self.weights, self.alphas, strict=True)
        return math.fsum(weight * gaussian.superquantile(alpha) for weight, alpha in pairs)

    def error(self, rows: Tensor) -> Tensor:
        """Return the mixed error, min { sum_k weight_k E_k(X - B_k) : sum_k weight_k B_k = 0 }.

        E_k is the Koenker-Bassett error at alpha_k (Rockafellar, Uryasev 2013, mixed-quantile quadrangle).
        By duality it is the maximum over u of sum_k weight_k / (1 - alpha_k) T(beta_k) - mean(X), with
        beta_k = 1 - (1 - alpha_k)(1 - u) and T(beta) the integral of the quantile function from beta to 1.
        This is concave and piecewise linear in u, with breaks where some n beta_k is an integer.
        """
        n = rows.shape[-1]
        # suffix[j] = T(j / n): the sum of the n - j largest samples, divided by n
        ordered = rows.sort(-1)[0]
        suffix = torch.cat([ordered.flip(-1).cumsum(-1).flip(-1), torch.zeros_like(rows[..., :1])], -1) / n
        share = torch.arange(n + 1, dtype=torch.float64, device=rows.device) / n
        breaks = torch.cat([(1.0 - share) / (1.0 - alpha) for alpha in self.alphas])  # 1 - u
        # below beta_k = 0 for some k the dual is minus infinity
        breaks = breaks[breaks <= 1.0 / (1.0 - min(self.alphas)) + 1e-12]
        dual = -rows.mean(-1, keepdim=True)
        for weight, alpha in zip(self.weights, self.alphas, strict=True):
            place = ((1.0 - (1.0 - alpha) * breaks) * n).clamp(0, n)
            index = place.floor().long().clamp_max(n - 1)
            part = (place - index).to(rows.dtype)
            tail = suffix[..., index] * (1.0 - part) + suffix[..., index + 1] * part
            dual = dual + weight / (1.0 - alpha) * tail
        return dual.amax(-1, keepdim=True)


@dataclass(frozen=True)
class QuantileRadius(Deviation):
    """(superquantile_alpha(X) + superquantile_alpha(-X)) / 2: half the distance between the tail means."""

    name: ClassVar[str] = "quantile_radius"
    alpha: float = ALPHA.default

    @property
    def about(self) -> Statistic:
        """The midpoint of the two quantiles."""
        return QuantileMidpoint(alpha=self.alpha)

    def needs(self, n: int) -> tuple[tuple[int, ...], tuple[Window, ...]]:
        """See :meth:`Functional.needs`."""
        m = rank(n, self.alpha)
        return (m, n + 1 - m), ()

    def evaluate(self, rows: Tensor, orders: OrderStatistics) -> tuple[Tensor, Saved]:
        """See :meth:`Functional.evaluate`."""
        n = rows.shape[-1]
        m = rank(n, self.alpha)
        upper, lower = orders.kth(m), orders.kth(n + 1 - m)
        above = (rows - upper).relu_().mean(-1, keepdim=True)
        below = (lower - rows).relu_().mean(-1, keepdim=True)
        return 0.5 * ((above + below) / (1.0 - self.alpha) + (upper - lower)), (upper, lower)

    def gradient(self, rows: Tensor, saved: Saved) -> Tensor:
        """Return half the upper superquantile's weights minus half the lower one's."""
        upper, lower = saved
        return tail_weights(rows, upper, self.alpha).sub_(tail_weights(-rows, -lower, self.alpha)).mul_(0.5)

    def gaussian(self, n: int | None = None) -> float:
        """Return phi(z) / (1 - alpha)."""
        return gaussian.superquantile(self.alpha)

    def error(self, rows: Tensor) -> Tensor:
        """Return the superquantile of abs(X) at level 2 alpha - 1.

        The quadrangle's error is min_B [E(X + B) + E(B - X)] / 2 with the Koenker-Bassett error E
        (Rockafellar, Uryasev 2013, the reverting theorem). For alpha >= 1/2 the minimum over B is attained
        at B = -b <= 0, where the sum is 2 mean(b + [abs(X) - b]_+ / (2 (1 - alpha))): the superquantile's
        own formula.
        """
        level = 2.0 * self.alpha - 1.0
        size = rows.abs()
        if level == 0.0:
            return size.mean(-1, keepdim=True)
        deviation = Cvar(alpha=level)
        return deviation(size, -1, keepdim=True) + size.mean(-1, keepdim=True)
