"""Batch normalization and its activation in one layer."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from gbn.kernels import activate
from gbn.nn.base import BatchStatisticsNorm

__all__ = ["BatchNormAct1d", "BatchNormAct2d", "BatchNormAct3d"]


class _BatchNormAct(BatchStatisticsNorm):
    """torch's batch normalization (its kernels, its state dict) followed by an activation.

    The arguments, shapes and errors are BatchNorm's; ``act`` is None or a name in
    :data:`gbn.kernels.ACTIVATIONS`. Not a subclass of ``torch.nn.BatchNorm2d``: see :mod:`gbn.nn.base`.
    """

    def _gain_and_bias(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """What the kernel multiplies x_hat with and adds to it."""
        return self.weight, self.bias

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` as ``torch.nn.BatchNorm`` does, then apply the activation."""
        self._check_input(x)
        share = self._count_batch()
        location, spread = self.running()
        if self.training and not self.track_running_stats:
            location = spread = None
        gain, bias = self._gain_and_bias(x)
        if self._is_noisy():
            gain, bias = self._noisy_affine(x, gain, bias)
        factor = 0.0 if share is None else float(share)
        y = F.batch_norm(x, location, spread, gain, bias, self._uses_batch(), factor, self.eps)
        return activate(y, self.act)


class BatchNormAct1d(_BatchNormAct):  # noqa: D101 - its docstring is its base's
    __doc__ = _BatchNormAct.__doc__
    _input_dims = (2, 3)


class BatchNormAct2d(_BatchNormAct):  # noqa: D101 - its docstring is its base's
    __doc__ = _BatchNormAct.__doc__
    _input_dims = (4,)


class BatchNormAct3d(_BatchNormAct):  # noqa: D101 - its docstring is its base's
    __doc__ = _BatchNormAct.__doc__
    _input_dims = (5,)
