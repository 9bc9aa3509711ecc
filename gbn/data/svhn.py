"""SVHN, Street View House Numbers (Netzer et al. 2011): 32x32 color, 73,257 + 26,032 (without `extra`)."""

from pathlib import Path

import numpy as np
import torch

from gbn.data.files import Archive, digest_of, obtain, without_check, wrong_files
from gbn.data.image_set import ImageSet, image_set
from gbn.data.torchvision_shim import import_torchvision


def svhn(root: Path, download: bool) -> ImageSet:
    """Return SVHN's cropped digits: ten classes, with the digit 0 as class 0."""
    source = import_torchvision().datasets.SVHN
    parts = [source.split_list[part] for part in ("train", "test")]
    checksums = {name: md5 for _, name, md5 in parts}
    archives = tuple(Archive((url,), "", name, md5, unpack=False) for url, name, md5 in parts)
    obtain("svhn", root, lambda root: wrong_files(root, checksums), archives, download)
    halves = [without_check(source)(str(root), split=part) for part in ("train", "test")]
    train, test = ((_contiguous(half.data), torch.from_numpy(half.labels)) for half in halves)
    return image_set("svhn", train, test, tuple(str(digit) for digit in range(10)), digest_of(checksums))


def _contiguous(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).contiguous()
