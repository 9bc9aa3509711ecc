"""What :mod:`gbn.kernels.describe` is written with: rows that remember what was asked, and a derivative's numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["Derivative", "Measured", "Point", "Sample", "over"]

Number = Tensor | float
Point = tuple[Tensor, Number, Number, Number, Number]  # b, at, rise, bend, span


@dataclass
class Derivative:
    """A record's numbers (each ``(C, 1)`` or a float) written about a place of the functional's own.

    :meth:`moved` writes the same function about another place.
    """

    about: Tensor
    base: Number = 0.0
    slope: Number = 0.0
    shift: Number = 0.0
    multiple: Number = 0.0
    points: list[Point] = field(default_factory=list)

    def moved(self, place: Tensor) -> Derivative:
        """The same derivative with u = x - place."""
        base = self.base + self.slope * (place - self.about)
        return Derivative(place, base, self.slope, self.shift, self.multiple, self.points)


class Sample:
    """Rows (C, n) and what several functionals ask of them; values are float64 ``(C, 1)``."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows
        self.n = rows.shape[1]
        self.wide = rows.double()

    @cached_property
    def ordered(self) -> Tensor:
        """The rows in order, float64; NaN last."""
        return self.rows.sort(-1)[0].double()

    @cached_property
    def mean(self) -> Tensor:
        """The mean; of a constant row its value exactly."""
        first = self.wide[:, :1]
        return first + (self.wide - first).mean(-1, keepdim=True)

    @cached_property
    def std(self) -> Tensor:
        """The standard deviation."""
        return (self.wide - self.mean).square_().mean(-1, keepdim=True).sqrt_()

    def kth(self, rank: int) -> Tensor:
        """The sample of a rank."""
        return self.ordered[:, rank - 1 : rank]

    def rounded(self, value: Tensor) -> Tensor:
        """The value as the rows' dtype holds it, which is what kernels compare samples with."""
        return value.to(self.rows.dtype).double()

    def counts(self, level: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """How many samples lie below, at and above a level."""
        below = (self.wide < level).sum(-1, keepdim=True).double()
        above = (self.wide > level).sum(-1, keepdim=True).double()
        return below, self.n - below - above, above

    @cached_property
    def sums(self) -> Tensor:
        """Sums of the k smallest samples minus the median, k = 0 ... n: ``(C, n + 1)``."""
        centred = self.ordered - self.kth((self.n + 1) // 2)
        return torch.cat([torch.zeros_like(centred[:, :1]), centred.cumsum(-1)], -1)


Measured = tuple[Tensor, Derivative]


def over(numerator: Number, denominator: Tensor) -> Tensor:
    """numerator / denominator, and 0 where that is 0, as :func:`gbn.risk.steps.over`."""
    zero = denominator == 0
    return torch.where(zero, 0.0, numerator / torch.where(zero, 1.0, denominator))
