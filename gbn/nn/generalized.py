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
from gbn.kernels.gate import Gate
from gbn.nn.arguments import check_arguments
from gbn.nn.first_batch import MeasuresFirstBatch, calibration
from gbn.nn.function import Function
from gbn.nn.pairs import build_pair
from gbn.risk.base import Deviation, Statistic
from gbn.suggest import did_you_mean

__all__ = ["STARTS", "GeneralizedBatchNorm1d", "GeneralizedBatchNorm2d", "GeneralizedBatchNorm3d"]

#: The functions that a pair can start at: its own, or BatchNorm's on a Gaussian or on the first training batch.
STARTS = ("own", "bn", "bn_measured")


class _GeneralizedBatchNorm(MeasuresFirstBatch):
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
        samples: n, the number of values per channel; needed only for pairs of extremes that are ``rescaled`` or
            started at ``bn``.
        start: the function that the layer starts at: ``own``, gain 1 and bias 0; ``bn``, BatchNorm's on a Gaussian,
            gain c and bias k where S = mu + k sigma and D = c sigma; or ``bn_measured``, BatchNorm's on the first
            training batch, whose k and c of each channel (:func:`gbn.nn.first_batch.calibration`) then go into gain
            and bias (the state dict has one buffer more, ``measured_batches``). Where eps goes stays the pair's.
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
        start: str = "own",
        **parameters: Any,
    ) -> None:
        check_arguments(rescaled=rescaled, samples=samples)
        if start not in STARTS:
            raise ValueError(f"start={start!r}{did_you_mean(start, STARTS)}: allowed are {', '.join(STARTS)}")
        pair = build_pair(quadrangle, statistic, deviation, **parameters)
        # The base class's constructor needs the pair, which determines the buffer names and the initial bias.
        self.pair = pair
        if not pair.is_mean_and_std:
            self._buffer_names = ("running_statistic", "running_deviation")
        self.rescaled = rescaled
        self.samples = samples
        # D/c + eps = (D + c eps)/c, so the rescaled pair is the raw pair with gain and eps multiplied by c.
        self._scale = pair.gaussian(samples)[1] if rescaled else 1.0
        self.start = start
        self._calibration = pair.gaussian(samples) if start == "bn" else (0.0, 1.0)
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias, act=act
        )
        if start != "own" and self.weight is None:
            raise ValueError(f"start={start!r} sets the gain: it needs affine=True")
        if start != "own" and self.bias is None and pair.statistic.name != "mean":
            raise ValueError(f"start={start!r} sets the bias: it needs bias=True")
        if start == "bn_measured":
            self._expect_first_batch(device)
        if (
            pair.dead_below_relu
            and start == "own"
            and keeps_upper_tail_only(act)
            and (self.initial_affine()[1] <= 0 or self.bias is None)
        ):
            warnings.warn(
                f"{pair} leaves no value above 0: {act} after it passes nothing until the bias has grown; "
                "use the deviation worst_case in a layer with a bias, another activation, or set the bias",
                stacklevel=2,
            )

    def initial_affine(self) -> tuple[float, float]:
        """Return gain 1 and bias 0, or bias 1 for ``worst_case`` (see the class); with ``start="bn"`` c and k."""
        if self.start == "own":
            return 1.0, self.pair.initial_bias * self._scale
        k, c = self._calibration
        return c / (self._scale * self._initial_gate()), k

    def _initial_gate(self) -> float:
        """Return the factor by which a gate multiplies the gain at the start; 1 here, where there is none."""
        return 1.0

    def _measure(self, x: Tensor) -> Tensor:
        return calibration(x, self.pair)

    def _keep(self, values: Tensor) -> None:
        # weight (x - mu) / sigma + bias = weight c (x - S) / D + weight k + bias
        assert self.weight is not None
        if self.bias is not None:
            self.bias.add_(self.weight * (self._scale * self._initial_gate()) * values[0])
        self.weight.mul_(values[1])

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` normalized; in training by its own statistics, which are added to the running averages."""
        self._check_input(x)
        self._see(x)
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
        bias: Tensor | None = self.bias
        if self._is_noisy():
            _, bias = self._noisy_affine(x, self.weight, bias)
            weight, _ = self._noisy_affine(x, weight, None)
        return self._kernel(x, weight, bias, eps, self.act)

    def _kernel(
        self,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        act: str | None,
        gate: Gate | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return (y, S, D) of this batch with the given gain, bias and gate."""
        return kernels.normalize(x, weight, bias, self.pair.statistic, self.pair.deviation, eps, act, gate)

    def _gate(self) -> Gate | None:
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
        text = f"{text}, rescaled=True" if self.rescaled else text
        return text if self.start == "own" else f"{text}, start={self.start!r}"

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
