"""The gate of instance enhancement as plain tensor operations: what the fused kernels compute inside their passes.

    m[n,c]     = mean over the spatial dimensions of x, before normalization
    delta[n,c] = sigmoid(gate_weight[c] m[n,c] + gate_bias[c])
    y          = x_hat (weight[c] delta[n,c]) + bias[c]

(Liang, Huang, Liang, Yang: Instance Enhancement Batch Normalization, AAAI 2020, arXiv 1908.04008.) The bias is not
gated, and the gate is the same in training and evaluation.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["Gate", "enhance", "row_gains"]

#: ``(gate_weight, gate_bias)``, each ``(C,)``.
Gate = tuple[Tensor, Tensor]


def row_gains(x: Tensor, weight: Tensor | None, gate: Gate) -> Tensor:
    """Return ``weight[c] delta[n,c]``, shape ``(N, C)``, in float32, or in float64 for a float64 x.

    ``x`` is ``(N, C, *spatial)``.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    means = x.to(wide) if x.dim() == 2 else x.mean(tuple(range(2, x.dim())), dtype=wide)
    gate_weight, gate_bias = (t.to(wide) for t in gate)
    delta = torch.sigmoid(means * gate_weight + gate_bias)
    return delta if weight is None else delta * weight.to(wide)


def enhance(x_hat: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, gate: Gate) -> Tensor:
    """Return ``x_hat (weight delta(x)) + bias`` in the dtype and memory format of ``x``; see the module docstring."""
    gains = row_gains(x, weight, gate)
    y = x_hat * gains.view(*gains.shape, *[1] * (x.dim() - 2))
    if bias is not None:
        y = y + bias.to(y.dtype).view(1, -1, *[1] * (x.dim() - 2))
    return y.to(x.dtype)
