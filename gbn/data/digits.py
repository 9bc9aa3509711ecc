"""The 8x8 digits included in scikit-learn: 1,797 images, no download (the test part of UCI's optical digits)."""

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import torch

from gbn.data.image_set import DataError, ImageSet, image_set
from gbn.data.splits import split

TEST_IMAGES = 360  # a fifth; the split is stratified, fixed, and independent of any run's seed


def digits(root: Path, download: bool) -> ImageSet:
    """Return the digits, values 0..16 scaled to 0..255, with a fixed stratified test part of 360 images.

    Args:
        root: not used, since the file is part of the installed package.
        download: not used.

    Raises:
        DataError: scikit-learn is not installed.
    """
    table = np.loadtxt(_file(), delimiter=",", dtype=np.uint8)
    pixels = np.rint(table[:, :-1] * (255 / 16)).astype(np.uint8)
    images = torch.from_numpy(pixels.reshape(-1, 1, 8, 8))
    labels = torch.from_numpy(table[:, -1].astype(np.int64))
    train, test = split(labels, TEST_IMAGES, seed=0)
    return image_set(
        "digits",
        (images[train], labels[train]),
        (images[test], labels[test]),
        tuple(str(digit) for digit in range(10)),
        hashlib.sha256(table.tobytes()).hexdigest(),
    )


def _file() -> Path:
    # Read from the package's folder, since importing scikit-learn takes as long as importing torch.
    spec = importlib.util.find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            "digits: scikit-learn, which contains them, is not installed: pip install scikit-learn"
        )
    return Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
