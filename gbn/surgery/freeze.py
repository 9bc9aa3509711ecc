"""Norms held in evaluation mode while the rest of a network trains."""

from __future__ import annotations

from torch import nn

from gbn.nn.base import BatchStatisticsNorm

__all__ = ["freeze", "keep_frozen", "unfreeze"]


def freeze(model: nn.Module, *, parameters: bool = True) -> list[str]:
    """Hold every batch-statistics norm of ``model`` in evaluation mode, also through ``model.train()``.

    Serves this package's layers and torch's BatchNorm alike. Running statistics stay as they are.

    Args:
        model: any module.
        parameters: also stop the training of gain and bias (``requires_grad``).

    Returns:
        the paths of the norms; empty if there are none.
    """
    paths = []
    for path, layer in model.named_modules():
        if not isinstance(layer, BatchStatisticsNorm | nn.modules.batchnorm._BatchNorm):
            continue
        paths.append(path)
        still = vars(layer).get("train") or _Still(layer)
        layer.eval()
        object.__setattr__(layer, "train", still)
        for name, parameter in layer.named_parameters(recurse=False):
            if parameters and parameter.requires_grad:
                parameter.requires_grad_(False)
                still.stopped.append(name)
    return paths


def unfreeze(model: nn.Module) -> list[str]:
    """Undo :func:`freeze`: norms follow the mode of ``model`` again, and what it stopped is trained again.

    Returns:
        the paths of the norms that had been frozen.
    """
    paths = []
    for path, layer in model.named_modules():
        still = vars(layer).pop("train", None)
        if not isinstance(still, _Still):
            continue
        paths.append(path)
        layer.train(model.training)
        for name in still.stopped:
            getattr(layer, name).requires_grad_(True)
    return paths


def keep_frozen(old: nn.Module, new: nn.Module) -> None:
    """Freeze ``new``, which takes the place and the parameters of ``old``, if that is frozen."""
    if isinstance(still := vars(old).get("train"), _Still):
        object.__setattr__(new, "train", _Still(new, list(still.stopped)))


class _Still:
    """``layer.train`` of a frozen layer: changes nothing. A class, so that the layer can be copied and pickled."""

    def __init__(self, layer: nn.Module, stopped: list[str] | None = None) -> None:
        self.layer = layer
        self.stopped = stopped or []  # parameters that were trained before

    def __call__(self, mode: bool = True) -> nn.Module:
        return self.layer
