"""Generalized batch normalization as a function, in the manner of ``torch.nn.functional.batch_norm``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gbn import kernels
from gbn.kernels.activation import check_activation
from gbn.kernels.checks import check_batch
from gbn.nn.arguments import check_arguments
from gbn.nn.base import kept_for_backward
from gbn.nn.pairs import build_pair
from gbn.nn.too_few import OneValue
from gbn.risk.base import Deviation, Statistic

__all__ = ["generalized_batch_norm"]


def generalized_batch_norm(
    x: Tensor,
    running_statistic: Tensor | None = None,
    running_deviation: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    quadrangle: str | None = "cvar",
    statistic: str | Mapping[str, Any] | Statistic | None = None,
    deviation: str | Mapping[str, Any] | Deviation | None = None,
    act: str | None = None,
    **parameters: Any,
) -> Tensor:
    """Return ``act(weight * (x - S) / D + bias)`` per channel; see :class:`gbn.nn.GeneralizedBatchNorm2d`.

    Args:
        x: ``(N, C, *spatial)``.
        running_statistic, running_deviation: ``(C,)`` running averages of S and D. In training they are optional
            and are updated in place; otherwise both are required and are used. D itself is averaged, even for the
            pair (mean, std).
        weight, bias: ``(C,)`` or None.
        training: normalize by the batch's own S and D.
        momentum: weight of this batch in the running averages.
        eps: see :mod:`gbn.kernels.epsilon`.
        quadrangle, statistic, deviation, **parameters: the pair, as in the layer.
        act: None or a name in :data:`gbn.kernels.ACTIVATIONS`.

    Returns:
        a tensor with the shape, dtype and memory format of ``x``.

    Raises:
        ValueError: for an unknown pair or parameter, a value out of range, evaluation without running averages, an
            input without a channel dimension, and training with one value per channel.
        RuntimeError: for an input that is not strided and floating point, and for a gain, bias or running average
            that is not ``(C,)``, floating point and on the device of the input.
    """
    check_arguments(momentum=momentum, eps=eps)
    if momentum is None:
        raise ValueError(
            "momentum=None needs a count of batches, which only a layer keeps: give a number, as momentum=0.1"
        )
    pair = build_pair(quadrangle, statistic, deviation, **parameters)
    check_activation(act)
    # Check everything before computing anything, since running averages are changed in place.
    running = {"running_statistic": running_statistic, "running_deviation": running_deviation}
    check_batch(x, weight=weight, bias=bias, **running)
    if not training:
        if running_statistic is None or running_deviation is None:
            raise ValueError(
                "training=False needs running_statistic and running_deviation; give both, or training=True"
            )
        values = kept_for_backward(running_statistic), kept_for_backward(running_deviation)
        return kernels.normalize_with(x, *values, weight, bias, pair.deviation, eps, act)
    if x.numel() <= x.shape[1]:
        raise OneValue(f"Expected more than 1 value per channel when training, got input size {x.size()}")
    y, s, d = kernels.normalize(x, weight, bias, pair.statistic, pair.deviation, eps, act)
    with torch.no_grad():
        for kept, new in ((running_statistic, s), (running_deviation, d)):
            if kept is not None:
                kept.lerp_(new.to(kept.dtype), momentum)
    return y
