"""Fused kernels for CPU tensors: compiled by numba, run by torch's own threads."""

from __future__ import annotations

import torch
from torch import Tensor

from gbn.kernels.gate import Gate
from gbn.kernels.plan import Plan

__all__ = ["REQUIRES", "backward", "backward_gated", "forward", "forward_gated", "load", "ready", "serves"]

REQUIRES = "numba"

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def load() -> None:
    """Import what calls the kernels; compiling waits for the first call, or takes the cache."""
    from . import launch, launch_gated  # noqa: F401


def serves(x: Tensor) -> bool:
    """Whether the kernels take this tensor: on the CPU, float32 or half precision, with something in it."""
    return x.device.type == "cpu" and x.dtype in _DTYPES and x.numel() > 0


def ready(x: Tensor, gated: bool, common: bool) -> bool:
    """Whether the kernels for a tensor like this one can be compiled here; the first call waits for it.

    ``common`` is what :func:`gbn.kernels.plan.is_common` says of the pair.
    """
    from .launch import layout

    return _working(layout(x), gated, common)


def _working(layout: int, gated: bool, common: bool) -> bool:
    from .launch import entries
    from .objects import working

    return working(entries(layout, gated, common))


# A tracer asks once, and writes the answer into its graph. This is what torch.compiler.assume_constant_result does,
# once it has imported the compiler, which takes two seconds.
_working._dynamo_marked_constant = True  # type: ignore[attr-defined]


def forward(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, plan: Plan, eps: float, relu: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See :class:`gbn.kernels.fused.Backend`."""
    from .launch import run_forward

    return run_forward(x, weight, bias, plan, eps, relu)


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
    """See :class:`gbn.kernels.fused.Backend`."""
    from .launch import run_backward

    return run_backward(g, x, weight, bias, s, d, record, plan, eps, relu, wanted)


def forward_gated(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, gate: Gate, plan: Plan, eps: float, relu: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """See :class:`gbn.kernels.gated.Backend`."""
    from .launch_gated import run_forward_gated

    return run_forward_gated(x, weight, bias, gate, plan, eps, relu)


def backward_gated(
    g: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    gate: Gate,
    s: Tensor,
    d: Tensor,
    record: Tensor,
    means: Tensor,
    plan: Plan,
    eps: float,
    relu: bool,
    wanted: bool,
) -> tuple[Tensor | None, Tensor, Tensor, Tensor, Tensor]:
    """See :class:`gbn.kernels.gated.Backend`."""
    from .launch_gated import run_backward_gated

    return run_backward_gated(g, x, weight, bias, gate, s, d, record, means, plan, eps, relu, wanted)
