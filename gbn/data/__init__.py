"""Data sets in memory: :func:`load` gives uint8 tensors, :class:`DeviceSet` and :class:`TrainLoader` batches.

One file a data set family; torchvision reads and verifies, and is imported only when a set needs it.
"""

from collections.abc import Callable
from os import PathLike
from pathlib import Path

from gbn.data import cifar, digits, mnist, svhn
from gbn.data.augment import Augmentation, augment
from gbn.data.files import data_root
from gbn.data.foreign import ForeignImages, fitted
from gbn.data.image_set import DataError, ImageSet
from gbn.data.loader import DeviceSet, TrainLoader, epoch_order
from gbn.data.splits import split, subset
from gbn.suggest import did_you_mean

__all__ = [
    "DATASETS",
    "Augmentation",
    "DataError",
    "DeviceSet",
    "ForeignImages",
    "ImageSet",
    "TrainLoader",
    "augment",
    "data_root",
    "epoch_order",
    "fitted",
    "load",
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
    """A data set, read into memory, its files verified; downloaded first where that is needed and allowed.

    Args:
        name: a key of :data:`DATASETS`.
        root: the folder that holds the data sets as torchvision lays them out; if None, the environment
            variable
            GBN_DATA, and if that is not set, ``data`` under the working directory.
        download: whether missing or broken files may be fetched from the internet.

    Raises:
        ValueError: an unknown name.
        DataError: the set is missing, truncated or corrupted and could not be had: one line that says what
            to do.
    """
    if name not in DATASETS:
        hint = did_you_mean(name, DATASETS)
        raise ValueError(f"unknown data set {name!r}{hint}; allowed: {', '.join(sorted(DATASETS))}")
    return DATASETS[name](data_root(root), download)
