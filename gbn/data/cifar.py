"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 32x32 color images, 50,000 + 10,000."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gbn.data.files import Archive, digest_of, obtain, without_check, wrong_files
from gbn.data.image_set import ImageSet, image_set
from gbn.data.torchvision_shim import import_torchvision


def cifar10(root: Path, download: bool) -> ImageSet:
    """Return CIFAR-10: ten classes."""
    return _cifar("cifar10", import_torchvision().datasets.CIFAR10, root, download)


def cifar100(root: Path, download: bool) -> ImageSet:
    """Return CIFAR-100 with its hundred fine classes."""
    return _cifar("cifar100", import_torchvision().datasets.CIFAR100, root, download)


def _cifar(name: str, source: Any, root: Path, download: bool) -> ImageSet:
    checksums = dict(source.train_list + source.test_list)
    checksums[source.meta["filename"]] = source.meta["md5"]
    archive = Archive((source.url,), "", source.filename, source.tgz_md5)
    obtain(name, root, lambda root: wrong_files(root / source.base_folder, checksums), (archive,), download)
    train, test = (without_check(source)(str(root), train=part) for part in (True, False))
    return image_set(name, _tensors(train), _tensors(test), tuple(train.classes), digest_of(checksums))


def _tensors(half: Any) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(half.data).permute(0, 3, 1, 2).contiguous()
    return images, torch.tensor(half.targets, dtype=torch.int64)
