"""The two controls for mixture normalization: batch normalization with the mixture's gain.

The result of mixture normalization has, in each channel, mean 0 and a variance between 0 and K, not 1: besides
separating modes, it is batch normalization with a different gain, which is not known before the first batch. So the
controls fit the same mixture that the layer in their place would fit to the first training batch (same stream, same
options), measure the standard deviation g of the result, channel by channel, and from then on are

* ``bn_matched``: BatchNorm *started* at gain g: g is multiplied into the parameter ``weight``;
* ``bn_reparam``: ``weight * (g * x_hat) + bias``: g is a constant of the layer, and ``weight`` starts at 1.

What counts as the first batch: :mod:`gbn.nn.first_batch`. If several processes train one network, g squared is the
mean of what they measure.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gbn.kernels.mixture import channel_moments, normalize_by_batch
from gbn.nn.arguments import refuse_components_as_eps
from gbn.nn.batchnorm import _BatchNormAct
from gbn.nn.first_batch import MeasuresFirstBatch
from gbn.nn.mixture_fit import MixtureFit, full_precision, overflowed

__all__ = [
    "MixtureMatchedBatchNorm1d",
    "MixtureMatchedBatchNorm2d",
    "MixtureMatchedBatchNorm3d",
    "MixtureReparametrizedBatchNorm1d",
    "MixtureReparametrizedBatchNorm2d",
    "MixtureReparametrizedBatchNorm3d",
]


class _MixtureControl(MeasuresFirstBatch, _BatchNormAct):
    """BatchNorm with the gain of mixture normalization, measured on the first training batch.

    Args:
        num_features: C, the size of dimension 1.
        components, mixture, em_steps, subset, variance_floor: as in :class:`gbn.nn.MixtureNorm2d`.
        eps, momentum, affine, track_running_stats, device, dtype, bias: as in BatchNorm.
        act: activation applied to the result, None or a name in :data:`gbn.kernels.ACTIVATIONS`.

    The buffer ``matched_gain`` (C,) is 1 until it is measured; ``measured_batches`` is 0 before and 1 after.

    Raises:
        ValueError: as in MixtureNorm2d; also for ``affine=False`` in ``bn_matched``, where the gain is the initial
            value of a parameter.
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
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias, act=act
        )
        self.matched_gain: Tensor
        self.stream: Tensor
        self.register_buffer("matched_gain", torch.ones(num_features, device=device, dtype=dtype))
        self._expect_first_batch(device)
        self.register_buffer("stream", torch.zeros((), dtype=torch.int64, device=device))

    def seed_stream(self, seed: int) -> None:
        """Set the random stream of this layer's draws; initially 0."""
        self.stream.fill_(seed)

    def reset_parameters(self) -> None:
        """Reset running averages, gain and bias, and set the measured gain to 1."""
        super().reset_parameters()
        if "stream" in self._buffers:  # False while the base class's constructor runs
            self.matched_gain.fill_(1.0)
            self.stream.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` normalized by BatchNorm; measure the gain on the first training batch."""
        self._see(x)
        return super().forward(x)

    def _keep(self, values: Tensor) -> None:
        self.matched_gain.copy_(values.sqrt())

    def _measure(self, x: Tensor) -> Tensor:
        """Return the variance (C,) of this batch after mixture normalization; 0 for an empty batch."""
        self.fit.check_samples(x, type(self).__name__)
        if x.numel() == 0:
            return x.new_zeros(self.num_features, dtype=torch.promote_types(x.dtype, torch.float32))
        with full_precision(x):
            # The mixture layer's batch count during its first batch, which includes that batch.
            count = torch.full_like(self.stream, int(self.track_running_stats))
            mixture, center = self.fit(x, self.eps, self.stream, count)
            y, moments = normalize_by_batch(x.to(center.dtype), mixture, None, None, self.eps, center=center)
            if overflowed(x, moments):
                return self._measure(x.double())
            return channel_moments(y.transpose(0, 1).flatten(1).T)[1]

    def extra_repr(self) -> str:
        """Return BatchNorm's representation plus the mixture's options."""
        return f"{super().extra_repr()}, matched_to=MixtureNorm({self.fit!r})"


class _MixtureMatchedBatchNorm(_MixtureControl):
    __doc__ = _MixtureControl.__doc__

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.weight is None:
            raise ValueError("bn_matched is defined by its initial gain: it needs affine=True")

    def _keep(self, values: Tensor) -> None:
        super()._keep(values)
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
