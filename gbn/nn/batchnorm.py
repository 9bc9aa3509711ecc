"""Batch normalization and its activation in one layer."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gbn.kernels import activate
from gbn.nn.base import BatchStatisticsNorm

__all__ = ["BatchNormAct1d", "BatchNormAct2d", "BatchNormAct3d"]


class _BatchNormAct(BatchStatisticsNorm):
    """torch's batch normalization (same kernels, same state dict) followed by an activation.

    Arguments, shapes and errors are BatchNorm's; ``act`` is None or a name in :data:`gbn.kernels.ACTIVATIONS`.
    Not a subclass of ``torch.nn.BatchNorm2d``: see :mod:`gbn.nn.base`.
    """

    def _gain_and_bias(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Return the factor and the offset that the kernel applies to x_hat."""
        return self.weight, self.bias

    def forward(self, x: Tensor) -> Tensor:
        """Normalize ``x`` as ``torch.nn.BatchNorm`` does, then apply the activation."""
        self._check_input(x)
        share = self._count_batch()
        gain, bias = self._gain_and_bias(x)
        if self._is_noisy():
            gain, bias = self._noisy_affine(x, gain, bias)
        if self._uses_batch():
            y = self._by_batch(x, gain, bias, share)
        else:
            y = F.batch_norm(x, *self._kept(), gain, bias, eps=self.eps)
        return activate(y, self.act)

    def _by_batch(
        self, x: Tensor, gain: Tensor | None, bias: Tensor | None, share: float | Tensor | None
    ) -> Tensor:
        """Normalize by the batch's own statistics and average them, unless ``share`` is None."""
        if not torch.jit.is_tracing():
            self._check_values(x)  # like torch, whose error compiled code would wrap in another
        # A recomputed pass averages nothing, but must save the same tensors as the first pass.
        location, spread = self.running() if self.training and self.track_running_stats else (None, None)
        if not isinstance(share, Tensor) or not (torch.compiler.is_compiling() or torch.jit.is_tracing()):
            return F.batch_norm(
                x, location, spread, gain, bias, True, 0.0 if share is None else float(share), self.eps
            )
        # A trace cannot read a number from a tensor: the operator returns the batch's statistics, averaged here.
        assert location is not None
        assert spread is not None
        mean, var = torch.zeros_like(location), torch.ones_like(spread)
        y = F.batch_norm(x, mean, var, gain, bias, True, 1.0, self.eps)
        if x.numel() > 0:
            with torch.no_grad():
                for kept, new in ((location, mean), (spread, var)):
                    kept.lerp_(new, share.to(kept.dtype))
        return y


class BatchNormAct1d(_BatchNormAct):  # noqa: D101 - its docstring is its base's
    __doc__ = _BatchNormAct.__doc__
    _input_dims = (2, 3)


class BatchNormAct2d(_BatchNormAct):  # noqa: D101 - its docstring is its base's
    __doc__ = _BatchNormAct.__doc__
    _input_dims = (4,)


class BatchNormAct3d(_BatchNormAct):  # noqa: D101 - its docstring is its base's
    __doc__ = _BatchNormAct.__doc__
    _input_dims = (5,)
