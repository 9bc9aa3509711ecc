"""The affine map that a norm layer is in evaluation mode, whatever its method: found by probing, in float64."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gbn.nn.base import BatchStatisticsNorm
from gbn.nn.custom import NormThenActivation

__all__ = ["Affine", "NotAffine", "bare", "evaluation_affine"]

#: Largest deviation from a straight line, relative to the values, that float64 rounding explains.
_TOLERANCE = 1e-9


class NotAffine(ValueError):
    """A layer in evaluation mode is not one affine map per channel, so it cannot be matched or folded."""


class Affine(NamedTuple):
    """``y = scale * x + shift`` per channel: two float64 tensors of shape (C,)."""

    scale: Tensor
    shift: Tensor


def bare(layer: nn.Module) -> nn.Module:
    """Return a copy of a norm layer without its activation, dropout and hooks; parameters and buffers are copies."""
    layer = copy.deepcopy(layer.norm if isinstance(layer, NormThenActivation) else layer)
    if isinstance(getattr(layer, "act", None), nn.Module):  # timm's BatchNormAct2d
        layer.act = layer.drop = nn.Identity()
    elif hasattr(layer, "act"):
        setattr(layer, "act", None)  # noqa: B010 - a name, not a submodule
    for hooks in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"):
        getattr(layer, hooks).clear()
    return layer


@torch.no_grad()
def evaluation_affine(layer: nn.Module) -> Affine:
    """Return the affine map per channel that a norm layer applies in evaluation mode, before its activation.

    The layer is asked, not its type: a copy of it in float64 is evaluated where an affine map is determined, and on
    further points, positions and images where any other function shows. So this serves every method that is affine
    in evaluation mode: batch normalization of any library, every pair and control, and your own.

    Args:
        layer: takes inputs of shape (N, C), (N, C, L), (N, C, H, W) or (N, C, D, H, W).

    Raises:
        NotAffine: if it is another function, such as layer normalization, a mixture, an instance-enhanced gain that
            has been trained, or any norm without running statistics.
    """
    name = type(layer).__name__
    probe = bare(layer).double().eval()
    if (
        isinstance(probe, BatchStatisticsNorm | nn.modules.batchnorm._BatchNorm)
        and not probe.track_running_stats
    ):
        raise NotAffine(
            f"{name} has no running statistics: it normalizes by its batch in evaluation mode, too"
        )
    channels = _channels(probe)
    device = next((t.device for t in (*probe.parameters(), *probe.buffers())), torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(4, channels, 3, generator=generator, dtype=torch.float64).to(device)
    location = next(
        (
            buffer
            for name, buffer in probe.named_buffers()
            if name in ("running_mean", "running_statistic") and buffer.shape == (channels,)
        ),
        torch.zeros(channels, dtype=torch.float64, device=device),
    )
    # The map is determined at the layer's own location, where rounding costs least.
    points[0, :, 0], points[0, :, 1] = 0.0, 1.0
    values = _evaluate(probe, points + location[:, None])
    base, scale = values[0, :, 0], values[0, :, 1] - values[0, :, 0]
    expected = base[:, None] + scale[:, None] * points
    size = base.abs().max() + (scale.abs()[:, None] * (1 + points.abs())).amax(-1).amax(0)
    if not torch.isfinite(values).all() or ((values - expected).abs().amax((0, 2)) > _TOLERANCE * size).any():
        raise NotAffine(f"{name} is not one affine map per channel in evaluation mode")
    return Affine(scale, base - scale * location)


def _channels(layer: nn.Module) -> int:
    for attribute in ("num_features", "num_channels"):
        if isinstance(number := getattr(layer, attribute, None), int) and number > 0:
            return number
    tensors = (
        t for t in (*layer.parameters(), *layer.buffers()) if t.dim() == 1 and t.dtype.is_floating_point
    )
    if (tensor := next(tensors, None)) is not None:
        return len(tensor)
    raise NotAffine(f"{type(layer).__name__} does not say how many channels it has")


def _evaluate(layer: nn.Module, points: Tensor) -> Tensor:
    """Return the values at ``points`` of shape (N, C, L), which are given as many dimensions as the layer takes."""
    error: Exception | None = None
    for dimensions in (4, 3, 5):
        shape = (*points.shape[:2], *(1,) * (dimensions - 3), points.shape[2])
        try:
            return layer(points.reshape(shape)).reshape(points.shape).double()
        except (ValueError, RuntimeError) as refused:
            error = error or refused
    raise NotAffine(f"{type(layer).__name__} takes no input of shape (N, C, ...): {error}")
