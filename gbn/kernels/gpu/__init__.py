"""Fused kernels for CUDA tensors, in Triton: what :class:`gbn.kernels.fused.Backend` asks for.

Forward: exact order statistics in one pass over x (:mod:`.bracket`, :mod:`.scan`, :mod:`.settle`), then one that
writes y. Backward: one pass of sums over x and g, then one that writes dx (:mod:`.gradient`). Nothing waits for the
device, all sums have a fixed order. Triton is imported when a kernel is first needed, never with this package.

Instance enhancement is not fused here: these kernels normalise, and torch's own operations find the gate and apply it
(:mod:`gbn.kernels.gated`), which reads and writes the tensor several times more and keeps x_hat beside x. In half
precision x_hat is rounded before the gate, and the result once more.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gbn.kernels.plan import Plan

__all__ = ["REQUIRES", "backward", "forward", "load", "ready", "serves"]

REQUIRES = "triton"

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
#: Offsets are 32-bit numbers, and the last tile reaches a little beyond the last value.
_MOST_VALUES = 2**31 - 2**24
#: A record of up to 511 numbers a channel has them as well.
_MOST_CHANNELS = 2**22


def load() -> None:
    """Import Triton and the kernels, which it compiles at their first call.

    Raises whatever Triton does where it cannot launch one: it builds its part of a launch with a C compiler.
    """
    from triton.runtime import driver

    from . import launch_backward, launch_forward  # noqa: F401

    driver.active.get_current_target()


def serves(x: Tensor) -> bool:
    """Whether the kernels take this tensor."""
    small = 0 < x.numel() <= _MOST_VALUES and x.dim() > 1 and x.shape[1] <= _MOST_CHANNELS
    return x.is_cuda and x.dtype in _DTYPES and small


def ready(x: Tensor, gated: bool, common: bool) -> bool:
    """True: Triton compiles at each launch, and what it cannot compile it raises."""
    return True


def forward(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, plan: Plan, eps: float, relu: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :mod:`gbn.kernels.fused`."""
    from .launch_forward import forward as launch

    return launch(x, weight, bias, plan, eps, relu)


def backward(
    g: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    s: Tensor,
    d: Tensor,
    record: Tensor,
    plan: Plan,
    eps: float,
    relu: bool,
    wanted: bool,
) -> tuple[Tensor | None, Tensor, Tensor]:
    """See :mod:`gbn.kernels.fused`."""
    from .launch_backward import backward as launch

    return launch(g, x, weight, bias, s, d, record, plan, eps, relu, wanted)
