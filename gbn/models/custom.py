"""Networks from other packages; see :mod:`gbn.targets` for how they are named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from gbn.models.interface import NormLayer
from gbn.targets import MODEL, check_options, resolve

__all__ = ["build_custom"]


def build_custom(
    norm_layer: NormLayer,
    *,
    target: str | Callable[..., nn.Module],
    kwargs: Mapping[str, Any] | None = None,
    **sizes: int,
) -> nn.Module:
    """Return ``target(norm_layer=norm_layer, **kwargs)``.

    Args:
        norm_layer: makes the norm at each site, see :mod:`gbn.models.interface`.
        target: a network class or a function, or its name. It must take ``norm_layer``.
        kwargs: the network's own options.
        **sizes: ``in_channels``, ``num_classes`` and ``image_size``, passed if the network has such arguments.

    Raises:
        ValueError: the target cannot be loaded, does not take ``norm_layer`` or one of the options, or makes
            something that is no module.
    """
    build = resolve(MODEL, target)
    ours: dict[str, Any] = {"norm_layer": norm_layer, **sizes}
    own = dict(kwargs or {})
    taken = check_options(target, build, own, ours)
    if "norm_layer" not in taken:
        raise ValueError(
            f"target {target!r} does not take norm_layer: a network calls norm_layer(channels, act=..., dim=..., "
            "role=...) wherever it normalizes, see gbn/models/interface.py"
        )
    model = build(**{name: ours[name] for name in ours if name in taken}, **own)
    if not isinstance(model, nn.Module):
        raise ValueError(f"target {target!r} made a {type(model).__name__}, not a torch.nn.Module")
    return model
