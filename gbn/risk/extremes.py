"""Deviations made of the maximum and the minimum: range, worst_case, upper_range, lower_range.

Their Gaussian constants depend on the sample size: the expected maximum grows without bound. The modes of
``quantile_gradient`` act on their extremes through one-sided windows (``gbn.risk.ranks``); ``mean`` and
``detached`` leave these deviations exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .base import Deviation, Statistic
from .moments import AboutMean
from .quantiles import Maximum, Midrange
from .ranks import RankSum, Term


@dataclass(frozen=True)
class Range(RankSum, Deviation):
    """(maximum - minimum) / 2."""

    name: ClassVar[str] = "range"

    @property
    def terms(self) -> tuple[Term, ...]:
        """Half the maximum, minus half the minimum."""
        return Term(0.5, 1.0), Term(-0.5, 0.0)

    @property
    def about(self) -> Statistic:
        """The midrange."""
        return Midrange(quantile_gradient=self.quantile_gradient, window=self.window)

    def error(self, rows: Tensor) -> Tensor:
        """Return max abs(x)."""
        return rows.abs().amax(-1, keepdim=True)


class _MaximumMinusMean(RankSum, Deviation):
    @property
    def terms(self) -> tuple[Term, ...]:
        """The maximum."""
        return (Term(1.0, 1.0),)

    @property
    def mean_weight(self) -> float:
        """The mean is subtracted."""
        return -1.0


@dataclass(frozen=True)
class WorstCase(_MaximumMinusMean):
    """maximum - mean, about the maximum: the limit of cvar as alpha goes to 1."""

    name: ClassVar[str] = "worst_case"

    @property
    def about(self) -> Statistic:
        """The maximum."""
        return Maximum(quantile_gradient=self.quantile_gradient, window=self.window)


@dataclass(frozen=True)
class UpperRange(_MaximumMinusMean, AboutMean):
    """maximum - mean, about the mean."""

    name: ClassVar[str] = "upper_range"


@dataclass(frozen=True)
class LowerRange(RankSum, AboutMean):
    """mean - minimum, about the mean."""

    name: ClassVar[str] = "lower_range"

    @property
    def terms(self) -> tuple[Term, ...]:
        """The minimum, subtracted."""
        return (Term(-1.0, 0.0),)

    @property
    def mean_weight(self) -> float:
        """The mean is added."""
        return 1.0
