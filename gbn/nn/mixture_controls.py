"""The two controls that belong to mixture normalization: batch normalization with its gain.

What mixture normalization does to a channel has mean 0 and a variance between 0 and K, not 1: beside separating
modes it is batch normalization with another gain, which is not known before the first batch. So the controls fit the
very mixture that the layer in their place would fit to the first batch of training (the same stream, the same
options), take the deviation g of the result, channel by channel, and are from then on

* ``bn_matched``: BatchNorm *started* at gain g: g is multiplied into the parameter ``weight``;
* ``bn_reparam``: ``weight * (g * x_hat) + bias``: g stands in the layer, ``weight`` starts at 1.

A calibration before training (:func:`gbn.nn.calibrate`) does not count as the first batch. Where several processes
train one network (:mod:`gbn.nn.replicas`), each measures its share of the first batch, and g squared is the mean of
what they find: parameters stay the same in all of them.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gbn.kernels.mixture import channel_moments, normalize_by_batch
from gbn.nn.arguments import refuse_components_as_eps
from gbn.nn.batchnorm import _BatchNormAct
from gbn.nn.mixture_fit import MixtureFit, full_precision, overflowed
from gbn.nn.replicas import is_replicated, mean_over_replicas
from gbn.nn.torchscript import refuse_trace

__all__ = [
    "MixtureMatchedBatchNorm1d",
    "MixtureMatchedBatchNorm2d",
    "MixtureMatchedBatchNorm3d",
    "MixtureReparametrizedBatchNorm1d",
    "MixtureReparametrizedBatchNorm2d",
    "MixtureReparametrizedBatchNorm3d",
]


class _MixtureControl(_BatchNormAct):
    """BatchNorm with the gain of mixture normalization, as measured on the first batch of training.

    Args:
        num_features: C, the size of dimension 1.
        components, mixture, em_steps, subset, variance_floor: of :class:`gbn.nn.MixtureNorm2d`.
        eps, momentum, affine, track_running_stats, device, dtype, bias: as in BatchNorm.
        act: activation applied to the result, None or a name in :data:`gbn.kernels.ACTIVATIONS`.

    The buffer ``matched_gain`` (C,) is 1 until it is measured; ``measured_batches`` is 0 before and 1 after.

    Raises:
        ValueError: as in MixtureNorm2d; ``affine=False`` where the gain is a parameter's starting value.
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
        *,
        bias: bool = True,
        components: int = 3,
        mixture: str = "joint",
        em_steps: int = 3,
        subset: int = 1024,
        variance_floor: float = 1e-3,
        act: str | None = None,
    ) -> None:
        refuse_components_as_eps(eps)
        self.fit = MixtureFit(components, mixture, em_steps, subset, variance_floor)
        self._is_measured = False
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias, act=act
        )
        self.matched_gain: Tensor
        self.measured_batches: Tensor
        self.stream: Tensor
        self.register_buffer("matched_gain", torch.ones(num_features, device=device, dtype=dtype))
        self.register_buffer("measured_batches", torch.zeros((), dtype=torch.int64, device=device))
        self.register_buffer("stream", torch.zeros((), dtype=torch.int64, device=device))

    def seed_stream(self, seed: int) -> None:
        """Name the stream of this layer's draws; 0 before."""
        self.stream.fill_(seed)

    def buffers_changed(self) -> None:
        """Look again whether the gain was measured: to be called after buffers were set by hand."""
        count = self.measured_batches
        self._is_measured = count.device.type != "meta" and bool(count > 0)

    def reset_parameters(self) -> None:
        """Reset running averages, gain, bias, and the measured gain to 1."""
        super().reset_parameters()
        if "stream" in self._buffers:  # not yet when the base's constructor calls
            self.matched_gain.fill_(1.0)
            self.measured_batches.zero_()
            self.stream.zero_()
            self._is_measured = False

    def forward(self, x: Tensor) -> Tensor:
        """Normalize as BatchNorm; the first batch of training is measured before."""
        # An empty share of a batch says nothing, and its process waits for nobody only by taking part.
        if not self._is_measured and self.training and not self.calibrating and x.numel() != x.shape[1]:
            self._check_input(x)
            self.fit.check_samples(x, type(self).__name__)
            if x.numel() > 0 or is_replicated():
                self._measure(x.detach())
        return super().forward(x)

    @torch.no_grad()
    def _measure(self, x: Tensor) -> None:
        refuse_trace(self)
        var = mean_over_replicas(self._variance(x), x.numel() // self.num_features)
        if is_replicated() and var.isnan().all():  # every share was empty
            return
        self.matched_gain.copy_(var.sqrt())
        self.measured_batches.fill_(1)
        self._is_measured = True
        self._measured()

    def _variance(self, x: Tensor) -> Tensor:
        """(C,): of what the layer would make of this batch; 0 of an empty one."""
        if x.numel() == 0:
            return x.new_zeros(self.num_features, dtype=torch.promote_types(x.dtype, torch.float32))
        with full_precision(x):
            # What the layer has counted in its first batch, this one included.
            count = torch.full_like(self.stream, int(self.track_running_stats))
            mixture, centre = self.fit(x, self.eps, self.stream, count)
            y, moments = normalize_by_batch(x.to(centre.dtype), mixture, None, None, self.eps, centre=centre)
            if overflowed(x, moments):
                return self._variance(x.double())
            return channel_moments(y.transpose(0, 1).flatten(1).T)[1]

    def _measured(self) -> None:
        """What follows once the gain is known."""

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.buffers_changed()

    def extra_repr(self) -> str:
        """BatchNorm's text and the mixture's options."""
        return f"{super().extra_repr()}, matched_to=MixtureNorm({self.fit!r})"


class _MixtureMatchedBatchNorm(_MixtureControl):
    __doc__ = _MixtureControl.__doc__

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.weight is None:
            raise ValueError("bn_matched lives in the starting gain: it needs affine=True")

    def _measured(self) -> None:
        assert self.weight is not None
        self.weight.mul_(self.matched_gain)


class _MixtureReparametrizedBatchNorm(_MixtureControl):
    __doc__ = _MixtureControl.__doc__

    def _gain_and_bias(self, x: Tensor) -> tuple[Tensor | None, Tensor | None]:
        return (self.matched_gain if self.weight is None else self.weight * self.matched_gain), self.bias


class MixtureMatchedBatchNorm1d(_MixtureMatchedBatchNorm):  # noqa: D101 - its docstring is its base's
    __doc__ = _MixtureMatchedBatchNorm.__doc__
    _input_dims = (2, 3)


class MixtureMatchedBatchNorm2d(_MixtureMatchedBatchNorm):  # noqa: D101 - its docstring is its base's
    __doc__ = _MixtureMatchedBatchNorm.__doc__
    _input_dims = (4,)


class MixtureMatchedBatchNorm3d(_MixtureMatchedBatchNorm):  # noqa: D101 - its docstring is its base's
    __doc__ = _MixtureMatchedBatchNorm.__doc__
    _input_dims = (5,)


class MixtureReparametrizedBatchNorm1d(_MixtureReparametrizedBatchNorm):  # noqa: D101 - its base's docstring
    __doc__ = _MixtureReparametrizedBatchNorm.__doc__
    _input_dims = (2, 3)


class MixtureReparametrizedBatchNorm2d(_MixtureReparametrizedBatchNorm):  # noqa: D101 - its base's docstring
    __doc__ = _MixtureReparametrizedBatchNorm.__doc__
    _input_dims = (4,)


class MixtureReparametrizedBatchNorm3d(_MixtureReparametrizedBatchNorm):  # noqa: D101 - its base's docstring
    __doc__ = _MixtureReparametrizedBatchNorm.__doc__
    _input_dims = (5,)
