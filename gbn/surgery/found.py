"""Batch normalization layers of any library, as the options of a norm layer of this package."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _LazyNormBase
from torch.nn.utils import parametrize

from gbn.kernels.activation import ACTIVATIONS
from gbn.nn.base import BatchStatisticsNorm

__all__ = ["ACTIVATION_MODULES", "Norm", "is_norm", "read", "why_not"]

#: Activation modules that an ``act`` of this package computes, with the attributes that must be at their defaults.
ACTIVATION_MODULES: dict[type[nn.Module], tuple[str, dict[str, Any]]] = {
    nn.ReLU: ("relu", {}),
    nn.ReLU6: ("relu6", {}),
    nn.LeakyReLU: ("leaky_relu", {"negative_slope": 0.01}),
    nn.ELU: ("elu", {"alpha": 1.0}),
    nn.GELU: ("gelu", {"approximate": "none"}),
    nn.SiLU: ("silu", {}),
    nn.Mish: ("mish", {}),
    nn.Hardswish: ("hardswish", {}),
    nn.Tanh: ("tanh", {}),
    nn.Sigmoid: ("sigmoid", {}),
}
_DIMENSIONS = {nn.BatchNorm1d: (1, (2, 3)), nn.BatchNorm2d: (2, (4,)), nn.BatchNorm3d: (3, (5,))}
_ANY = (2, (2, 3, 4, 5))
#: Layers that normalize each image by itself: they are listed as kept, never swapped without being named.
_PER_IMAGE = (nn.LayerNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm, nn.LocalResponseNorm)


@dataclasses.dataclass(frozen=True)
class Norm:
    """What is known of a batch normalization layer.

    Attributes:
        num_features: C.
        dim: 1, 2 or 3, which of a method's classes takes its place.
        input_dims: the numbers of dimensions of the inputs that it takes.
        act: the activation that it applies itself, by its name in :data:`gbn.kernels.ACTIVATIONS`; None for none.
        options: eps, momentum, affine, bias, track_running_stats.
    """

    num_features: int
    dim: int
    input_dims: tuple[int, ...]
    act: str | None
    options: dict[str, Any]


def is_norm(layer: nn.Module) -> bool:
    """Return whether a layer is a norm of any kind."""
    return isinstance(
        layer, (BatchStatisticsNorm, nn.modules.batchnorm._NormBase, *_PER_IMAGE)
    ) or _is_frozen(layer)


def why_not(layer: nn.Module) -> str | None:
    """Return why a norm is not swapped unless ``where`` names its class, or None if nothing speaks against it."""
    kind = parametrize.type_before_parametrizations(layer)
    if isinstance(layer, _LazyNormBase) and layer.has_uninitialized_params():
        return "lazy, its number of channels is not known yet: call the model once, then convert it"
    if isinstance(layer, _PER_IMAGE):
        return "normalizes each image by itself, not by the batch"
    known = (*_DIMENSIONS, nn.SyncBatchNorm)
    if kind in known or _is_frozen(layer) or _is_timm(layer) or isinstance(layer, BatchStatisticsNorm):
        return (
            None if _activation(layer) is not NotImplemented else "its activation has no name in this package"
        )
    return f"{kind.__name__} is a subclass of BatchNorm that may do more: name its class in `where` to swap it anyway"


def read(layer: Any) -> Norm:
    """Return what is known of a layer for which :func:`is_norm` holds and which is batch normalization."""
    act = _activation(layer)
    if act is NotImplemented:
        raise ValueError(
            f"the activation of {type(layer).__name__}, {layer.act}, has no name in this package"
        )
    if _is_frozen(layer):
        running: Any = layer.running_var
        return Norm(len(running), 2, (4,), act, {"eps": layer.eps})
    dim, dims = next((v for kind, v in _DIMENSIONS.items() if isinstance(layer, kind)), _ANY)
    if isinstance(layer, BatchStatisticsNorm):
        dims = layer._input_dims
        dim = {(2, 3): 1, (4,): 2, (5,): 3}.get(dims, 2)
    options = {key: getattr(layer, key) for key in ("eps", "momentum", "affine", "track_running_stats")}
    options["bias"] = layer.bias is not None or not layer.affine
    return Norm(layer.num_features, dim, dims, act, options)


def _is_frozen(layer: nn.Module) -> bool:
    """torchvision's FrozenBatchNorm2d and timm's FrozenBatchNormAct2d, and copies of these."""
    return type(layer).__name__ in ("FrozenBatchNorm2d", "FrozenBatchNormAct2d") and hasattr(
        layer, "running_var"
    )


def _is_timm(layer: nn.Module) -> bool:
    return type(layer).__name__ in ("BatchNormAct2d", "SyncBatchNormAct") and hasattr(layer, "drop")


def _activation(layer: Any) -> Any:
    """Return the name of the activation inside a layer, None for none, NotImplemented if it has no name here."""
    act = getattr(layer, "act", None)
    if act is None or isinstance(act, str):
        return act
    if isinstance(act, nn.Identity):
        return None if isinstance(layer.drop, nn.Identity) else NotImplemented
    return name_of(act) if isinstance(layer.drop, nn.Identity) else NotImplemented


def name_of(act: nn.Module) -> Any:
    """Return the name of an activation module in :data:`gbn.kernels.ACTIVATIONS`, or NotImplemented."""
    for kind, (name, defaults) in ACTIVATION_MODULES.items():
        if type(act) is kind and all(getattr(act, key) == value for key, value in defaults.items()):
            return name
    # timm's own activation modules compute the functions that their names say.
    name = {"swish": "silu", "hardswish": "hardswish"}.get(
        type(act).__name__.lower(), type(act).__name__.lower()
    )
    if type(act).__module__.startswith("timm.layers.activations") and name in ACTIVATIONS:
        return name
    return NotImplemented
