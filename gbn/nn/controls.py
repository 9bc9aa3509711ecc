"""The two Gaussian controls for a generalized pair.

On Gaussian pre-activations, S = mu + k sigma and D = c sigma for every positively homogeneous pair, so generalized
batch normalization is then BatchNorm with a different initial gain 1/c and bias -k/c. A claim about a pair must be a
claim about what it does beyond these controls:

* ``MatchedBatchNorm``: BatchNorm *started* at gain 1/c and bias -k/c: the pair's function at step 0, on a
  Gaussian;
* ``ReparametrizedBatchNorm``: ``weight * (x_hat - k)/c + bias`` started at gain 1 and bias 0: the pair's
  function and its gradients with respect to gain and bias at every step, on a Gaussian; only the gradient with
  respect to x is BatchNorm's.

With instance enhancement, the gain is the product of a gate and the layer's gain; the gate starts at the same value g
for every image, and both controls have gain g/c instead of 1/c.

BN -> matched is an effect of the initial point, matched -> reparametrized is an effect of the parametrization
(learning rates and weight decay of gain and bias). The rest is the deviation's own on a Gaussian only: elsewhere k
and c differ, and :mod:`gbn.nn.measured_controls` measures them.

eps is BatchNorm's, ``sqrt(sigma**2 + eps)``, in x_hat; the pair adds it to D (:mod:`gbn.kernels.epsilon`). The
functions differ by that, a share of the order of eps / sigma**2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gbn.nn.arguments import check_arguments
from gbn.nn.batchnorm import _BatchNormAct
from gbn.nn.function import BATCHNORM, Function
from gbn.nn.instance_enhancement import initial_gate
from gbn.nn.pairs import Pair, pair_from_options

__all__ = [
    "MatchedBatchNorm1d",
    "MatchedBatchNorm2d",
    "MatchedBatchNorm3d",
    "ReparametrizedBatchNorm1d",
    "ReparametrizedBatchNorm2d",
    "ReparametrizedBatchNorm3d",
]


class _Control(_BatchNormAct):
    """BatchNorm started at the gain and bias that give a pair's function on a Gaussian.

    Args:
        num_features: C, the size of dimension 1.
        eps, momentum, affine, track_running_stats, device, dtype, bias: as in BatchNorm.
        matched_to: the pair: a mapping such as ``{"quadrangle": "cvar", "alpha": 0.75}`` or
            ``{"statistic": ..., "deviation": ...}``, the arguments of ``GeneralizedBatchNorm``.
        samples: n, the number of values per channel; needed only for pairs of extremes, whose k and c depend on it.
        rescaled: match the pair's Gaussian-rescaled form.
        gate_bias: match the instance-enhanced layer of this pair whose gate starts at ``sigmoid(gate_bias)``
            (:mod:`gbn.nn.instance_enhancement`); None for the pair alone.
        act: activation applied to the result, None or a name in :data:`gbn.kernels.ACTIVATIONS`.

    Raises:
        ValueError: for an unknown pair, for extremes without ``samples``, and for ``affine=False`` or
            ``bias=False`` if the control needs an initial gain and bias.
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
        matched_to: Mapping[str, Any] | Pair,
        bias: bool = True,
        samples: int | None = None,
        rescaled: bool = False,
        gate_bias: float | None = None,
        act: str | None = None,
    ) -> None:
        check_arguments(
            samples=samples, rescaled=rescaled, **({} if gate_bias is None else {"gate_bias": gate_bias})
        )
        if not isinstance(matched_to, Mapping | Pair):
            raise ValueError(
                f"matched_to={matched_to!r} is not allowed: it must be a mapping, for example "
                "{'quadrangle': 'cvar', 'alpha': 0.75}"
            )
        options = {} if isinstance(matched_to, Pair) else dict(matched_to)
        rescaled = bool(options.pop("rescaled", False)) or rescaled
        self.pair = matched_to if isinstance(matched_to, Pair) else pair_from_options(options)
        self.gate_bias = gate_bias
        self._set_constants(samples, rescaled)
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias, act=act
        )
        self._check_affine()

    def _set_constants(self, samples: int | None, rescaled: bool) -> None:
        """Set the constants that are known before the first batch."""
        k, c = self.pair.gaussian(samples)
        # S = mu + shift sigma and D = scale sigma; rescaling D to sigma does not change the shift. A gate multiplies
        # the quotient by D, so it divides the scale.
        self._shift, self._scale = k, (1.0 if rescaled else c) / initial_gate(self.gate_bias)
        self._start_bias = self.pair.initial_bias * (c if rescaled else 1.0)

    def _check_affine(self) -> None:
        """Raise ValueError if parameters that the control needs are missing; none are needed here."""

    def extra_repr(self) -> str:
        """Return BatchNorm's representation plus the pair."""
        text = f"{super().extra_repr()}, matched_to={self.pair}"
        return text if self.gate_bias is None else f"{text}, gate_bias={self.gate_bias}"


