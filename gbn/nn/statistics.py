"""Precise statistics: running statistics recomputed over given batches, for evaluation.

The running averages of a norm layer lag behind the weights, above all early in training, where evaluation then
measures the lag. "Precise" statistics (Wu and Johnson, Rethinking "Batch" in BatchNorm, arXiv 2105.07576) are
averages of the batch statistics over a fixed set of batches at the current weights.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from gbn.nn.base import BatchStatisticsNorm
from gbn.nn.too_few import TooFewValues, is_one_value

__all__ = ["calibrate", "call", "on_device_of", "precise_statistics", "tracking_layers"]


def tracking_layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers of ``model`` that keep running statistics: torch's, ours, and any that work the same way.

    A layer counts if it has ``reset_running_stats()``, ``momentum`` and at least one buffer; a layer with
    ``track_running_stats=False`` does not.
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


_Buffers = list[dict[str, Tensor]]


def _buffers_of(layers: list[nn.Module]) -> _Buffers:
    """Return a copy of the layers' buffers."""
    return [{name: buffer.clone() for name, buffer in layer.named_buffers(recurse=False)} for layer in layers]


@torch.no_grad()
def _restore(layers: list[nn.Module], kept: _Buffers) -> None:
    for layer, buffers in zip(layers, kept, strict=True):
        for name, values in buffers.items():
            getattr(layer, name).copy_(values)
        getattr(layer, "buffers_changed", _nothing)()


def _set_calibrating(layer: nn.Module, value: bool) -> None:
    if isinstance(layer, BatchStatisticsNorm):
        layer.calibrating = value


def calibrate(
    model: nn.Module,
    batches: Iterable[Any],
    forward: Callable[[Any], object] | None = None,
) -> int:
    """Replace running statistics by their averages over ``batches``, weighted by batch size.

    With one batch these are the exact statistics of that set of images, at every depth. Meanwhile only the layers of
    :func:`tracking_layers` are in training mode, so dropout and the like stay off. Parameters, modes and momenta are
    unchanged afterwards, and so are the statistics of a layer that no batch reaches. If the model or ``batches``
    raises, everything is restored.

    Args:
        model: any module.
        batches: each batch is a tensor of images, a sequence whose first item is one, or, with ``forward``, any
            nesting of dicts and sequences; its size is the first dimension of its first tensor. Tensors are moved to
            the device of the model's first parameter. An empty batch is skipped. So is, with a warning, a batch with
            too few values per channel for a layer, such as a single one, which has no spread.
        forward: callable that takes a batch; None to call the model itself with the images.

    Returns:
        the number of images that were averaged over.

    Raises:
        ValueError: if no batch has enough images for the layers, a batch holds no tensor, or a batch does not begin
            with the images and ``forward`` is None.
    """
    layers = tracking_layers(model)
    modes = {module: module.training for module in model.modules()}
    momenta = [layer.momentum for layer in layers]
    before = _buffers_of(layers)
    seen = 0
    try:
        model.eval()
        for layer in layers:
            # A mixture keeps its components: only their averages restart.
            getattr(layer, "restart_running_stats", layer.reset_running_stats)()  # type: ignore[operator]
            layer.train()
            _set_calibrating(layer, True)
        fresh = _buffers_of(layers)
        with torch.no_grad():
            for batch in batches:
                seen += _add(model, layers, batch, forward, seen)
        if layers and seen == 0:
            raise ValueError("no images to compute statistics from: batches is empty or too small")
        for layer, old, new in zip(layers, before, fresh, strict=True):
            # Not reached, like the auxiliary head of an Inception network in evaluation mode.
            if all(torch.equal(getattr(layer, name), values) for name, values in new.items()):
                _restore([layer], [old])
    except BaseException:
        _restore(layers, before)
        raise
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            _set_momentum(layer, momentum)
            _set_calibrating(layer, False)
        for module, mode in modes.items():
            module.training = mode
    return seen


def _add(
    model: nn.Module,
    layers: list[nn.Module],
    batch: Any,
    forward: Callable[[Any], object] | None,
    seen: int,
) -> int:
    """Add a batch to the averages over ``seen`` images and return its number of images; 0 if it was skipped."""
    batch, count = on_device_of(model, batch)
    if count == 0:
        return 0
    for layer in layers:
        # With this momentum the running average is the plain average over all images so far.
        _set_momentum(layer, count / (seen + count))
    last = _buffers_of(layers)
    try:
        call(model, batch, forward)
    except ValueError as error:
        if not (isinstance(error, TooFewValues) or is_one_value(error)):
            raise
        _restore(layers, last)  # some layers had already averaged it
        images = "one image" if count == 1 else f"{count} images"
        warnings.warn(f"a batch of {images} is skipped: {str(error).splitlines()[0]}", stacklevel=3)
        return 0
    return count


def on_device_of(model: nn.Module, batch: Any) -> tuple[Any, int]:
    """Return a batch on the device of the model's first parameter, and its number of images."""
    tensor = next(chain(model.parameters(), model.buffers()), None)
    if tensor is not None:
        batch = _on(batch, tensor.device)
    return batch, _size(batch)


def call(model: nn.Module, batch: Any, forward: Callable[[Any], object] | None) -> None:
    """Call the model with a batch of :func:`calibrate`."""
    model(_images(batch)) if forward is None else forward(batch)


def _on(batch: Any, device: torch.device) -> Any:
    """Return the batch with its tensors on a device."""
    if isinstance(batch, Tensor) or not hasattr(batch, "to"):
        return tree_map_only(Tensor, lambda tensor: tensor.to(device), batch)
    return batch.to(device)  # a class with its own `to`, such as transformers' BatchEncoding


def _size(batch: Any) -> int:
    """Return the first dimension of the first tensor."""
    leaves = tree_leaves(dict(batch) if isinstance(batch, Mapping) else batch)
    tensor = next((leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.dim() > 0), None)
    if tensor is None:
        raise ValueError(
            f"a batch of type {type(batch).__name__} holds no tensor, so it has no number of images"
        )
    return tensor.shape[0]


def _images(batch: Any) -> Tensor:
    """Return the images, with which the model itself is called."""
    images = batch[0] if isinstance(batch, Sequence) and batch else batch
    if isinstance(images, Tensor):
        return images
    what = (
        f"a dict of {', '.join(map(str, batch))}"
        if isinstance(batch, Mapping)
        else f"a {type(batch).__name__}"
    )
    raise ValueError(
        f"a batch is {what}, not images or a sequence that begins with them: say how to call the model, as "
        "forward=lambda batch: model(batch['image'])"
    )


@contextmanager
def precise_statistics(
    model: nn.Module,
    batches: Iterable[Any],
    forward: Callable[[Any], object] | None = None,
) -> Iterator[nn.Module]:
    """Give ``model`` the statistics of :func:`calibrate` within this context, and restore its own afterwards.

    Example:
        >>> with precise_statistics(model, calibration_batches):  # doctest: +SKIP
        ...     accuracy = evaluate(model.eval())
    """
    layers = tracking_layers(model)
    before = _buffers_of(layers)
    try:
        calibrate(model, batches, forward)
        yield model
    finally:
        _restore(layers, before)


def _nothing() -> None:
    """Do nothing, for layers that have no state besides their buffers."""
