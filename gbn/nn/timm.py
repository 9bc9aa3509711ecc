"""Norm layers of this package in timm's models.

timm asks for norms in two ways. Most models (ResNet, ConvNeXt, ...) call ``norm_layer(num_features)`` and
apply the activation themselves; others (EfficientNet, ResNetV2, RegNet, ...) call a norm that applies it,
``norm_layer(num_features, apply_act=True)``. One cannot be told from the other by the call, so the caller
says which.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from gbn.kernels.activation import check_activation
from gbn.nn.factory import NormFactory

__all__ = ["as_timm"]

_BY_CLASS = {nn.ReLU: "relu", nn.ReLU6: "relu6", nn.LeakyReLU: "leaky_relu", nn.ELU: "elu", nn.GELU: "gelu"}
_BY_CLASS |= {
    nn.SiLU: "silu",
    nn.Mish: "mish",
    nn.Hardswish: "hardswish",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
}
_BY_NAME = {"swish": "silu", "hard_swish": "hardswish"}


def as_timm(
    factory: NormFactory, *, applies_act: bool = False, act: str | None = "relu"
) -> Callable[..., nn.Module]:
    """A ``norm_layer`` for timm's models.

    Args:
        factory: made by :func:`gbn.nn.norm_layer`; every norm gets the role "body" (place by module path
        instead).
        applies_act: whether the model leaves the activation to its norms, as timm's ``BatchNormAct2d`` does.
        act: activation of such norms when the call names none: timm does not hand its ``act_layer`` on to a
            foreign norm in every model.

    Returns:
        a plain function, which timm takes for a norm as well as for a norm with activation.

    Raises:
        ValueError: in the call, for an ``act_layer`` that has no counterpart here.
    """
    check_activation(act)

    def timm_norm(
        num_features: int,
        eps: float | None = None,
        momentum: float | None = None,
        *,
        apply_act: bool = applies_act,
        act_layer: Any = act,
        inplace: bool = True,
        act_kwargs: Any = None,
        drop_layer: Any = None,
        device: Any = None,
        dtype: Any = None,
    ) -> nn.Module:
        # eps and momentum are the factory's: every norm of an arm has the same.
        if drop_layer is not None or act_kwargs:
            raise ValueError("drop_layer and act_kwargs of timm's norms are not supported by gbn.nn.as_timm")
        name = _activation_name(act_layer) if apply_act else None
        return factory(num_features, act=name, dim=2, role="body", device=device, dtype=dtype)

    return timm_norm


def _activation_name(act_layer: Any) -> str | None:
    if act_layer is None:
        return None
    if isinstance(act_layer, str):
        return check_activation(_BY_NAME.get(act_layer, act_layer))
    if act_layer in _BY_CLASS:
        return _BY_CLASS[act_layer]
    # timm's own activation classes are named as torch's.
    name = getattr(act_layer, "__name__", repr(act_layer)).lower()
    return check_activation(_BY_NAME.get(name, name))
