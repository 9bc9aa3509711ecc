"""Instance enhancement on the fused kernels; see :func:`gbn.kernels.normalize` for ``gate``."""

from __future__ import annotations

from torch import Tensor

from gbn.kernels import fused
from gbn.kernels.activation import activate
from gbn.kernels.gate import Gate, enhance
from gbn.risk.base import Deviation, Statistic

__all__ = ["normalize"]


def normalize(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    statistic: Statistic,
    deviation: Deviation,
    eps: float,
    act: str | None,
    gate: Gate,
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`gbn.kernels.normalize`; for an x that its device's backend serves."""
    x_hat, s, d = fused.normalize(x, None, None, statistic, deviation, eps, None)
    return activate(enhance(x_hat, x, weight, bias, gate), act), s, d
