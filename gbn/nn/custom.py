"""Norm layers from other packages, named by path or entry point; no fork and no registration needed.

A path is ``their.module:Layer`` or ``their.module.Layer``. A package can also provide names of its own:

    [project.entry-points."gbn.norms"]
    their_norm = "their.module:Layer"
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from torch import Tensor, nn

from gbn.kernels.activation import ACTIVATIONS
from gbn.nn.placement import Site
from gbn.nn.torchscript import refuse_script

__all__ = ["ENTRY_POINTS", "NormThenActivation", "build_custom", "check_custom", "resolve"]

ENTRY_POINTS = "gbn.norms"


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


def resolve(target: str | Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """Return the callable that ``target`` is or names, by entry point or by path.

    Raises:
        ValueError: if nothing of that name can be found or what is found cannot be called.
    """
    if callable(target):
        return target
    found: Any = None
    offered = entry_points(group=ENTRY_POINTS)
    if target in offered.names:
        found = offered[target].load()
    else:
        module, _, name = target.rpartition(":" if ":" in target else ".")
        try:
            found = import_module(module)
            for part in name.split("."):
                found = getattr(found, part)
        except (ImportError, AttributeError, ValueError) as error:
            names = ", ".join(sorted(offered.names)) or "none installed"
            raise ValueError(
                f"target {target!r} cannot be loaded ({error}): give their.module:Layer, their.module.Layer "
                f"or an entry point of group {ENTRY_POINTS} ({names})"
            ) from error
    if not callable(found):
        raise ValueError(f"target {target!r} is a {type(found).__name__}, not a layer class or a function")
    return found


def check_custom(options: Mapping[str, Any]) -> None:
    """Raise ValueError unless ``options`` name a layer that can be loaded; build nothing."""
    if options.get("target") is None:
        raise ValueError("method 'custom' needs target, for example target='their.module:Layer'")
    resolve(options["target"])


def build_custom(site: Site, options: Mapping[str, Any]) -> nn.Module:
    """Return ``target(num_features, **kwargs)``, passing ``act``, ``dim`` and ``role`` if it has such arguments.

    A layer that does not take ``act`` is followed by the activation of its site.
    """
    target = options["target"]
    build = resolve(target)
    accepted = inspect.signature(build).parameters
    call = {key: getattr(site, key) for key in ("act", "dim", "role") if key in accepted}
    call |= {
        key: options[key] for key in ("device", "dtype") if key in accepted and options.get(key) is not None
    }
    layer = build(site.num_features, **{**call, **(options.get("kwargs") or {})})
    if not isinstance(layer, nn.Module):
        raise ValueError(f"target {target!r} made a {type(layer).__name__}, not a torch.nn.Module")
    return layer if "act" in accepted or site.act is None else NormThenActivation(layer, site.act)
