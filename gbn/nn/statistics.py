"""Precise statistics: running statistics recomputed over given batches, for evaluation.

The running averages of a norm layer lag behind the weights, most of all early in training, where an
evaluation then measures the lag. "Precise" statistics (Wu and Johnson, Rethinking "Batch" in BatchNorm,
arXiv 2105.07576) are the averages of the batch statistics over a fixed set of batches at the present
weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gbn.nn.base import BatchStatisticsNorm

__all__ = ["calibrate", "precise_statistics", "tracking_layers"]


def tracking_layers(model: nn.Module) -> list[nn.Module]:
    """The layers of ``model`` that keep running statistics: torch's, ours, and any that work the same way.

    A layer counts when it has ``reset_running_stats()``, ``momentum`` and at least one buffer; layers that
    do not track (``track_running_stats=False``) don't.
    """
    return [
        layer
        for layer in model.modules()
        if callable(getattr(layer, "reset_running_stats", None))
        and hasattr(layer, "momentum")
        and getattr(layer, "track_running_stats", True)
        and next(layer.buffers(recurse=False), None) is not None
    ]


def _set_momentum(layer: nn.Module, momentum: Any) -> None:
    layer.momentum = momentum


def _set_calibrating(layer: nn.Module, value: bool) -> None:
    if isinstance(layer, BatchStatisticsNorm):
        layer.calibrating = value


def calibrate(
    model: nn.Module,
    batches: Iterable[Any],
    forward: Callable[[Any], object] | None = None,
) -> int:
    """Replace running statistics by their averages over ``batches``, weighted by the batches' sizes.

    With one batch these are the exact statistics of that set of images, at every depth. Only the layers of
    :func:`tracking_layers` are in training mode meanwhile, so dropout and the like stay off; parameters,
    modes and momenta are left as they were.

    Args:
        model: any module.
        batches: each a tensor, or a sequence whose first item is the tensor of images.
        forward: what to call with a batch; the model itself, with the images, when None.

    Returns:
        the number of images seen.

    Raises:
        ValueError: when there is no image in ``batches``.
    """
    layers = tracking_layers(model)
    modes = {module: module.training for module in model.modules()}
    momenta = [layer.momentum for layer in layers]
    seen = 0
    try:
        model.eval()
        for layer in layers:
            # A mixture's components stay where they are: only their averages begin again.
            getattr(layer, "restart_running_stats", layer.reset_running_stats)()  # type: ignore[operator]
            layer.train()
            _set_calibrating(layer, True)
        with torch.no_grad():
            for batch in batches:
                images = batch if isinstance(batch, Tensor) else batch[0]
                count = images.shape[0]
                if count == 0:
                    continue
                seen += count
                for layer in layers:
                    # The running average with this share is the plain average over all images so far.
                    _set_momentum(layer, count / seen)
                model(images) if forward is None else forward(batch)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            _set_momentum(layer, momentum)
            _set_calibrating(layer, False)
        for module, mode in modes.items():
            module.training = mode
    if layers and seen == 0:
        raise ValueError("no images to compute statistics from: batches is empty")
    return seen


@contextmanager
def precise_statistics(
    model: nn.Module,
    batches: Iterable[Any],
    forward: Callable[[Any], object] | None = None,
) -> Iterator[nn.Module]:
    """Within this context ``model`` has the statistics of :func:`calibrate`; afterwards its own again.

    Example:
        >>> with precise_statistics(model, calibration_batches):  # doctest: +SKIP
        ...     accuracy = evaluate(model.eval())
    """
    layers = tracking_layers(model)
    kept = [{name: buffer.clone() for name, buffer in layer.named_buffers(recurse=False)} for layer in layers]
    try:
        calibrate(model, batches, forward)
        yield model
    finally:
        for layer, buffers in zip(layers, kept, strict=True):
            for name, values in buffers.items():
                getattr(layer, name).copy_(values)
            getattr(layer, "buffers_changed", _nothing)()


def _nothing() -> None:
    """For layers whose buffers are all the state that they have."""
