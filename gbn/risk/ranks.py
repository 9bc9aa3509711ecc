"""Weighted sums of order statistics, and the six ways in which a gradient passes through them.

The exact derivative of an order statistic is one-hot: a one-sample estimate of the derivative of the
population quantile, E[dx | x = q], unbiased in the limit and of enormous variance. ``quantile_gradient``
says what to do about it. The window consists of r = floor(window n) ranks on each side of rank m, cut off at the
extremes:

=================  =======================================================  =========  ===========
mode               gradient                                                 sum = 1    sum x = S
=================  =======================================================  =========  ===========
exact              the sample of rank m; tied samples share                 yes        yes
window             uniform over the window                                  yes        no
window_centred     over the window, tilted linearly in x so that its        yes        yes
                   mean is the order statistic
smoothed           the *value* is the window's mean (an L-estimator in the  yes        yes
                   manner of Harrell and Davis 1982), with its exact
                   gradient
mean               uniform over all samples                                 yes        no
detached           none                                                     no         no
=================  =======================================================  =========  ===========

Samples tied at an edge of the window share the weight of the ranks that lie inside.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from . import gaussian
from .base import Functional, Saved
from .order import OrderStatistics, Window, rank
from .parameters import MODE, WINDOW
from .steps import steps


class Term(NamedTuple):
    """``weight`` times the order statistic of rank ceil(n ``level``); level 0 is the minimum, 1 the maximum.

    ``mirrored`` counts ranks from the top: the order statistic of rank n + 1 - ceil(n level).
    """

    weight: float
    level: float
    mirrored: bool = False

    def rank(self, n: int) -> int:
        """Return the 1-based rank among n samples."""
        m = rank(n, self.level)
        return n + 1 - m if self.mirrored else m

    @property
    def gaussian_level(self) -> float:
        """The level in a continuous distribution."""
        return 1.0 - self.level if self.mirrored else self.level


def window_weights(rows: Tensor, lower: Tensor, upper: Tensor, lo: int, hi: int) -> Tensor:
    """Return uniform weights that sum to 1 on the samples of rank lo ... hi, from lower to upper."""
    width = hi - lo + 1
    if rows.device.type == "cpu" and not torch.compiler.is_compiling():
        # half the passes if the samples from lower to upper are exactly those of rank lo to hi, that is, if no tie at
        # an edge extends beyond the window; elsewhere this test would cost a synchronization or a graph break
        outside = torch.maximum(rows, lower).clamp_max_(upper).sub_(rows).sign_().abs_()
        if bool((rows.shape[-1] - outside.sum(-1) == width).all()):
            return outside.sub_(1.0).mul_(-1.0 / width)
    at_lower, at_upper = steps(rows, lower), steps(rows, upper)
    open_window = (lower < upper).to(rows.dtype)
    # ranks of the window that belong to samples tied with an edge; half of all for each if the edges coincide
    ranks_lower = torch.where(lower < upper, at_lower.n_below + at_lower.n_at - (lo - 1), 0.5 * width)
    ranks_upper = torch.where(lower < upper, hi - at_upper.n_below, 0.5 * width)
    # (sign - sign) / 2 is 1 inside, 0 outside and 1/2 at each edge: correct the edges to their share
    share_lower = ranks_lower / (at_lower.n_at * width) - 0.5 * open_window / width
    share_upper = ranks_upper / (at_upper.n_at * width) - 0.5 * open_window / width
    weights = at_lower.sign.sub_(at_upper.sign).mul_(0.5 / width)
    weights.addcmul_(at_lower.away, -share_lower).addcmul_(at_upper.away, -share_upper)
    return weights.add_(share_lower + share_upper)


@dataclass(frozen=True)
class RankSum(Functional):
    """A weighted sum of order statistics, plus ``mean_weight`` times the mean.

    Subclasses define ``terms``; the weights and ``mean_weight`` sum to 1 in a statistic and 0 in a deviation.
    """

    quantile_gradient: str = MODE.default
    window: float = WINDOW.default

    @property
    def terms(self) -> tuple[Term, ...]:
        """The order statistics of the sum."""
        raise NotImplementedError

    @property
    def mean_weight(self) -> float:
        """The weight of the mean."""
        return 0.0

    @property
    def _mode(self) -> str:
        """The effective mode: ``mean`` and ``detached`` do not apply to a deviation, which stays exact."""
        inert = self.kind == "deviation" and self.quantile_gradient in ("mean", "detached")
        return "exact" if inert else self.quantile_gradient

    def _windows(self, n: int) -> list[Window]:
        reach = math.floor(self.window * n + 1e-9 * n)
        middles = [term.rank(n) for term in self.terms]
        return [(max(1, m - reach), min(n, m + reach)) for m in middles]

    def needs(self, n: int) -> tuple[tuple[int, ...], tuple[Window, ...]]:
        """See :meth:`Functional.needs`."""
        ranks = tuple(term.rank(n) for term in self.terms) if self._mode != "smoothed" else ()
        if self._mode not in ("window", "window_centred", "smoothed"):
            return ranks, ()
        windows = tuple(self._windows(n))
        edges = tuple(edge for window in windows for edge in window)
        return (*ranks, *edges), (() if self._mode == "window" else windows)

    def evaluate(self, rows: Tensor, orders: OrderStatistics) -> tuple[Tensor, Saved]:
        """See :meth:`Functional.evaluate`."""
        n = rows.shape[-1]
        values: list[Tensor] = []
        saved: list[Tensor] = []
        for term, (lo, hi) in zip(self.terms, self._windows(n), strict=True):
            if self._mode == "smoothed":
                value = orders.moments(lo, hi)[0]
            else:
                value = orders.kth(term.rank(n))
            values.append(value)
            if self._mode == "exact":
                saved.append(value)
            if self._mode in ("window", "window_centred", "smoothed"):
                saved += [orders.kth(lo), orders.kth(hi)]
            if self._mode == "window_centred":
                mean, variance = orders.moments(lo, hi)
                tilt = torch.where(variance > 0, (value - mean) / variance, 0.0)
                saved += [mean, tilt]
        return self._total(rows, values), tuple(saved)

    def _total(self, rows: Tensor, values: list[Tensor]) -> Tensor:
        total = values[0] * self.terms[0].weight
        for term, value in zip(self.terms[1:], values[1:], strict=True):
            total = total + term.weight * value
        if not self.mean_weight:
            return total
        # the mean of differences, so that a constant row gives 0 whatever the rounding
        anchor = total / -self.mean_weight
        return (self.mean_weight * (rows - anchor).mean(-1, keepdim=True)).clamp_min_(0.0)

    def gradient(self, rows: Tensor, saved: Saved) -> Tensor:
        """See :meth:`Functional.gradient`."""
        n = rows.shape[-1]
        level = self.mean_weight / n
        if self._mode in ("mean", "detached"):
            if self._mode == "mean":
                level += math.fsum(term.weight for term in self.terms) / n
            return torch.full_like(rows[..., :1], level).expand_as(rows)
        gradient: Tensor | None = None
        each = len(saved) // len(self.terms)
        for i, (term, (lo, hi)) in enumerate(zip(self.terms, self._windows(n), strict=True)):
            kept = saved[i * each : (i + 1) * each]
            if self._mode == "exact":
                side = steps(rows, kept[0])
                part = side.weights(0.0, 1.0 / side.n_at, 0.0)
            else:
                part = window_weights(rows, kept[0], kept[1], lo, hi)
            if self._mode == "window_centred":
                part = part.mul_((rows - kept[2]).mul_(kept[3]).add_(1.0))
            part = part.mul_(term.weight) if term.weight != 1.0 else part
            gradient = part if gradient is None else gradient.add_(part)
        assert gradient is not None
        return gradient.add_(level) if level else gradient

    def gaussian(self, n: int | None = None) -> float:
        """See :meth:`Functional.gaussian`; the mean contributes 0."""
        # opposite extremes of equal weight cancel (midrange), so the sample size does not matter
        terms = self.terms
        if math.fsum(term.weight * (2.0 * term.gaussian_level - 1.0) for term in terms) == 0.0 and all(
            term.gaussian_level in (0.0, 1.0) for term in terms
        ):
            return 0.0
        return math.fsum(term.weight * self._gaussian_term(term, n) for term in terms)

    def _gaussian_term(self, term: Term, n: int | None) -> float:
        level = term.gaussian_level
        if self._mode == "smoothed":
            return gaussian.window_mean(max(0.0, level - self.window), min(1.0, level + self.window))
        if 0.0 < level < 1.0:
            return gaussian.quantile(level)
        if n is None:
            raise ValueError(
                f"the {self.kind} {self.name!r} takes an extreme, whose expected value on a Gaussian "
                "depends on the sample size; give n, the number of samples per row"
            )
        return gaussian.expected_maximum(n) * (1.0 if level == 1.0 else -1.0)
