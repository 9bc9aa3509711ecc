"""Step functions of the samples about a level, and the weights built from them.

Signs of differences are used instead of comparisons: eager torch's boolean comparisons, masks and ``where``
cost three to ten times a float pass on the CPU, and NaN samples propagate through a sign.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Steps:
    """The side of a level on which each sample is: ``sign`` is -1 below, 0 at, 1 above it; ``away`` is its magnitude.

    ``n_above``, ``n_at`` and ``n_below`` count them, each (..., 1).
    """

    sign: Tensor
    away: Tensor
    n_above: Tensor
    n_at: Tensor
    n_below: Tensor

    def weights(self, below: Tensor | float, at: Tensor, above: Tensor | float) -> Tensor:
        """Return a tensor shaped like the samples with these weights by side; consumes ``away``."""
        weights = self.away.mul_(0.5 * (above + below) - at).add_(at)
        slope = 0.5 * (above - below)
        if isinstance(slope, Tensor):
            return weights.addcmul_(self.sign, slope)
        return weights.add_(self.sign, alpha=slope) if slope else weights


def steps(rows: Tensor, level: Tensor) -> Steps:
    """Compare rows (..., n) with a level (..., 1); a float difference is 0 only for equal numbers."""
    sign = (rows - level).sign_()
    away = sign.abs()
    n_away = away.sum(-1, keepdim=True)
    balance = sign.sum(-1, keepdim=True)
    n_above = 0.5 * (n_away + balance)
    return Steps(sign, away, n_above, rows.shape[-1] - n_away, n_away - n_above)


def tail_weights(rows: Tensor, level: Tensor, alpha: float, shift: float = 0.0) -> Tensor:
    """Return the superquantile's subgradient + shift: 1 / (n (1 - alpha)) above the level, 0 below it.

    The level is the order statistic of rank ceil(n alpha). The samples at it share what is missing to a sum of 1;
    this is the rank-wise rule made independent of the order of tied samples.
    """
    above = 1.0 / (rows.shape[-1] * (1.0 - alpha))
    side = steps(rows, level)
    at = (1.0 - side.n_above * above) / side.n_at
    return side.weights(shift, at + shift, above + shift)


def over(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Return numerator / denominator in place, and 0 where the denominator is 0.

    For gradients that read x / D: 0 is a subgradient of any deviation at a constant.
    """
    return numerator.mul_(torch.where(denominator == 0, 0.0, 1.0 / denominator))
