"""Where eps goes: the one definition of the number that a pair divides by.

* ``std``: ``sqrt(D**2 + eps)``, BatchNorm's rule, so that (mean, std) *is* BatchNorm;
* every other deviation: ``D + eps``. D has the unit of x, so here eps is a length and not a squared length:
  at eps = 1e-5 it matters only for a nearly constant channel.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from gbn.risk.base import Deviation

__all__ = ["denominator", "denominator_slope"]


def denominator(deviation: Deviation, value: Tensor, eps: float) -> Tensor:
    """Return the divisor for a deviation that measured ``value`` (any shape)."""
    if deviation.name == "std":
        # hypot, because the square of a large value may be infinite
        return torch.hypot(value, torch.full_like(value, math.sqrt(eps)))
    return value + eps


def denominator_slope(deviation: Deviation, value: Tensor, divisor: Tensor) -> Tensor:
    """Return the derivative of :func:`denominator` with respect to ``value``, given its result ``divisor``."""
    if deviation.name == "std":
        return value / divisor
    return torch.ones_like(value)
