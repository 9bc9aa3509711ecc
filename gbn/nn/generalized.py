"""Generalized batch normalization: any statistic and deviation instead of mean and standard deviation.

    y = act(weight * (x - S(x)) / D(x) + bias)        per channel, over the batch and the spatial dimensions

(Yuan, Feng, Norton, Li: Generalized Batch Normalization, AAAI 2019, arXiv 1812.03271; S and D from one risk
quadrangle of Rockafellar and Uryasev, 2013.) :mod:`gbn.kernels` computes it; :mod:`gbn.risk` defines the pairs.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gbn import kernels
from gbn.kernels.activation import activate, keeps_upper_tail_only
from gbn.nn.arguments import check_arguments
from gbn.nn.base import BatchStatisticsNorm
from gbn.nn.function import Function
from gbn.nn.pairs import build_pair
from gbn.risk.base import Deviation, Statistic

__all__ = ["GeneralizedBatchNorm1d", "GeneralizedBatchNorm2d", "GeneralizedBatchNorm3d"]


class _GeneralizedBatchNorm(BatchStatisticsNorm):
    """Batch normalization with a statistic S and a deviation D of your choice.

    Args:
        num_features: C, the size of dimension 1.
        eps, momentum, affine, track_running_stats, device, dtype, bias: as in BatchNorm; for how ``eps`` enters, see
            :mod:`gbn.kernels.epsilon`.
        quadrangle: name in :data:`gbn.risk.QUADRANGLES`; ``"std"`` is BatchNorm.
        statistic, deviation: each a name, a mapping ``{"name": ..., parameter: value}`` or an object of
            :mod:`gbn.risk`; replaces the quadrangle's own. If both are given, ``quadrangle`` is ignored.
        act: activation applied to the result, None or a name in :data:`gbn.kernels.ACTIVATIONS`.
        rescaled: divide D by its value on a standard Gaussian, so that it estimates sigma on a Gaussian.
        samples: n, the number of values per channel; needed only for ``rescaled`` pairs of extremes.
        **parameters: parameters of the quadrangle: ``alpha``, ``tau``, ``b``, ``weights``, ``alphas``, and for order
            statistics ``quantile_gradient`` and ``window``.

    Shapes:
        input and output ``(N, C)`` or ``(N, C, L)`` (1d), ``(N, C, H, W)`` (2d), ``(N, C, D, H, W)`` (3d).

    Running averages: the pair (mean, std) keeps ``running_mean`` and the unbiased ``running_var`` like BatchNorm,
    so checkpoints can be exchanged both ways; every other pair keeps ``running_statistic`` and
    ``running_deviation``, and its state dict names the pair (:mod:`gbn.nn.function`). Loading a checkpoint of
    BatchNorm or of another pair takes gain and bias only and warns that the running averages need calibration
    (:func:`gbn.nn.precise_statistics`, or training).

    The result is invariant under x -> a x + b, a > 0 (up to eps), except for ``entropic`` and for Huber with a fixed
    threshold, which are not positively homogeneous: for these the scale of the input matters.

    Differentiable once: a second derivative (gradient penalty) raises RuntimeError.

    The statistic ``maximum`` leaves no value above 0, so with bias 0 a ReLU after it would output only zeros. For
    ``worst_case``, where S - D is the mean, the bias therefore starts at 1, which maps the mean to 0; otherwise the
    layer warns.

    Raises:
        ValueError: for a parameter out of range (the message says what is allowed), an input of the wrong shape,
            and in training for a batch with one value per channel.
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
        quadrangle: str | None = "cvar",
        statistic: str | Mapping[str, Any] | Statistic | None = None,
        deviation: str | Mapping[str, Any] | Deviation | None = None,
        act: str | None = None,
        rescaled: bool = False,
        samples: int | None = None,
        **parameters: Any,
    ) -> None:
        check_arguments(rescaled=rescaled, samples=samples)
        pair = build_pair(quadrangle, statistic, deviation, **parameters)
        # The base class's constructor needs the pair, which determines the buffer names and the initial bias.
        self.pair = pair
        if not pair.is_mean_and_std:
            self._buffer_names = ("running_statistic", "running_deviation")
        self.rescaled = rescaled
        self.samples = samples
        # D/c + eps = (D + c eps)/c, so the rescaled pair is the raw pair with gain and eps multiplied by c.
        self._scale = pair.gaussian(samples)[1] if rescaled else 1.0
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias, act=act
        )
        if (
            pair.dead_below_relu
            and keeps_upper_tail_only(act)
            and (self.initial_affine()[1] <= 0 or self.bias is None)
        ):
            warnings.warn(
                f"{pair} leaves no value above 0: {act} after it passes nothing until the bias has grown; "
                "use the deviation worst_case in a layer with a bias, another activation, or set the bias",
                stacklevel=2,
            )

    def initial_affine(self) -> tuple[float, float]:
        """Return gain 1 and bias 0, or bias 1 for ``worst_case`` (see the class)."""
        return 1.0, self.pair.initial_bias * self._scale

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` normalized; in training by its own statistics, which are added to the running averages."""
        self._check_input(x)
        weight, eps = self._scaled(x)
        if not self._uses_batch():
            return self._evaluate(x, weight, eps)
        self._check_batch(x)
        share = self._count_batch()
        if x.numel() == 0:
            # As in BatchNorm: an empty result, zero gradients, running averages unchanged.
            for factor in (weight, *(self._gate() or ())):
                x = x if factor is None else (x * factor[0]).to(x.dtype)
            return x * 1 if self.bias is None else (x + self.bias[0]).to(x.dtype)
        y, s, d = self._normalize(x, weight, eps)
        if share is not None:
            self._average(s, d, share, x.numel() // self.num_features)
        return y

    def _evaluate(self, x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
        """Return y by the running averages: an affine map per channel, unless there is a gate."""
        (location, spread), bias, gate = self._kept(), self.bias, self._gate()
        if self.pair.is_mean_and_std:
            wide = torch.promote_types(x.dtype, torch.float32)
            same = (one is None or one.dtype is wide for one in (spread, weight, bias))
            if gate is None and all(same):
                # This pair keeps BatchNorm's variance and divides as BatchNorm does: torch's own call is the map.
                return activate(F.batch_norm(x, location, spread, weight, bias, eps=eps), self.act)
            spread = spread.sqrt()
        return kernels.normalize_with(
            x, location, spread, weight, bias, self.pair.deviation, eps, self.act, gate
        )

    def _normalize(self, x: Tensor, weight: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return (y, S, D) of this batch."""
        pair = self.pair
        bias: Tensor | None = self.bias
        if self._is_noisy():
            _, bias = self._noisy_affine(x, self.weight, bias)
            weight, _ = self._noisy_affine(x, weight, None)
        return kernels.normalize(x, weight, bias, pair.statistic, pair.deviation, eps, self.act)

    def _gate(self) -> tuple[Tensor, Tensor] | None:
        """Return weight and bias of a gate on the gain, or None as here (see :mod:`gbn.nn.instance_enhancement`)."""
        return None

    def _scaled(self, x: Tensor) -> tuple[Tensor | None, float]:
        """Return gain and eps for the kernel, which divides by the raw D."""
        if self._scale == 1.0:
            return self.weight, self.eps
        if self.weight is not None:
            return self.weight * self._scale, self.eps * self._scale
        wide = torch.promote_types(x.dtype, torch.float32)
        return torch.full(
            (self.num_features,), self._scale, device=x.device, dtype=wide
        ), self.eps * self._scale

    @torch.no_grad()
    def _average(self, s: Tensor, d: Tensor, share: float | Tensor, n: int) -> None:
        """Add this batch's S and D, or its unbiased variance, to the running averages."""
        location, spread = self.running()
        assert location is not None
        assert spread is not None
        if self.pair.is_mean_and_std:
            d = d.square() * (n / (n - 1))
        for kept, new in ((location, s), (spread, d)):
            kept.lerp_(new.to(kept.dtype), share.to(kept.dtype) if isinstance(share, Tensor) else share)

    def extra_repr(self) -> str:
        """Return BatchNorm's representation plus the pair."""
        text = f"{super().extra_repr()}, {self.pair}"
        return f"{text}, rescaled=True" if self.rescaled else text

    @property
    def function(self) -> Function:
        """The function of the pair; if rescaled, D is divided by its value on a Gaussian."""
        return Function(self.pair.value_name, self._scale)


class GeneralizedBatchNorm1d(_GeneralizedBatchNorm):  # noqa: D101 - its docstring is its base's
    __doc__ = _GeneralizedBatchNorm.__doc__
    _input_dims = (2, 3)


class GeneralizedBatchNorm2d(_GeneralizedBatchNorm):  # noqa: D101 - its docstring is its base's
    __doc__ = _GeneralizedBatchNorm.__doc__
    _input_dims = (4,)


class GeneralizedBatchNorm3d(_GeneralizedBatchNorm):  # noqa: D101 - its docstring is its base's
    __doc__ = _GeneralizedBatchNorm.__doc__
    _input_dims = (5,)
