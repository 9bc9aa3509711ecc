"""Data sets in memory: :func:`load` returns uint8 tensors, :class:`DeviceSet` and :class:`TrainLoader` make batches.

One file per family of data sets; torchvision reads and verifies, and is imported only when a set needs it.
"""

from collections.abc import Callable
from os import PathLike
from pathlib import Path

from gbn.data import cifar, digits, mnist, svhn
from gbn.data.augment import Augmentation, augment
from gbn.data.custom import load_custom
from gbn.data.files import data_root
from gbn.data.foreign import ForeignImages, fitted
from gbn.data.image_set import DataError, ImageSet, image_set
from gbn.data.loader import DeviceSet, InMemory, TrainLoader, epoch_order
from gbn.data.splits import split, subset
from gbn.suggest import did_you_mean

__all__ = [
    "DATASETS",
    "Augmentation",
    "DataError",
    "DeviceSet",
    "ForeignImages",
    "ImageSet",
    "InMemory",
    "TrainLoader",
    "augment",
    "data_root",
    "epoch_order",
    "fitted",
    "image_set",
    "load",
    "load_custom",
    "split",
    "subset",
]

DATASETS: dict[str, Callable[[Path, bool], ImageSet]] = {
    "digits": digits.digits,
    "mnist": mnist.mnist,
    "fashion_mnist": mnist.fashion_mnist,
    "cifar10": cifar.cifar10,
    "cifar100": cifar.cifar100,
    "svhn": svhn.svhn,
}
"""Name in the configuration -> function of (root, download)."""


def load(name: str, root: str | PathLike[str] | None = None, download: bool = True) -> ImageSet:
    """Read a data set into memory and verify its files; download it first if that is necessary and allowed.

    Args:
        name: a key of :data:`DATASETS`.
        root: the folder that holds the data sets in torchvision's layout; None for the environment variable
            GBN_DATA or, if that is not set, ``data`` in the working directory.
        download: whether missing or broken files may be downloaded.

    Raises:
        ValueError: an unknown name.
        DataError: the set is missing, truncated or corrupted and could not be obtained; the message is one line
            that says what to do.
    """
    if name not in DATASETS:
        hint = did_you_mean(name, DATASETS)
        raise ValueError(f"unknown data set {name!r}{hint}; allowed: {', '.join(sorted(DATASETS))}")
    return DATASETS[name](data_root(root), download)
