"""Instance Enhancement Batch Normalization: each image scales the gain of each channel by its mean in that channel.

    m[n,c] = mean of x[n,c] over the spatial dimensions (of the input, before normalization)
    y      = act(weight[c] * sigmoid(gate_weight[c] * m[n,c] + gate_bias[c]) * (x - S[c]) / D[c] + bias[c])

(Liang, Huang, Liang, Yang: Instance Enhancement Batch Normalization, AAAI 2020, arXiv 1908.04008, with S and D the
mean and the standard deviation; the transform is that of the authors' code, github.com/gbup-group/IEBN.) Here S
and D may be any pair of :mod:`gbn.risk`. The bias is not gated, the gate is the same in training and evaluation, and
its mean is computed in at least float32, even under autocast.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from gbn.kernels import activate
from gbn.kernels.gate import Gate, row_gains
from gbn.methods import GATE_BIAS
from gbn.nn.arguments import check_arguments
from gbn.nn.generalized import _GeneralizedBatchNorm

__all__ = [
    "GATE_BIAS",
    "InstanceEnhancementBatchNorm1d",
    "InstanceEnhancementBatchNorm2d",
    "InstanceEnhancementBatchNorm3d",
    "initial_gate",
]


def initial_gate(gate_bias: float | None) -> float:
    """Return the initial value of every gate, while its weight is 0: ``sigmoid(gate_bias)``; 1 without a gate (None).

    Raises:
        ValueError: for a bias so low that the gate is permanently closed, which no gain can match.
    """
    if gate_bias is None:
        return 1.0
    gate = math.exp(min(gate_bias, 0.0)) / (1.0 + math.exp(-abs(gate_bias)))  # cannot overflow
    if gate == 0.0:
        raise ValueError(f"gate_bias={gate_bias}: the gate starts at 0 and stays there; use a higher one")
    return gate


class _InstanceEnhancementBatchNorm(_GeneralizedBatchNorm):
    """Batch normalization whose gain each image gates, channel by channel.

    Args:
        num_features: C, the size of dimension 1.
        eps, momentum, affine, track_running_stats, device, dtype, bias: as in BatchNorm. With ``affine=False`` there
            is no gain and no bias; the gate stays.
        quadrangle: the pair, a name in :data:`gbn.risk.QUADRANGLES`; ``"std"``, the default, is the paper's IEBN.
        gate_bias: initial value of the parameter ``gate_bias``; ``gate_weight`` starts at 0, so the layer starts as
            ``sigmoid(gate_bias)`` (0.268941) times batch normalization. A large value, such as 30, gives batch
            normalization.
        **options: those of :class:`GeneralizedBatchNorm2d`: statistic, deviation, act, rescaled, samples, start, and
            the parameters of the pair.

    Shapes:
        input and output ``(N, C)`` or ``(N, C, L)`` (1d), ``(N, C, H, W)`` (2d), ``(N, C, D, H, W)`` (3d).

    The state dict is that of the layer without a gate plus ``gate_weight`` and ``gate_bias``, ``(C,)`` each; loading
    one without these two leaves the gate as it is and warns. A large negative bias closes the gate permanently, since
    its gradient is then 0.

    Raises:
        ValueError: as in GeneralizedBatchNorm, and for a ``gate_bias`` that is not finite.
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
        quadrangle: str | None = "std",
        gate_bias: float = GATE_BIAS,
        **options: Any,
    ) -> None:
        check_arguments(gate_bias=gate_bias)
        initial_gate(gate_bias)  # rejects one that can never open
        self.initial_gate_bias = gate_bias
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype,
            bias=bias, quadrangle=quadrangle, **options,
        )  # fmt: skip
        self.gate_weight = nn.Parameter(torch.zeros(num_features, device=device, dtype=dtype))
        self.gate_bias = nn.Parameter(torch.full((num_features,), gate_bias, device=device, dtype=dtype))

    def _initial_gate(self) -> float:
        return initial_gate(self.initial_gate_bias)

    def _gate(self) -> Gate:
        return self.gate_weight, self.gate_bias

    def _normalize(self, x: Tensor, weight: Tensor | None, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        gate = self._gate()
        if not self._is_noisy():
            return self._kernel(x, weight, self.bias, eps, self.act, gate)
        assert self.noise is not None
        gain, _ = self._noisy_affine(x, weight, None)
        y, s, d = self._kernel(x, gain, self.bias, eps, None, gate)
        # The noise's shift passes gain and gate as well, so that it differs from image to image.
        shift = self.noise[1] * row_gains(x, self.weight, gate)
        return activate((y + shift.view(*shift.shape, *[1] * (x.dim() - 2))).to(y.dtype), self.act), s, d

    def reset_parameters(self) -> None:
        """Reset the running averages, and reset gain, bias and gate to their initial values."""
        super().reset_parameters()
        if hasattr(self, "gate_weight"):  # False while the base class's constructor runs
            nn.init.zeros_(self.gate_weight)
            nn.init.constant_(self.gate_bias, self.initial_gate_bias)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any], *rest: Any
    ) -> None:
        gate = {prefix + name: getattr(self, name) for name in ("gate_weight", "gate_bias")}
        if not gate.keys() & state_dict.keys() and any(key.startswith(prefix) for key in state_dict):
            state_dict.update({key: values.detach().clone() for key, values in gate.items()})
            where = f"layer {prefix[:-1]!r}" if prefix else "this layer"
            warnings.warn(
                f"{where} gates its gain, its checkpoint has no gate: the rest is loaded, the gate keeps its values "
                f"(initially it multiplies the gain by {initial_gate(self.initial_gate_bias):.4g})",
                stacklevel=2,
            )
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)

    def extra_repr(self) -> str:
        """Return the representation of the layer without the gate, plus the initial bias of the gate."""
        return f"{super().extra_repr()}, gate_bias={self.initial_gate_bias}"


class InstanceEnhancementBatchNorm1d(_InstanceEnhancementBatchNorm):  # noqa: D101 - its docstring is its base's
    __doc__ = _InstanceEnhancementBatchNorm.__doc__
    _input_dims = (2, 3)


class InstanceEnhancementBatchNorm2d(_InstanceEnhancementBatchNorm):  # noqa: D101 - its docstring is its base's
    __doc__ = _InstanceEnhancementBatchNorm.__doc__
    _input_dims = (4,)


class InstanceEnhancementBatchNorm3d(_InstanceEnhancementBatchNorm):  # noqa: D101 - its docstring is its base's
    __doc__ = _InstanceEnhancementBatchNorm.__doc__
    _input_dims = (5,)
