"""Batches from a set that is in memory on the training device: no workers, no copies, no state.

The images of a step and their augmentation depend only on (seed, step), so a run that is resumed at step s sees what
the uninterrupted run saw.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from gbn.data.augment import Augmentation, augment
from gbn.seeding import derive


class InMemory(ABC):
    """Images with targets on one device, served as batches.

    Args:
        images: (N, C, H, W); moved to ``device``.
        device: device of the set and of the batches.
        dtype: of the images of a batch.
        channels_last: memory format of the images of a batch.
    """

    def __init__(
        self,
        images: Tensor,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        channels_last: bool = False,
    ) -> None:
        self.images = images.to(device)
        self.dtype = dtype
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format

    def __len__(self) -> int:
        return len(self.images)

    @abstractmethod
    def batch(self, indices: Tensor, augment_seed: int | None = None) -> tuple[Tensor, Tensor]:
        """Return images and targets at ``indices``; augmented if a seed is given."""

    def batches(self, indices: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all of ``indices`` in order, not augmented, for evaluation; the last batch may be smaller."""
        for part in indices.split(batch_size):
            yield self.batch(part)


class DeviceSet(InMemory):
    """Images as uint8 and labels on one device, served as normalized batches.

    Args:
        images: uint8 (N, C, H, W); moved to ``device``.
        labels: int64 (N,); moved to ``device``.
        mean: per channel, of pixel / 255.
        std: per channel, of pixel / 255.
        augmentation: the augmentation that ``batch`` applies when it is given a seed.
        **options: of :class:`InMemory`; images are normalized in float32 and then rounded to ``dtype``.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        augmentation: Augmentation = "none",
        **options: Any,
    ) -> None:
        super().__init__(images, **options)
        device = self.images.device
        self.labels = labels.to(device)
        self.augmentation: Augmentation = augmentation
        # (pixel / 255 - mean) / std = pixel * scale + shift; a constant channel is only centered.
        spread = torch.tensor([value or 1.0 for value in std], dtype=torch.float64)
        center = torch.tensor(list(mean), dtype=torch.float64)
        self._scale = (1 / (255 * spread)).float().view(1, -1, 1, 1).to(device)
        self._shift = (-center / spread).float().view(1, -1, 1, 1).to(device)

    def batch(self, indices: Tensor, augment_seed: int | None = None) -> tuple[Tensor, Tensor]:
        """Return images (B, C, H, W), normalized, and labels (B,) at ``indices``; augmented if a seed is given."""
        indices = indices.to(self.images.device, non_blocking=True)
        images = self.images[indices]
        if augment_seed is not None:
            images = augment(images, self.augmentation, augment_seed)
        x = images.float().mul_(self._scale).add_(self._shift)
        return x.to(self.dtype).contiguous(memory_format=self.memory_format), self.labels[indices]


def epoch_order(seed: int, epoch: int, count: int) -> Tensor:
    """Return the order of ``count`` training images in an epoch: a permutation of 0..count-1, int64 (count,)."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(derive(seed, "order", epoch)))


class TrainLoader:
    """The training batches of a run by step number.

    Every epoch visits the images in a new order and drops those that do not fill its last batch.

    Args:
        data: the set.
        indices: indices of the training images in the set, int64 (n,).
        batch_size: images per batch, at most n.
        seed: the run's seed.
        append: function of a batch's images and the step that appends foreign images
            (:meth:`gbn.data.ForeignImages.appended`); None for no foreign images.

    Raises:
        ValueError: a batch larger than the training set, or no image in it.
    """

    def __init__(
        self,
        data: InMemory,
        indices: Tensor,
        batch_size: int,
        seed: int,
        append: Callable[[Tensor, int], Tensor] | None = None,
    ) -> None:
        if not 1 <= batch_size <= len(indices):
            raise ValueError(
                f"batch_size={batch_size} with {len(indices)} training images: no batch would ever be full; "
                f"allowed are 1 to {len(indices)}"
            )
        self.data = data
        self.indices = indices
        self.batch_size = batch_size
        self.seed = seed
        self.append = append
        self.steps_per_epoch = len(indices) // batch_size
        self._epoch: int | None = None
        self._order: Tensor

    def order(self, epoch: int) -> Tensor:
        """Return the indices of an epoch's images in order, on the set's device; the last epoch's are cached."""
        if epoch != self._epoch:
            order = epoch_order(self.seed, epoch, len(self.indices)).to(self.indices.device)
            self._order = self.indices[order].to(self.data.images.device)
            self._epoch = epoch
        return self._order

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Return images and labels of a step, counted over all epochs; images beyond the labels are foreign."""
        epoch, place = divmod(step, self.steps_per_epoch)
        indices = self.order(epoch)[place * self.batch_size : (place + 1) * self.batch_size]
        images, labels = self.data.batch(indices, derive(self.seed, "augment", step))
        return (images if self.append is None else self.append(images, step)), labels
