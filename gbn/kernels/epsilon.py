"""Where eps goes: the one definition of the number that a pair divides by.

* ``std``: ``sqrt(D**2 + eps)``, BatchNorm's rule, so that (mean, std) *is* BatchNorm;
* every other deviation: ``D + eps``. D has the unit of x, so eps is a length there and not a squared length:
  at eps = 1e-5 a channel has to be nearly constant before it is felt.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gbn.risk.base import Deviation

__all__ = ["denominator", "denominator_slope"]


def denominator(deviation: Deviation, value: Tensor, eps: float) -> Tensor:
    """The divisor for a deviation that measured ``value`` (any shape)."""
    if deviation.name == "std":
        return torch.hypot(value, torch.full_like(value, math.sqrt(eps)))  # whose square may be infinite
    return value + eps


def denominator_slope(deviation: Deviation, value: Tensor, divisor: Tensor) -> Tensor:
    """Derivative of :func:`denominator` by ``value``, given its result ``divisor``."""
    if deviation.name == "std":
        return value / divisor
    return torch.ones_like(value)
