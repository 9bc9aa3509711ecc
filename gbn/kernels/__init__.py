"""Forward and backward of ``act(weight * (x - S(x)) / D(x) + bias)``: the one place where a kernel is chosen.

Layers call :func:`normalize` and :func:`normalize_with` and know nothing of implementations. The environment
variable ``GBN_KERNELS`` chooses among :data:`KERNELS`; it is read once, when this package is imported:

* ``reference``: eager torch, the formulas of the paper written out (:mod:`gbn.kernels.reference`);
* ``auto`` (the default): the fastest implementation that serves the tensor's device, today the reference.
"""

from __future__ import annotations

import os

from torch import Tensor

from gbn.kernels import reference
from gbn.kernels.activation import ACTIVATIONS, activate
from gbn.risk.base import Deviation, Statistic

__all__ = ["ACTIVATIONS", "KERNELS", "activate", "normalize", "normalize_with", "selected"]

KERNELS = ("auto", "reference")


def _read_choice(text: str) -> str:
    if text not in KERNELS:
        raise ValueError(f"environment variable GBN_KERNELS={text!r}: allowed are {', '.join(KERNELS)}")
    return text


_CHOICE = _read_choice(os.environ.get("GBN_KERNELS", "auto"))


def selected() -> str:
    """Name of the implementation in use, as a run's provenance records it (never ``auto``)."""
    return "reference"


def normalize(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    statistic: Statistic,
    deviation: Deviation,
    eps: float,
    act: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise each channel with the statistic and the deviation of this batch (training).

    Args:
        x: ``(N, C, *spatial)``, floating point, at least one value per channel, any memory format.
        weight: gain ``(C,)`` or None for 1.
        bias: ``(C,)`` or None for 0.
        statistic: what is subtracted, over N and the spatial dimensions.
        deviation: what is divided by; :mod:`gbn.kernels.epsilon` says where ``eps`` goes.
        eps: at least 0.
        act: None or a name in :data:`ACTIVATIONS`.

    Returns:
        ``(y, S, D)``: ``y`` with the shape, dtype and memory format of ``x``; ``S`` and ``D`` of shape
        ``(C,)`` in float32 (float64 for a float64 input), outside the graph, for the running averages.
    """
    return reference.normalize(x, weight, bias, statistic, deviation, eps, act)


def normalize_with(
    x: Tensor,
    statistic_value: Tensor,
    deviation_value: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    deviation: Deviation,
    eps: float,
    act: str | None = None,
) -> Tensor:
    """Normalise each channel with given values (evaluation): no image depends on another.

    ``statistic_value`` and ``deviation_value`` have shape ``(C,)`` and count as constants; ``deviation`` only
    says where ``eps`` goes. The rest is as in :func:`normalize`.
    """
    return reference.normalize_with(x, statistic_value, deviation_value, weight, bias, deviation, eps, act)
