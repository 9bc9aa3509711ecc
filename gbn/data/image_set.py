"""The representation of a data set: uint8 images and labels in memory, with the statistics to normalize them."""

from dataclasses import dataclass

import torch
from torch import Tensor


class DataError(Exception):
    """A data set is not available; the message is one line: what is wrong, where it looked, what to put where."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A labeled set of square images, on the CPU.

    Attributes:
        name: its name in the configuration.
        train_images: uint8 (N, C, H, W).
        train_labels: int64 (N,), 0 to the number of classes - 1.
        test_images: uint8 (M, C, H, W).
        test_labels: int64 (M,).
        classes: the classes' names.
        mean: per channel, of all training pixels / 255.
        std: per channel, of all training pixels / 255 (population form).
        digest: identifies the bytes from which it was read (hexadecimal).
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    digest: str

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def in_channels(self) -> int:
        """Number of channels of an image."""
        return self.train_images.shape[1]

    @property
    def image_size(self) -> int:
        """Side of an image in pixels."""
        return self.train_images.shape[2]


def image_set(
    name: str,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    classes: tuple[str, ...],
    digest: str,
) -> ImageSet:
    """Return an :class:`ImageSet` from (images, labels) of both parts, checked, with mean and std computed.

    Raises:
        DataError: shapes, types or labels do not match the description of the class.
    """
    check_parts(name, train, test, classes)
    mean, std = channel_statistics(train[0])
    return ImageSet(name, *train, *test, classes, mean, std, digest)


def check_parts(
    name: str, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], classes: tuple[str, ...]
) -> None:
    """Check (images, labels) of both parts against the description of :class:`ImageSet`.

    Raises:
        DataError: shapes, types or labels do not match it, or the parts have images of different shapes.
    """
    for part, (images, labels) in {"train": train, "test": test}.items():
        square = images.dim() == 4 and images.shape[2] == images.shape[3]
        if images.dtype != torch.uint8 or not square or labels.shape != images.shape[:1] or not len(labels):
            raise DataError(
                f"{name}: {part} images are {images.dtype} {tuple(images.shape)} with labels "
                f"{tuple(labels.shape)}; needed: at least one uint8 square image (N, C, H, H), labels (N,)"
            )
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= len(classes):
            raise DataError(
                f"{name}: {part} labels go from {low} to {high}; allowed: 0 to {len(classes) - 1}"
            )
    if train[0].shape[1:] != test[0].shape[1:]:
        raise DataError(
            f"{name}: train images are {tuple(train[0].shape[1:])}, test images {tuple(test[0].shape[1:])}; "
            "needed: one shape (C, H, H) for both"
        )


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and population standard deviation of pixel / 255 per channel of uint8 (N, C, H, W) images.

    They are computed from the histogram of the 256 values, hence exact up to double rounding at any size, and fast.
    """
    values = torch.arange(256, dtype=torch.float64) / 255
    counts = torch.zeros(images.shape[1], 256, dtype=torch.int64)
    for part in images.split(1000):  # chunks that fit into a cache
        for channel, pixels in enumerate(part.unbind(1)):
            counts[channel] += torch.bincount(pixels.flatten(), minlength=256)
    share = counts.double() / counts.sum(1, keepdim=True)
    mean = (share * values).sum(1, keepdim=True)
    variance = (share * (values - mean) ** 2).sum(1)
    return tuple(mean.flatten().tolist()), tuple(variance.sqrt().tolist())
