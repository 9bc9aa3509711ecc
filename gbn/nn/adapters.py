"""Use this package's norm layers in models of torchvision and timm that take a ``norm_layer``.

A network that is built already, and any that takes none, is converted instead: :func:`gbn.convert`.

torchvision calls ``norm_layer(num_features)``, at times with eps and momentum, and applies activations itself.

timm requests norms in two ways. Most models (ResNet, ConvNeXt, ...) call ``norm_layer(num_features)`` and
apply the activation themselves; others (EfficientNet, ResNetV2, RegNet, ...) expect a norm that applies it,
``norm_layer(num_features, apply_act=True)``. The call does not reveal which, so the user has to say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from gbn.kernels.activation import check_activation
from gbn.nn.factory import NormFactory

__all__ = ["as_timm", "as_torchvision"]

_BY_CLASS = {nn.ReLU: "relu", nn.ReLU6: "relu6", nn.LeakyReLU: "leaky_relu", nn.ELU: "elu", nn.GELU: "gelu"}
_BY_CLASS |= {
    nn.SiLU: "silu",
    nn.Mish: "mish",
    nn.Hardswish: "hardswish",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
}
_BY_NAME = {"swish": "silu", "hard_swish": "hardswish"}


def as_torchvision(factory: NormFactory, *, dim: int = 2) -> Callable[..., nn.Module]:
    """Return a ``norm_layer`` for torchvision's models, and all others that apply activations themselves.

    A factory of :func:`gbn.nn.norm_layer` itself would add an activation after every norm.

    Args:
        factory: from :func:`gbn.nn.norm_layer`; every norm gets the role "body".
        dim: 2 for images, 3 for videos.

    Returns:
        a function of ``num_features``, and of ``eps`` and ``momentum``, which replace the factory's where the model
        passes them and the method has them.
    """

    def torchvision_norm(
        num_features: int, eps: float | None = None, momentum: float | None = None, **place: Any
    ) -> nn.Module:
        given = {"eps": eps, "momentum": momentum}
        own = {key: value for key, value in given.items() if value is not None and factory.accepts(key)}
        return factory.with_options(**own)(num_features, act=None, dim=dim, role="body", **place)

    return torchvision_norm


def as_timm(
    factory: NormFactory, *, applies_act: bool = False, act: str | None = "relu"
) -> Callable[..., nn.Module]:
    """Return a ``norm_layer`` for timm's models.

    Args:
        factory: from :func:`gbn.nn.norm_layer`; every norm gets the role "body" (use module-path patterns for
            placement).
        applies_act: whether the model leaves the activation to its norms, as with timm's ``BatchNormAct2d``.
        act: activation of such norms if the call names none: not every timm model passes its ``act_layer`` to a
            foreign norm.

    Returns:
        a plain function, which timm accepts both as a norm and as a norm with activation.

    Raises:
        ValueError: when called with an ``act_layer`` that has no counterpart here.
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
        # eps and momentum come from the factory: they are the same for every norm of an arm.
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
    # timm's own activation classes have the same names as torch's.
    name = getattr(act_layer, "__name__", repr(act_layer)).lower()
    return check_activation(_BY_NAME.get(name, name))
