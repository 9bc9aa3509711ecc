"""gbn: generalized batch normalization (GBN) and its neighbors.

Two uses:

* the layers, in anybody's network: ``from gbn.nn import GeneralizedBatchNorm2d``; needs only torch;
* the laboratory, the command ``gbn``: ``gbn train norm=gbn_cvar model=resnet dataset=cifar10``, and verbs that turn
  runs into speed-up tables; needs the extra ``lab``.

"GBN" here always means *Generalized Batch Normalization* (Yuan, Feng, Norton, Li, AAAI 2019), never ghost
batch normalization or cuDNN's group batch normalization, which share the abbreviation elsewhere.

Importing this package imports nothing heavy: subpackages load when they are first used, and ``gbn.store``,
``gbn.analysis`` and ``gbn.config`` never import torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_SUBPACKAGES = (
    "analysis",
    "config",
    "data",
    "engine",
    "kernels",
    "models",
    "nn",
    "optim",
    "risk",
    "store",
    "surgery",
    "tasks",
)
#: Functions of :mod:`gbn.surgery` that one calls as ``gbn.convert(model, ...)``.
_SURGERY = ("calibrate", "convert", "fold", "freeze", "revert", "to_batchnorm", "unfreeze")

__all__ = ["__version__", *_SUBPACKAGES, *_SURGERY]


def __getattr__(name: str) -> Any:
    if name in _SUBPACKAGES:
        return import_module(f"gbn.{name}")
    if name in _SURGERY:
        return getattr(import_module("gbn.surgery"), name)
    known = ", ".join((*_SUBPACKAGES, *_SURGERY))
    raise AttributeError(f"module 'gbn' has no attribute {name!r}; it has {known}")
