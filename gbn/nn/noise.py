"""Constant noise on the output of every batch-statistics norm: an attack on training.

    x_hat -> scale * x_hat + shift            before gain, gate, bias and activation

("The constant noise attack" of Liang et al., AAAI 2020, arXiv 1908.04008; its definition is recalled, not read.) The
noise is present only while a network trains, in training mode. Evaluation and :func:`gbn.nn.calibrate` are free of
it; running statistics are those seen in training.
"""

from __future__ import annotations

from torch import nn

from gbn.nn.base import BatchStatisticsNorm
from gbn.nn.batchnorm import BatchNormAct1d, BatchNormAct2d, BatchNormAct3d
from gbn.nn.placement import copy_mark

__all__ = ["add_constant_noise"]

_TWINS: dict[type[nn.Module], type[BatchStatisticsNorm]] = {
    nn.BatchNorm1d: BatchNormAct1d,
    nn.BatchNorm2d: BatchNormAct2d,
    nn.BatchNorm3d: BatchNormAct3d,
}


def add_constant_noise(model: nn.Module, scale: float, shift: float) -> nn.Module:
    """Add the noise to every norm of ``model`` that uses batch statistics.

    torch's BatchNorm layers are replaced by our equivalents with the same parameters and buffers, so names and state
    dict stay the same. With scale 1 and shift 0 only rounding changes.

    Returns:
        the model (a different object only if it is itself one of torch's norms).

    Raises:
        ValueError: if the model has no such norm.
    """
    found = 0
    for path, layer in list(model.named_modules()):
        norm = _twin(layer) if type(layer) in _TWINS else layer
        if not isinstance(norm, BatchStatisticsNorm):
            continue
        norm.noise = (scale, shift)
        found += 1
        if norm is layer:
            continue
        if not path:
            return norm
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, norm)
    if not found:
        raise ValueError("constant noise acts on norms with statistics of the batch: this model has none")
    return model


def _twin(layer: nn.Module) -> BatchStatisticsNorm:
    """Return our equivalent of a torch layer, with the same parameters, buffers, options, mode and mark."""
    assert isinstance(layer, nn.modules.batchnorm._BatchNorm)
    kept = ("eps", "momentum", "affine", "track_running_stats")
    options = {name: getattr(layer, name) for name in kept}
    twin = _TWINS[type(layer)](layer.num_features, **options, bias=layer.bias is not None)
    for name, parameter in layer.named_parameters(recurse=False):
        setattr(twin, name, parameter)
    for name, buffer in layer.named_buffers(recurse=False):
        setattr(twin, name, buffer)
    copy_mark(layer, twin)
    return twin.train(layer.training)