class _MatchedBatchNorm(_Control):
    __doc__ = _Control.__doc__

    def _check_affine(self) -> None:
        if self.weight is None:
            raise ValueError("bn_matched is defined by its initial gain and bias: it needs affine=True")
        start = self.initial_affine()[1]
        if self.bias is None and start != 0.0:
            raise ValueError(f"bn_matched starts from bias {start:.4g} for this pair: it needs bias=True")

    def initial_affine(self) -> tuple[float, float]:
        """Return gain 1/c and bias -k/c (plus the pair's own initial bias)."""
        return 1.0 / self._scale, self._start_bias - self._shift / self._scale


class _ReparametrizedBatchNorm(_Control):
    """The pair (mean + k sigma, c sigma) built from BatchNorm's statistics, with the k and c of another pair.

    Args:
        num_features: C, the size of dimension 1.
        eps, momentum, affine, track_running_stats, device, dtype, bias: as in BatchNorm.
        matched_to: the pair: a mapping such as ``{"quadrangle": "cvar", "alpha": 0.75}`` or
            ``{"statistic": ..., "deviation": ...}``, the arguments of ``GeneralizedBatchNorm``.
        samples: n, the number of values per channel; needed only for pairs of extremes, whose k and c depend on it.
        rescaled: match the pair's Gaussian-rescaled form.
        gate_bias: match the instance-enhanced layer of this pair whose gate starts at ``sigmoid(gate_bias)``
            (:mod:`gbn.nn.instance_enhancement`) by multiplying the gain by that value; None for the pair alone.
        act: activation applied to the result, None or a name in :data:`gbn.kernels.ACTIVATIONS`.

    Raises:
        ValueError: for an unknown pair and for extremes without ``samples``.
    """

    def initial_affine(self) -> tuple[float, float]:
        """Return gain 1 and the pair's own initial bias."""
        return 1.0, self._start_bias

    def _gain_and_bias(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # weight ((x_hat - k)/c) + bias = (weight/c) x_hat + (bias - k weight/c)
        if self.weight is not None:
            gain = self.weight / self._scale
        else:
            location, _ = self.running()
            like = x if location is None else location
            gain = torch.full((self.num_features,), 1.0 / self._scale, dtype=like.dtype, device=like.device)
        shift = -self._shift * gain
        return gain, shift if self.bias is None else self.bias + shift

    @property
    def function(self) -> Function:
        """The function of the pair (mean, std) with this layer's gain and offset."""
        return Function(BATCHNORM.pair, 1.0 / self._scale, -self._shift / self._scale)


class MatchedBatchNorm1d(_MatchedBatchNorm):  # noqa: D101 - its docstring is its base's
    __doc__ = _MatchedBatchNorm.__doc__
    _input_dims = (2, 3)


class MatchedBatchNorm2d(_MatchedBatchNorm):  # noqa: D101 - its docstring is its base's
    __doc__ = _MatchedBatchNorm.__doc__
    _input_dims = (4,)


class MatchedBatchNorm3d(_MatchedBatchNorm):  # noqa: D101 - its docstring is its base's
    __doc__ = _MatchedBatchNorm.__doc__
    _input_dims = (5,)


class ReparametrizedBatchNorm1d(_ReparametrizedBatchNorm):  # noqa: D101 - its docstring is its base's
    __doc__ = _ReparametrizedBatchNorm.__doc__
    _input_dims = (2, 3)


class ReparametrizedBatchNorm2d(_ReparametrizedBatchNorm):  # noqa: D101 - its docstring is its base's
    __doc__ = _ReparametrizedBatchNorm.__doc__
    _input_dims = (4,)


class ReparametrizedBatchNorm3d(_ReparametrizedBatchNorm):  # noqa: D101 - its docstring is its base's
    __doc__ = _ReparametrizedBatchNorm.__doc__
    _input_dims = (5,)
