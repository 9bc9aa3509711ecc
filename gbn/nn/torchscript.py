"""Errors for TorchScript, whose compiler supports neither autograd.Functions nor these layers' checks."""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import nn

__all__ = ["refuse_script", "refuse_trace"]


def refuse_script(layer: nn.Module) -> NoReturn:
    """Raise RuntimeError; serves as a layer's ``__prepare_scriptable__``, which torch.jit.script calls first."""
    raise RuntimeError(
        f"torch.jit.script cannot compile {type(layer).__name__}: use torch.compile or torch.export.export, or "
        "record the network in evaluation mode with torch.jit.trace(model.eval(), example)"
    )


def refuse_trace(layer: nn.Module) -> None:
    """Raise RuntimeError under torch.jit.trace, which cannot record the kernels that compute batch statistics."""
    if torch.jit.is_tracing():
        raise RuntimeError(
            f"torch.jit.trace cannot record {type(layer).__name__} computing batch statistics: trace "
            "model.eval() with running statistics, or use torch.compile for training"
        )
