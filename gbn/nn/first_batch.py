"""Layers that measure something on their first training batch and keep it from then on.

Calibration before training (:func:`gbn.nn.calibrate`) does not count as the first batch, and neither does an empty
batch. If several processes train one network (:mod:`gbn.nn.replicas`), each measures its share of the first batch and
all keep the mean of their results, so that the parameters stay the same in all of them.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from gbn import kernels, risk
from gbn.nn.base import BatchStatisticsNorm
from gbn.nn.pairs import Pair
from gbn.nn.replicas import is_replicated, mean_over_replicas
from gbn.nn.torchscript import refuse_trace

__all__ = ["MeasuresFirstBatch", "calibration"]

_MEAN, _STD = risk.statistic("mean"), risk.deviation("std")


def calibration(x: Tensor, pair: Pair) -> Tensor:
    """Return k and c of each channel of a batch, S = mu + k sigma and D = c sigma: (N, C, *spatial) -> (2, C).

    (0, 1), BatchNorm's, where a channel is constant up to rounding, and for an empty batch; NaN where a
    value is not finite.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    if x.numel() == 0:
        return torch.tensor([[0.0], [1.0]], dtype=wide, device=x.device).expand(2, x.shape[1])
    # eps only matters to the result that is not used here
    _, s, d = kernels.normalize(x, None, None, pair.statistic, pair.deviation, 1.0)
    _, mean, std = kernels.normalize(x, None, None, _MEAN, _STD, 1.0)
    k, c = (s - mean) / std, d / std
    rounding = 4 * torch.finfo(x.dtype).eps * mean.abs()
    constant = (std <= rounding) | (d == 0)  # not true of a channel with NaN, which spoils its k and c
    return torch.stack([torch.where(constant, 0.0, k), torch.where(constant, 1.0, c)])


class MeasuresFirstBatch(BatchStatisticsNorm):
    """Base of such layers: call :meth:`_expect_first_batch` in the constructor and :meth:`_see` in the forward pass.

    The buffer ``measured_batches`` is 0 before the first training batch and 1 after; what was measured is in other
    buffers or in the parameters, so a state dict holds all of it.
    """

    measured_batches: Tensor
    _is_measured = True  # nothing to measure until _expect_first_batch

    def _expect_first_batch(self, device: Any) -> None:
        """Measure the next training batch."""
        self.register_buffer("measured_batches", torch.zeros((), dtype=torch.int64, device=device))
        self._is_measured = False

    def buffers_changed(self) -> None:
        """Check again whether the first batch has been measured; call this after setting buffers by hand."""
        if "measured_batches" in self._buffers:
            count = self.measured_batches
            self._is_measured = count.device.type != "meta" and bool(count > 0)

    def reset_parameters(self) -> None:
        """Reset running averages, gain and bias, and measure the next training batch again."""
        super().reset_parameters()
        if "measured_batches" in self._buffers:  # False while the base class's constructor runs
            self.measured_batches.zero_()
            self._is_measured = False

    @torch.no_grad()
    def _see(self, x: Tensor) -> None:
        """Measure ``x`` if it is the first training batch."""
        if self._is_measured or not self.training or self.calibrating:
            return
        self._check_input(x)
        # One value per channel is the caller's error. An empty share of a batch has nothing to measure, but its
        # process must join the all-reduce.
        if x.numel() == x.shape[1] or not (x.numel() or is_replicated()):
            return
        refuse_trace(self)
        values = mean_over_replicas(self._measure(x.detach()), x.numel() // self.num_features)
        if is_replicated() and values.isnan().all():  # every share was empty
            return
        self._keep(values)
        self.measured_batches.fill_(1)
        self._is_measured = True

    @abstractmethod
    def _measure(self, x: Tensor) -> Tensor:
        """Return the values measured on ``x``, which are averaged over processes; anything for an empty batch."""

    @abstractmethod
    def _keep(self, values: Tensor) -> None:
        """Store the values."""

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.buffers_changed()
