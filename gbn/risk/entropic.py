"""The entropic (log-exponential) pair.

It is not positively homogeneous: log mean exp(k x) is not k log mean exp(x). So normalizing by this pair is *not*
invariant to the scale of the input, and the Gaussian constants hold at sigma = 1 only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from .base import Deviation, Saved, Statistic
from .order import OrderStatistics


def log_mean_exp(rows: Tensor, orders: OrderStatistics) -> tuple[Tensor, Tensor]:
    """Return (top, rest) with log mean exp(x) = top + rest and top the maximum: exact on constants."""

    def compute() -> tuple[Tensor, Tensor]:
        top = rows.amax(-1, keepdim=True)
        return top, (rows - top).exp_().mean(-1, keepdim=True).log_()

    return orders.once("log_mean_exp", compute)


def softmax(rows: Tensor, value: Tensor) -> Tensor:
    """Return exp(x - log mean exp x) / n."""
    return (rows - value - math.log(rows.shape[-1])).exp_()


@dataclass(frozen=True)
class Entropic(Statistic):
    """log mean exp(x)."""

    name: ClassVar[str] = "entropic"

    @property
    def homogeneous(self) -> bool:
        """Always False."""
        return False

    def evaluate(self, rows: Tensor, orders: OrderStatistics) -> tuple[Tensor, Saved]:
        """See :meth:`Functional.evaluate`."""
        top, rest = log_mean_exp(rows, orders)
        value = top + rest
        return value, (value,)

    def gradient(self, rows: Tensor, saved: Saved) -> Tensor:
        """Return softmax(x)_k."""
        return softmax(rows, saved[0])

    def gaussian(self, n: int | None = None) -> float:
        """Return 1 / 2, at sigma = 1."""
        return 0.5


@dataclass(frozen=True)
class EntropicDeviation(Deviation):
    """log mean exp(x - mu)."""

    name: ClassVar[str] = "entropic"

    @property
    def homogeneous(self) -> bool:
        """Always False."""
        return False

    @property
    def about(self) -> Statistic:
        """The statistic log mean exp(x)."""
        return Entropic()

    def evaluate(self, rows: Tensor, orders: OrderStatistics) -> tuple[Tensor, Saved]:
        """See :meth:`Functional.evaluate`."""
        top, rest = log_mean_exp(rows, orders)
        above = (top - rows).mean(-1, keepdim=True)
        return (above + rest).clamp_min_(0.0), (top + rest,)

    def gradient(self, rows: Tensor, saved: Saved) -> Tensor:
        """Return softmax(x)_k - 1 / n."""
        return softmax(rows, saved[0]).sub_(1.0 / rows.shape[-1])

    def gaussian(self, n: int | None = None) -> float:
        """Return 1 / 2, at sigma = 1."""
        return 0.5

    def error(self, rows: Tensor) -> Tensor:
        """Return mean (e^x - x - 1)."""
        return (torch.expm1(rows) - rows).mean(-1, keepdim=True)
