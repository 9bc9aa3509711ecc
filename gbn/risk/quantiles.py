"""Statistics made of order statistics: quantile, median, mixed quantile, midpoints, extremes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .base import Statistic
from .parameters import ALPHA, ALPHAS, WEIGHTS
from .ranks import RankSum, Term


@dataclass(frozen=True)
class Quantile(RankSum, Statistic):
    """The lower alpha-quantile: the order statistic of rank ceil(n alpha)."""

    name: ClassVar[str] = "quantile"
    alpha: float = ALPHA.default

    @property
    def terms(self) -> tuple[Term, ...]:
        """One order statistic."""
        return (Term(1.0, self.alpha),)


@dataclass(frozen=True)
class Median(RankSum, Statistic):
    """The lower median: the order statistic of rank ceil(n / 2)."""

    name: ClassVar[str] = "median"

    @property
    def terms(self) -> tuple[Term, ...]:
        """One order statistic."""
        return (Term(1.0, 0.5),)


@dataclass(frozen=True)
class MixedQuantile(RankSum, Statistic):
    """sum_k weight_k q_{alpha_k}."""

    name: ClassVar[str] = "mixed_quantile"
    weights: tuple[float, ...] = WEIGHTS.default
    alphas: tuple[float, ...] = ALPHAS.default

    @property
    def terms(self) -> tuple[Term, ...]:
        """One order statistic per weight."""
        return tuple(Term(weight, alpha) for weight, alpha in zip(self.weights, self.alphas, strict=True))


@dataclass(frozen=True)
class QuantileMidpoint(RankSum, Statistic):
    """(q_alpha(X) - q_alpha(-X)) / 2, the statistic of the quantile-radius quadrangle."""

    name: ClassVar[str] = "quantile_midpoint"
    alpha: float = ALPHA.default

    @property
    def terms(self) -> tuple[Term, ...]:
        """The ranks ceil(n alpha) and n + 1 - ceil(n alpha)."""
        return Term(0.5, self.alpha), Term(0.5, self.alpha, mirrored=True)


@dataclass(frozen=True)
class Midrange(RankSum, Statistic):
    """(maximum + minimum) / 2."""

    name: ClassVar[str] = "midrange"

    @property
    def terms(self) -> tuple[Term, ...]:
        """Both extremes."""
        return Term(0.5, 1.0), Term(0.5, 0.0)


@dataclass(frozen=True)
class Maximum(RankSum, Statistic):
    """The maximum. Followed by a ReLU at gain 1 and bias 0 it makes a dead layer: no output is positive."""

    name: ClassVar[str] = "maximum"

    @property
    def terms(self) -> tuple[Term, ...]:
        """One extreme."""
        return (Term(1.0, 1.0),)
