"""The expectile, a smooth relative of the quantile, with its two deviations.

e_tau solves tau E[X - e]_+ = (1 - tau) E[e - X]_+ (Newey, Powell 1987): it is the mean with weight tau for samples
above it and 1 - tau for those below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from . import gaussian
from .base import Deviation, Saved, Statistic
from .order import OrderStatistics, traced
from .parameters import TAU
from .steps import over, steps

#: Newton's method takes about 5 steps, 15 at extreme tau; the bound only guards against rounding cycles.
_MOST_STEPS = 64


def _expectile_eagerly(rows: Tensor, mean: Tensor, tau: float) -> Tensor:
    """Run Newton's method from the mean: monotone, and exact as soon as the set above stays the same."""
    e, n = mean.clone(), rows.shape[-1]
    n_before = torch.full_like(e, -1.0)
    for _ in range(_MOST_STEPS):
        excess = (rows - e).relu_()
        above = excess.sum(-1, keepdim=True)
        n_above = excess.sign_().sum(-1, keepdim=True)
        # sum w (x - e) / sum w, with sum [x - e]_- = sum [x - e]_+ - n (mean - e)
        force = (2.0 * tau - 1.0) * above + (1.0 - tau) * n * (mean - e)
        e = e + force / ((2.0 * tau - 1.0) * n_above + (1.0 - tau) * n)
        if bool(((n_above == n_before) | e.isnan()).all()):
            break
        n_before = n_above
    return e


_expectile_operator = torch.library.custom_op("gbn::expectile", _expectile_eagerly, mutates_args=())


@_expectile_operator.register_fake
def _(rows: Tensor, mean: Tensor, tau: float) -> Tensor:
    return torch.empty_like(mean)


def expectile_of(rows: Tensor, orders: OrderStatistics, tau: float) -> Tensor:
    """Return the expectile of each row, computed once for a statistic and its deviation."""
    solve = _expectile_operator if traced(rows) else _expectile_eagerly
    return orders.once(("expectile", tau), lambda: solve(rows, orders.mean(), tau))


def expectile_weights(rows: Tensor, e: Tensor, tau: float) -> Tensor:
    """Return d e / d x: w / sum w."""
    side = steps(rows, e)
    total = tau * side.n_above + 0.5 * side.n_at + (1.0 - tau) * side.n_below
    return side.weights((1.0 - tau) / total, 0.5 / total, tau / total)


@dataclass(frozen=True)
class Expectile(Statistic):
    """The tau-expectile."""

    name: ClassVar[str] = "expectile"
    tau: float = TAU.default

    def evaluate(self, rows: Tensor, orders: OrderStatistics) -> tuple[Tensor, Saved]:
        """See :meth:`Functional.evaluate`."""
        e = expectile_of(rows, orders, self.tau)
        return e, (e,)

    def gradient(self, rows: Tensor, saved: Saved) -> Tensor:
        """Return w_k / sum w."""
        return expectile_weights(rows, saved[0], self.tau)

    def gaussian(self, n: int | None = None) -> float:
        """Return the expectile of the standard normal distribution."""
        return gaussian.expectile(self.tau)


@dataclass(frozen=True)
class ExpectileDeviation(Deviation):
    """sqrt(mean w (x - e)^2), w = tau above the expectile e and 1 - tau below it."""

    name: ClassVar[str] = "expectile"
    tau: float = TAU.default

    @property
    def about(self) -> Statistic:
        """The expectile at the same tau."""
        return Expectile(tau=self.tau)

    def _pull(self, centered: Tensor) -> Tensor:
        """Return w (x - e)."""
        return centered.relu().mul_(2.0 * self.tau - 1.0).add_(centered, alpha=1.0 - self.tau)

    def evaluate(self, rows: Tensor, orders: OrderStatistics) -> tuple[Tensor, Saved]:
        """See :meth:`Functional.evaluate`."""
        e = expectile_of(rows, orders, self.tau)
        centered = rows - e
        value = self._pull(centered).mul_(centered).mean(-1, keepdim=True).sqrt_()
        return value, (e, value)

    def gradient(self, rows: Tensor, saved: Saved) -> Tensor:
        """Return w_k (x_k - e) / (n d); e is the minimizer, so its own change does not contribute."""
        e, value = saved
        return over(self._pull(rows - e), value * rows.shape[-1])

    def gaussian(self, n: int | None = None) -> float:
        """Return the value for the standard normal distribution."""
        return gaussian.expectile_deviation(self.tau)

    def error(self, rows: Tensor) -> Tensor:
        """Return sqrt(mean (tau x_+^2 + (1 - tau) x_-^2))."""
        up = rows.clamp_min(0.0) * math.sqrt(self.tau)
        down = (-rows).clamp_min(0.0) * math.sqrt(1.0 - self.tau)
        return torch.linalg.vector_norm(up + down, dim=-1, keepdim=True) / math.sqrt(rows.shape[-1])


@dataclass(frozen=True)
class ExpectileRisk(Deviation):
    """e_tau - mean, tau > 1/2."""

    name: ClassVar[str] = "expectile_risk"
    tau: float = TAU.default

    @property
    def about(self) -> Statistic:
        """The expectile at the same tau."""
        return Expectile(tau=self.tau)

    def evaluate(self, rows: Tensor, orders: OrderStatistics) -> tuple[Tensor, Saved]:
        """See :meth:`Functional.evaluate`."""
        e = expectile_of(rows, orders, self.tau)
        return (e - orders.mean()).clamp_min_(0.0), (e,)

    def gradient(self, rows: Tensor, saved: Saved) -> Tensor:
        """Return w_k / sum w - 1 / n."""
        return expectile_weights(rows, saved[0], self.tau).sub_(1.0 / rows.shape[-1])

    def gaussian(self, n: int | None = None) -> float:
        """Return the expectile of the standard normal distribution."""
        return gaussian.expectile(self.tau)
