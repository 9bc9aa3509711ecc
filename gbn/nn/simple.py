"""Layer, group, instance and no normalization, each followed by its activation.

Parameter names and arguments are those of torch's layers. Statistics are computed per image, so these layers
behave the same in training and evaluation mode.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gbn.kernels.activation import ACTIVATIONS, activate, check_activation
from gbn.nn.arguments import check_arguments
from gbn.nn.torchscript import refuse_script

__all__ = [
    "Activation",
    "GroupNormAct",
    "InstanceNormAct1d",
    "InstanceNormAct2d",
    "InstanceNormAct3d",
    "LayerNormAct",
    "largest_divisor",
]


def largest_divisor(number: int, at_most: int) -> int:
    """Return the largest divisor of ``number`` that is at most ``at_most``."""
    return next(k for k in range(min(number, at_most), 0, -1) if number % k == 0)


def _reset(layer: nn.Module) -> None:
    for parameter, value in ((layer.weight, 1.0), (layer.bias, 0.0)):
        if isinstance(parameter, nn.Parameter):
            nn.init.constant_(parameter, value)


class Activation(nn.Module):
    """An activation and nothing else; None is the identity. Names: :data:`gbn.kernels.ACTIVATIONS`."""

    __prepare_scriptable__ = refuse_script

    def __init__(self, act: str | None = None) -> None:
        super().__init__()
        self.act = check_activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``act(x)`` for ``x`` of any shape; ``x`` is not modified."""
        # Not activate(): it may write into its argument, which here belongs to the caller.
        return x if self.act is None else ACTIVATIONS[self.act](x)

    def extra_repr(self) -> str:
        """Return the activation."""
        return repr(self.act)


class GroupNormAct(nn.GroupNorm):
    """torch's GroupNorm over ``groups`` groups of channels and the spatial dimensions, then ``act``.

    Args:
        num_features: C.
        groups: desired number of groups; the largest divisor of C that is at most this is used, so that one
            setting works for networks of any width.
        eps, affine, device, dtype, bias: as in ``torch.nn.GroupNorm``.
        act: None or a name in :data:`gbn.kernels.ACTIVATIONS`.

    Raises:
        ValueError: for an argument out of range.
    """

    __prepare_scriptable__ = refuse_script

    def __init__(
        self,
        num_features: int,
        groups: int = 32,
        eps: float = 1e-5,
        affine: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
        act: str | None = None,
    ) -> None:
        check_arguments(num_features=num_features, groups=groups, eps=eps, affine=affine, bias=bias)
        super().__init__(largest_divisor(num_features, groups), num_features, eps, affine, device, dtype)
        if not bias:
            self.register_parameter("bias", None)  # torch before 2.13 has no such argument
        self.act = check_activation(act)

    def reset_parameters(self) -> None:
        """Set the gain to 1 and the bias to 0."""
        _reset(self)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize ``(N, C, *spatial)`` and apply the activation; the shape is unchanged."""
        return activate(super().forward(x), self.act)

    def extra_repr(self) -> str:
        """Return GroupNorm's representation plus the activation."""
        return super().extra_repr() if self.act is None else f"{super().extra_repr()}, act={self.act!r}"


class LayerNormAct(GroupNormAct):
    """Layer normalization: one mean and variance per image over channels and space.

    Gain and bias are per channel. It is GroupNorm with one group, since ``torch.nn.LayerNorm`` would need the spatial
    size in advance; on ``(N, C)`` the two are the same function.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
        act: str | None = None,
    ) -> None:
        super().__init__(num_features, 1, eps, affine, device, dtype, bias=bias, act=act)


class _InstanceNormAct(nn.modules.instancenorm._InstanceNorm):
    """torch's InstanceNorm (one mean and variance per image and channel), then ``act``.

    Gain and bias are learned by default, unlike in torch; the other arguments are torch's.

    Raises:
        ValueError: for an input without a batch dimension or with one value per image and channel, such as
            ``(N, C)``, where there is nothing to normalize over.
    """

    _dims: int
    __prepare_scriptable__ = refuse_script

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        track_running_stats: bool = False,
        device: Any = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
        act: str | None = None,
    ) -> None:
        check_arguments(
            num_features=num_features,
            eps=eps,
            momentum=momentum,
            affine=affine,
            track_running_stats=track_running_stats,
            bias=bias,
        )
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        if not bias:
            self.register_parameter("bias", None)  # torch before 2.13 has no such argument
        self.act = check_activation(act)

    def reset_parameters(self) -> None:
        """Set the running averages to 0 and 1, the gain to 1 and the bias to 0."""
        self.reset_running_stats()
        _reset(self)

    def _get_no_batch_dim(self) -> int:
        return self._dims - 1  # rejected below: torch would take (N, C) for (C, L) without a batch dimension

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() != self._dims:
            raise ValueError(
                f"{type(self).__name__} expects {self._dims}D input (N, C, spatial), got {input.dim()}D "
                f"{tuple(input.shape)}; instance normalization needs several values per image and channel"
            )

    def forward(self, x: Tensor) -> Tensor:
        """Normalize ``(N, C, *spatial)`` and apply the activation; the shape is unchanged."""
        return activate(super().forward(x), self.act)

    def extra_repr(self) -> str:
        """Return InstanceNorm's representation plus the activation."""
        return super().extra_repr() if self.act is None else f"{super().extra_repr()}, act={self.act!r}"


class InstanceNormAct1d(_InstanceNormAct):  # noqa: D101 - its docstring is its base's
    __doc__ = _InstanceNormAct.__doc__
    _dims = 3


class InstanceNormAct2d(_InstanceNormAct):  # noqa: D101 - its docstring is its base's
    __doc__ = _InstanceNormAct.__doc__
    _dims = 4


class InstanceNormAct3d(_InstanceNormAct):  # noqa: D101 - its docstring is its base's
    __doc__ = _InstanceNormAct.__doc__
    _dims = 5
