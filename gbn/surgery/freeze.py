"""Norms held in evaluation mode while the rest of a network trains."""

from __future__ import annotations

from torch import nn

from gbn.nn.base import BatchStatisticsNorm

__all__ = ["freeze", "unfreeze"]


def freeze(model: nn.Module, *, parameters: bool = True) -> list[str]:
    """Hold every batch-statistics norm of ``model`` in evaluation mode, also through ``model.train()``.

    Serves this package's layers and torch's BatchNorm alike. Running statistics stay as they are.

    Args:
        model: any module.
        parameters: also stop the training of gain and bias (``requires_grad``).

    Returns:
        the paths of the norms; empty if there are none.
    """
    return _set(model, frozen=True, parameters=parameters)


def unfreeze(model: nn.Module, *, parameters: bool = True) -> list[str]:
    """Undo :func:`freeze`: norms follow the mode of ``model`` again, and their parameters are trained.

    Returns:
        the paths of the norms that had been frozen.
    """
    return _set(model, frozen=False, parameters=parameters)


def _set(model: nn.Module, frozen: bool, parameters: bool) -> list[str]:
    paths = []
    for path, layer in model.named_modules():
        if not isinstance(layer, BatchStatisticsNorm | nn.modules.batchnorm._BatchNorm):
            continue
        if not frozen and "train" not in vars(layer):
            continue
        paths.append(path)
        if frozen:
            layer.eval()
            object.__setattr__(layer, "train", _Still(layer))
        else:
            object.__delattr__(layer, "train")
            layer.train(model.training)
        if parameters:
            for parameter in layer.parameters(recurse=False):
                parameter.requires_grad_(not frozen)
    return paths


class _Still:
    """``layer.train`` of a frozen layer: changes nothing. A class, so that the layer can be copied and pickled."""

    def __init__(self, layer: nn.Module) -> None:
        self.layer = layer

    def __call__(self, mode: bool = True) -> nn.Module:
        return self.layer
