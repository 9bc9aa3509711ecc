"""The controls for a pair whose calibration is measured rather than a Gaussian's.

S = mu + k sigma and D = c sigma hold for any batch, with k = (S - mu) / sigma and c = D / sigma of each channel. The
Gaussian controls (:mod:`gbn.nn.controls`) take k and c of a Gaussian, so that they miss what a pair does to the start
of a real network. These measure k and c on the first training batch (:mod:`gbn.nn.first_batch`), freeze them, and
are from then on

* ``bn_measured_matched``: BatchNorm *started* at gain 1/c and bias -k/c: they are multiplied into, and added to, its
  parameters;
* ``bn_measured_reparam``: ``weight * (x_hat - k)/c + bias``: k and c are constants of the layer, and the parameters
  start at 1 and 0.

Both compute the pair's function on the first batch (up to where eps goes: theirs is BatchNorm's,
``sqrt(sigma**2 + eps)``, as in the Gaussian controls). What an arm shows beyond ``bn_measured_reparam`` is the effect
of the deviation's shape: how k and c change, and the gradient through them. A third control takes these two apart:

* ``bn_tracking``: k and c of *every* batch as constants of its backward pass: the forward pass is the pair's and the
  backward pass BatchNorm's (:mod:`gbn.kernels.tracking`). In evaluation it is the pair, with running S and D.

Until they are measured, k is 0 and c is 1, and so they stay in a channel that is constant on the first batch. Any
pair has these controls, also one that is not positively homogeneous; extremes need ``samples`` only if rescaled.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gbn.kernels.gate import Gate
from gbn.kernels.tracking import normalize_tracking
from gbn.nn.controls import _Control, _ReparametrizedBatchNorm
from gbn.nn.first_batch import MeasuresFirstBatch, calibration
from gbn.nn.function import BATCHNORM, Function
from gbn.nn.generalized import _GeneralizedBatchNorm
from gbn.nn.instance_enhancement import _InstanceEnhancementBatchNorm, initial_gate

__all__ = [
    "InstanceEnhancementTrackingBatchNorm1d",
    "InstanceEnhancementTrackingBatchNorm2d",
    "InstanceEnhancementTrackingBatchNorm3d",
    "MeasuredMatchedBatchNorm1d",
    "MeasuredMatchedBatchNorm2d",
    "MeasuredMatchedBatchNorm3d",
    "MeasuredReparametrizedBatchNorm1d",
    "MeasuredReparametrizedBatchNorm2d",
    "MeasuredReparametrizedBatchNorm3d",
    "TrackingBatchNorm1d",
    "TrackingBatchNorm2d",
    "TrackingBatchNorm3d",
]


class _MeasuredControl(MeasuresFirstBatch, _Control):
    """BatchNorm with the calibration of a pair, measured on the first training batch.

    Args:
        num_features: C, the size of dimension 1.
        eps, momentum, affine, track_running_stats, device, dtype, bias: as in BatchNorm.
        matched_to: the pair: a mapping such as ``{"quadrangle": "cvar", "alpha": 0.75}`` or
            ``{"statistic": ..., "deviation": ...}``, the arguments of ``GeneralizedBatchNorm``.
        samples: n, the number of values per channel; needed only for rescaled pairs of extremes.
        rescaled: match the pair's Gaussian-rescaled form.
        gate_bias: match the instance-enhanced layer of this pair whose gate starts at ``sigmoid(gate_bias)``
            (:mod:`gbn.nn.instance_enhancement`); None for the pair alone.
        act: activation applied to the result, None or a name in :data:`gbn.kernels.ACTIVATIONS`.

    The buffers ``matched_shift`` and ``matched_scale`` (C,) are 0 and 1 until they are measured, then k and c, with c
    divided by the rescaling and by the gate; ``measured_batches`` is 0 before and 1 after.

    Raises:
        ValueError: for an unknown pair; in ``bn_measured_matched``, where the measurement goes into the parameters,
            also for ``affine=False``, and for ``bias=False`` unless the statistic is the mean.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        **options: Any,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, **options)
        self.matched_shift: Tensor
        self.matched_scale: Tensor
        self.register_buffer("matched_shift", torch.zeros(num_features, device=device, dtype=dtype))
        self.register_buffer("matched_scale", torch.ones(num_features, device=device, dtype=dtype))
        self._expect_first_batch(device)

    def _set_constants(self, samples: int | None, rescaled: bool) -> None:
        rescaling = self.pair.gaussian(samples)[1] if rescaled else 1.0
        self._divisor = rescaling * initial_gate(self.gate_bias)
        self._start_bias = self.pair.initial_bias * rescaling

    def initial_affine(self) -> tuple[float, float]:
        """Return gain 1 and the pair's own initial bias."""
        return 1.0, self._start_bias

    def reset_parameters(self) -> None:
        """Reset running averages, gain and bias, and measure the next training batch again."""
        super().reset_parameters()
        if "matched_scale" in self._buffers:  # False while the base class's constructor runs
            self.matched_shift.zero_()
            self.matched_scale.fill_(1.0)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` normalized; measure k and c on the first training batch."""
        self._see(x)
        return super().forward(x)

    def _measure(self, x: Tensor) -> Tensor:
        return calibration(x, self.pair)

    def _keep(self, values: Tensor) -> None:
        self.matched_shift.copy_(values[0])
        self.matched_scale.copy_(values[1] / self._divisor)


class _MeasuredMatchedBatchNorm(_MeasuredControl):
    __doc__ = _MeasuredControl.__doc__

    def _check_affine(self) -> None:
        if self.weight is None:
            raise ValueError("bn_measured_matched puts what it measures into the gain: it needs affine=True")
        if self.bias is None and self.pair.statistic.name != "mean":
            raise ValueError("bn_measured_matched puts what it measures into the bias: it needs bias=True")

    def _keep(self, values: Tensor) -> None:
        super()._keep(values)
        assert self.weight is not None
        self.weight.div_(self.matched_scale)
        if self.bias is not None:
            self.bias.sub_(self.matched_shift * self.weight)


class _MeasuredReparametrizedBatchNorm(_MeasuredControl, _ReparametrizedBatchNorm):
    __doc__ = _MeasuredControl.__doc__

    @property
    def _shift(self) -> Tensor:  # type: ignore[override]
        return self.matched_shift

    @property
    def _scale(self) -> Tensor:  # type: ignore[override]
        return self.matched_scale

    def _gain_and_bias(self, x: Tensor) -> tuple[Tensor, Tensor]:
        gain = self.matched_scale.reciprocal() if self.weight is None else self.weight / self.matched_scale
        shift = -self.matched_shift * gain
        return gain, shift if self.bias is None else self.bias + shift

    @property
    def function(self) -> Function:
        """BatchNorm's: k and c are buffers, so the state dict says them."""
        return BATCHNORM


class _Tracking(_GeneralizedBatchNorm):
    """The pair's forward pass with BatchNorm's backward pass, in place of the pair's."""

    def _kernel(
        self,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        act: str | None,
        gate: Gate | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        pair = self.pair
        return normalize_tracking(
            x, weight, bias, pair.statistic, pair.deviation, eps, act, gate, eps_of_std=self.eps
        )


class _TrackingBatchNorm(_Tracking):
    """Generalized batch normalization whose k and c are constants of the backward pass.

    Arguments, shapes, running averages, state dict and errors are those of :class:`gbn.nn.GeneralizedBatchNorm2d`;
    ``quantile_gradient`` and ``window`` have no effect, except for ``smoothed``, which changes the values.
    """


class _InstanceEnhancementTrackingBatchNorm(_Tracking, _InstanceEnhancementBatchNorm):
    """The same with the gate of :class:`gbn.nn.InstanceEnhancementBatchNorm2d`, whose arguments it takes."""


class MeasuredMatchedBatchNorm1d(_MeasuredMatchedBatchNorm):  # noqa: D101 - its docstring is its base's
    __doc__ = _MeasuredMatchedBatchNorm.__doc__
    _input_dims = (2, 3)


class MeasuredMatchedBatchNorm2d(_MeasuredMatchedBatchNorm):  # noqa: D101 - its docstring is its base's
    __doc__ = _MeasuredMatchedBatchNorm.__doc__
    _input_dims = (4,)


class MeasuredMatchedBatchNorm3d(_MeasuredMatchedBatchNorm):  # noqa: D101 - its docstring is its base's
    __doc__ = _MeasuredMatchedBatchNorm.__doc__
    _input_dims = (5,)


class MeasuredReparametrizedBatchNorm1d(_MeasuredReparametrizedBatchNorm):  # noqa: D101 - its docstring is its base's
    __doc__ = _MeasuredReparametrizedBatchNorm.__doc__
    _input_dims = (2, 3)


class MeasuredReparametrizedBatchNorm2d(_MeasuredReparametrizedBatchNorm):  # noqa: D101 - its docstring is its base's
    __doc__ = _MeasuredReparametrizedBatchNorm.__doc__
    _input_dims = (4,)


class MeasuredReparametrizedBatchNorm3d(_MeasuredReparametrizedBatchNorm):  # noqa: D101 - its docstring is its base's
    __doc__ = _MeasuredReparametrizedBatchNorm.__doc__
    _input_dims = (5,)


class TrackingBatchNorm1d(_TrackingBatchNorm):  # noqa: D101 - its docstring is its base's
    __doc__ = _TrackingBatchNorm.__doc__
    _input_dims = (2, 3)


class TrackingBatchNorm2d(_TrackingBatchNorm):  # noqa: D101 - its docstring is its base's
    __doc__ = _TrackingBatchNorm.__doc__
    _input_dims = (4,)


class TrackingBatchNorm3d(_TrackingBatchNorm):  # noqa: D101 - its docstring is its base's
    __doc__ = _TrackingBatchNorm.__doc__
    _input_dims = (5,)


class InstanceEnhancementTrackingBatchNorm1d(_InstanceEnhancementTrackingBatchNorm):  # noqa: D101 - its docstring is its base's
    __doc__ = _InstanceEnhancementTrackingBatchNorm.__doc__
    _input_dims = (2, 3)


class InstanceEnhancementTrackingBatchNorm2d(_InstanceEnhancementTrackingBatchNorm):  # noqa: D101 - its docstring is its base's
    __doc__ = _InstanceEnhancementTrackingBatchNorm.__doc__
    _input_dims = (4,)


class InstanceEnhancementTrackingBatchNorm3d(_InstanceEnhancementTrackingBatchNorm):  # noqa: D101 - its docstring is its base's
    __doc__ = _InstanceEnhancementTrackingBatchNorm.__doc__
    _input_dims = (5,)
