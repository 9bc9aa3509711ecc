"""The deviations D: one class each, registered by name in ``DEVIATIONS``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from . import gaussian
from .base import Deviation, Saved, Statistic
from .order import OrderStatistics, Window, rank
from .statistics import Mean, Median, Quantile
from .steps import tail_weights


def over(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Return numerator / denominator in place, and 0 where the denominator is 0 (0 is a subgradient there)."""
    return numerator.mul_(torch.where(denominator == 0, 0.0, 1.0 / denominator))


@dataclass(frozen=True)
class Std(Deviation):
    """sqrt(mean (x - mu)^2): the population form, as in batch normalization."""

    name: ClassVar[str] = "std"

    @property
    def about(self) -> Statistic:
        """The mean."""
        return Mean()

    def evaluate(self, rows: Tensor, orders: OrderStatistics) -> tuple[Tensor, Saved]:
        """See :meth:`Functional.evaluate`."""
        mean = orders.mean()
        # a second pass over the centred rows: as accurate as Welford's recurrence, a fifth of its time
        std = (rows - mean).square_().mean(-1, keepdim=True).sqrt_()
        return std, (mean, std)

    def gradient(self, rows: Tensor, saved: Saved) -> Tensor:
        """(x - mu) / (n s)."""
        mean, std = saved
        return over(rows - mean, std * rows.shape[-1])

    def gaussian(self, n: int | None = None) -> float:
        """1."""
        return 1.0


def tail_deviation(rows: Tensor, level: Tensor, alpha: float) -> Tensor:
    """Return superquantile_alpha - mean, given the order statistic of rank ceil(n alpha).

    Written about the level, mean [x - q]_+ / (1 - alpha) - mean (x - q): exact, the atom at q included, without
    cancellation against a large common offset, and 0 on constants.
    """
    centred = rows - level
    below = centred.mean(-1, keepdim=True)
    return (centred.relu_().mean(-1, keepdim=True) / (1.0 - alpha) - below).clamp_min_(0.0)


@dataclass(frozen=True)
class Cvar(Deviation):
    """Superquantile deviation (SQD, CVaR deviation): the mean of the upper share 1 - alpha, minus the mean."""

    name: ClassVar[str] = "cvar"
    alpha: float = 0.75

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
        """1 / (n (1 - alpha)) above the quantile, 0 below it, the rest shared at it; minus 1 / n."""
        return tail_weights(rows, saved[0], self.alpha, -1.0 / rows.shape[-1])

    def gaussian(self, n: int | None = None) -> float:
        """phi(z) / (1 - alpha)."""
        return gaussian.superquantile(self.alpha)


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
        """1 / n above the median and -1 / n below it; the samples at it bring the sum to 0."""
        return tail_weights(rows, saved[0], 0.5, -1.0 / rows.shape[-1])

    def gaussian(self, n: int | None = None) -> float:
        """sqrt(2 / pi)."""
        return math.sqrt(2.0 / math.pi)


DEVIATIONS: dict[str, type[Deviation]] = {cls.name: cls for cls in (Std, Cvar, Mad)}
