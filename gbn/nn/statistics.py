"""Precise statistics: running statistics recomputed over given batches, for evaluation.

The running averages of a norm layer lag behind the weights, most of all early in training, where an
evaluation then measures the lag. "Precise" statistics (Wu and Johnson, Rethinking "Batch" in BatchNorm,
arXiv 2105.07576) are the averages of the batch statistics over a fixed set of batches at the present
weights.
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


_Buffers = list[dict[str, Tensor]]


def _buffers_of(layers: list[nn.Module]) -> _Buffers:
    """A copy of what the layers keep."""
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
    """Replace running statistics by their averages over ``batches``, weighted by the batches' sizes.

    With one batch these are the exact statistics of that set of images, at every depth. Only the layers of
    :func:`tracking_layers` are in training mode meanwhile, so dropout and the like stay off; parameters,
    modes and momenta are left as they were, and so are the statistics of a layer that no batch reaches. An error, in
    the model or in ``batches``, leaves all as it was before.

    Args:
        model: any module.
        batches: each a tensor of images, a sequence whose first item is that, or, with ``forward``, any nest of
            dicts and sequences; its size is the first dimension of the first tensor in it. Tensors are moved to the
            device of the model's first parameter. An empty batch is passed over; so is, with a warning, one
            that has too few values per channel for a layer, such as a single one, which has no spread.
        forward: what to call with a batch; the model itself, with the images, when None.

    Returns:
        the number of images that were averaged over.

    Raises:
        ValueError: when no batch has enough images for the layers, or one has no tensor, or without ``forward`` does
            not begin with the images.
    """
    layers = tracking_layers(model)
    modes = {module: module.training for module in model.modules()}
    momenta = [layer.momentum for layer in layers]
    before = _buffers_of(layers)
    seen = 0
    try:
        model.eval()
        for layer in layers:
            # A mixture's components stay where they are: only their averages begin again.
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
            # Not reached, as the auxiliary head of an Inception in evaluation mode.
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
    """Add a batch to the averages over ``seen`` images, and return how many it has; 0 where it was passed over."""
    tensor = next(chain(model.parameters(), model.buffers()), None)
    if tensor is not None:
        batch = _on(batch, tensor.device)
    count = _size(batch)
    if count == 0:
        return 0
    for layer in layers:
        # The running average with this share is the plain average over all images so far.
        _set_momentum(layer, count / (seen + count))
    last = _buffers_of(layers)
    try:
        model(_images(batch)) if forward is None else forward(batch)
    except ValueError as error:
        if not (isinstance(error, TooFewValues) or is_one_value(error)):
            raise
        _restore(layers, last)  # of the layers that it passed before
        images = "one image" if count == 1 else f"{count} images"
        warnings.warn(f"a batch of {images} is passed over: {str(error).splitlines()[0]}", stacklevel=3)
        return 0
    return count


def _on(batch: Any, device: torch.device) -> Any:
    """The batch with its tensors on a device."""
    if isinstance(batch, Tensor) or not hasattr(batch, "to"):
        return tree_map_only(Tensor, lambda tensor: tensor.to(device), batch)
    return batch.to(device)  # a class of its own, such as transformers' BatchEncoding


def _size(batch: Any) -> int:
    """The first dimension of the first tensor."""
    leaves = tree_leaves(dict(batch) if isinstance(batch, Mapping) else batch)
    tensor = next((leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.dim() > 0), None)
    if tensor is None:
        raise ValueError(
            f"a batch of type {type(batch).__name__} holds no tensor, so it has no number of images"
        )
    return tensor.shape[0]


def _images(batch: Any) -> Tensor:
    """What the model itself is called with."""
    images = batch[0] if isinstance(batch, Sequence) and batch else batch
    if isinstance(images, Tensor):
        return images
    what = (
        f"a dict of {', '.join(map(str, batch))}"
        if isinstance(batch, Mapping)
        else f"a {type(batch).__name__}"
    )
    raise ValueError(
        f"a batch is {what}, not images or a sequence that begins with them: say how the model is called, as "
        "forward=lambda batch: model(batch['image'])"
    )


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
    before = _buffers_of(layers)
    try:
        calibrate(model, batches, forward)
        yield model
    finally:
        _restore(layers, before)


def _nothing() -> None:
    """For layers whose buffers are all the state that they have."""
