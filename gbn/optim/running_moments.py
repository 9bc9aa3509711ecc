"""Running moments of all layers' inputs, concatenated into a few vectors, in torch operations.

:mod:`gbn.kernels.numba.precondition` does the same in one compiled call, for a single process on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = ["Factors", "RunningMoments"]


@dataclass(frozen=True)
class Factors:
    """The factors with which gradients are rewritten.

    Attributes:
        columns: (2, columns of all layers), float64: means, and inverse variances divided by max(m / N, 1).
        shrink: one number per layer, 1 / max(m / N, 1).
    """

    columns: Tensor
    shrink: Sequence[float] | Tensor


@dataclass(frozen=True)
class _Counts:
    """The numbers of terms in the sums of a step.

    Attributes:
        rows: (columns,), number of terms of each sum, 1 if it has none.
        seen: (columns,), whether it has any; None if all have.
        shrink: one number per layer, 1 / max(m / N, 1).
        shrink_columns: the same per column; None if it is 1 everywhere.
    """

    rows: Tensor
    seen: Tensor | None
    shrink: Sequence[float] | Tensor
    shrink_columns: Tensor | None


class RunningMoments:
    """Averages of first and second moments.

    Args:
        columns: number of means and of variances of each layer.
        fan_in: number of inputs per output unit of each layer: m of the divisor max(m / N, 1).
        rho, eps, eps_relative: as in :class:`gbn.optim.BatchNormPreconditioner`.

    Attributes:
        running: (3, columns of all layers), float64: mean, second moment, and the sum of weights that debiases both.
    """

    def __init__(
        self, columns: Sequence[int], fan_in: Sequence[int], rho: float, eps: float, eps_relative: float
    ) -> None:
        self._rho, self._eps, self._eps_relative = rho, eps, eps_relative
        self._layers = len(columns)
        self.running = torch.zeros(3, sum(columns), dtype=torch.float64)
        self._ones = torch.ones(1, sum(columns), dtype=torch.float64)
        self._layer_of = torch.repeat_interleave(torch.arange(len(columns)), torch.tensor(columns))
        self._fan_in = torch.tensor(fan_in, dtype=torch.float64)
        self._counts: dict[tuple[tuple[int, int], ...], _Counts] = {}

    def to(self, device: torch.device) -> None:
        """Move the running moments to a device."""
        if self.running.device != device:
            self._counts.clear()
            for name in ("running", "_ones", "_layer_of", "_fan_in"):
                setattr(self, name, getattr(self, name).to(device))

    def absorb(
        self, sums: Tensor, counted: tuple[tuple[int, int], ...], add_up: Callable[[Tensor], None] | None
    ) -> Factors:
        """Update the running moments with the sums of this step and return the factors for the gradients.

        Args:
            sums: (2, columns of all layers) in float64, on the device of the moments: of values and of squares.
            counted: per layer, the number of terms of each sum, 0 if it was not called, and N of max(m / N, 1).
            add_up: adds up a vector over processes, in place; None if there is only one process.
        """
        if add_up is None:
            counts = self._counts_of(counted)
        else:
            numbers = self._numbers(counted)
            packed = torch.cat((sums.flatten(), numbers.flatten()))
            add_up(packed)
            sums, numbers = packed[: sums.numel()].view_as(sums), packed[sums.numel() :].view_as(numbers)
            counts = self._counted(*numbers)
        batch = sums / counts.rows
        # An overflow in half precision makes the scaler skip the step: it must not enter the running moments.
        known = batch.isfinite().all(0)
        if counts.seen is not None:
            known &= counts.seen
        target = torch.cat((batch, self._ones))
        self.running.lerp_(torch.where(known, target, self.running), 1 - self._rho)
        mean, inverse = self._mean_and_inverse()
        if counts.shrink_columns is not None:
            inverse = inverse * counts.shrink_columns
        return Factors(torch.stack((mean, inverse)), counts.shrink)

    def _numbers(self, counted: tuple[tuple[int, int], ...]) -> Tensor:
        """Return (2, layers): rows, and N of the fan-in scale."""
        return torch.tensor(counted, dtype=torch.float64, device=self.running.device).T.contiguous()

    def _counts_of(self, counted: tuple[tuple[int, int], ...]) -> _Counts:
        """Return the counts, cached per combination of numbers: copying them from the host makes a GPU wait."""
        if counted not in self._counts:
            if len(self._counts) > 16:
                self._counts.clear()
            counts = self._counted(*self._numbers(counted))
            if all(rows for rows, _ in counted):
                counts = replace(counts, seen=None)
            shrink = [float(one) for one in counts.shrink]
            if all(one == 1 for one in shrink):
                counts = replace(counts, shrink_columns=None)
            self._counts[counted] = replace(counts, shrink=shrink)
        return self._counts[counted]

    def _counted(self, rows: Tensor, terms: Tensor) -> _Counts:
        by_column = rows[self._layer_of]
        shrink = (terms / self._fan_in).clamp(max=1)
        return _Counts(by_column.clamp(min=1), by_column > 0, shrink, shrink[self._layer_of])

    def _mean_and_inverse(self) -> tuple[Tensor, Tensor]:
        """Return the debiased means and the inverse floored variances (0 where these are 0), each (columns,)."""
        mean, variance = self.mean_and_variance()
        largest = variance.new_zeros(self._layers).scatter_reduce(0, self._layer_of, variance, "amax")
        floored = torch.add(variance + self._eps, largest[self._layer_of], alpha=self._eps_relative)
        if self._eps > 0:
            return mean, floored.reciprocal()
        return mean, torch.where(floored > 0, floored.reciprocal(), 0.0)

    def mean_and_variance(self) -> tuple[Tensor, Tensor]:
        """Return the debiased means and variances, each (columns of all layers,); 0 for columns never seen."""
        mean, second = self.running[:2] / self.running[2].clamp(min=torch.finfo(torch.float64).tiny)
        return mean, torch.addcmul(second, mean, mean, value=-1).clamp_(min=0)
