"""The activations that a norm layer can apply itself (``act=``)."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from gbn.suggest import did_you_mean

__all__ = ["ACTIVATIONS", "activate", "check_activation", "keeps_upper_tail_only"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
    "mish": F.mish,
    "hardswish": F.hardswish,
    "tanh": F.tanh,
    "sigmoid": F.sigmoid,
}


def check_activation(act: str | None) -> str | None:
    """Return ``act`` if it is None or a known name; otherwise raise ValueError with the allowed names."""
    if act is None or act in ACTIVATIONS:
        return act
    hint = did_you_mean(act, ACTIVATIONS)
    raise ValueError(f"act={act!r} is unknown{hint}: allowed are None, {', '.join(ACTIVATIONS)}")


def keeps_upper_tail_only(act: str | None) -> bool:
    """Return whether ``act`` is 0 for every negative input, so that a channel can die below it."""
    return act in ("relu", "relu6")


def activate(y: Tensor, act: str | None) -> Tensor:
    """Return ``act(y)``, or ``y`` itself for None; ``y`` may be overwritten and must not be used afterwards."""
    if act == "relu":
        # In place: a norm's backward reads the norm's input, never its output, so nothing else needs y.
        return F.relu(y, inplace=True)
    return y if act is None else ACTIVATIONS[act](y)
