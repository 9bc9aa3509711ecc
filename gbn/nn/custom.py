"""Norm layers from other packages; see :mod:`gbn.targets` for how they are named. No registration needed."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from gbn.kernels.activation import ACTIVATIONS
from gbn.methods import Method
from gbn.nn.placement import Site
from gbn.nn.torchscript import refuse_script
from gbn.targets import NORM, resolve

__all__ = ["NormThenActivation", "build_custom", "check_custom"]


class NormThenActivation(nn.Module):
    """A foreign norm layer, ``norm``, followed by the activation that it does not apply itself."""

    __prepare_scriptable__ = refuse_script

    def __init__(self, norm: nn.Module, act: str) -> None:
        super().__init__()
        self.norm = norm
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        """Return ``act(norm(x))``."""
        # Not activate(): it writes into its argument, which the foreign layer may need in its backward pass.
        return ACTIVATIONS[self.act](self.norm(x))

    def extra_repr(self) -> str:
        """Return the activation."""
        return f"act={self.act!r}"


def check_custom(options: Mapping[str, Any]) -> None:
    """Raise ValueError unless ``options`` name a layer that can be loaded; build nothing."""
    if options.get("target") is None:
        raise ValueError("method 'custom' needs target, for example target='their.module:Layer'")
    resolve(NORM, options["target"])


def build_custom(method: Method, site: Site, options: Mapping[str, Any]) -> nn.Module:
    """Return ``target(num_features, **kwargs)``, passing ``act``, ``dim`` and ``role`` if it has such arguments.

    A layer that does not take ``act`` is followed by the activation of its site.
    """
    target = options["target"]
    build = resolve(NORM, target)
    accepted = inspect.signature(build).parameters
    call = {key: getattr(site, key) for key in ("act", "dim", "role") if key in accepted}
    call |= {
        key: options[key] for key in ("device", "dtype") if key in accepted and options.get(key) is not None
    }
    layer = build(site.num_features, **{**call, **(options.get("kwargs") or {})})
    if not isinstance(layer, nn.Module):
        raise ValueError(f"target {target!r} made a {type(layer).__name__}, not a torch.nn.Module")
    return layer if "act" in accepted or site.act is None else NormThenActivation(layer, site.act)
