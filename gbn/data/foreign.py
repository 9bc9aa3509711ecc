"""Images of another data set in each training batch: an attack on batch statistics.

("The mixed data attack" of Liang et al., AAAI 2020, arXiv 1908.04008; its definition is recalled, not read.) They
pass through the network together with the batch's own images and so enter its statistics; the loss never sees them.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gbn.data.loader import DeviceSet
from gbn.seeding import derive

__all__ = ["ForeignImages", "fitted"]


def fitted(images: Tensor, channels: int, size: int) -> Tensor:
    """Bring images of another set to the shape of one's own: uint8 (N, C, H, H) to uint8 (N, channels, size, size).

    Smaller images are centered on black, larger ones are center-cropped; gray ones are repeated in every channel,
    color ones are converted to gray by the mean of their channels.

    Raises:
        ValueError: channels that are neither 1 nor 3.
    """
    if channels not in (1, 3) or images.shape[1] not in (1, 3):
        raise ValueError(
            f"images with {images.shape[1]} channels cannot be mixed with images with {channels}"
        )
    if images.shape[1] != channels:
        if channels == 3:
            images = images.expand(-1, 3, -1, -1)
        else:
            images = images.float().mean(1, keepdim=True).round().to(torch.uint8)
    before = (size - images.shape[-1]) // 2
    after = size - images.shape[-1] - before
    return F.pad(images, (before, after, before, after)).contiguous()  # negative pads crop


class ForeignImages:
    """Draws the foreign images of each step from (seed, step) alone.

    Args:
        images: uint8 (N, C, H, W) in the shape of the run's own (:func:`fitted`).
        mean, std: per channel of pixel / 255, of the run's own images: all are normalized alike.
        count: images per batch, drawn with replacement.
        seed: the run's seed.
        device, channels_last: as in :class:`gbn.data.DeviceSet`.
    """

    def __init__(
        self,
        images: Tensor,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        count: int,
        seed: int,
        device: torch.device | str = "cpu",
        channels_last: bool = False,
    ) -> None:
        labels = torch.zeros(len(images), dtype=torch.int64)
        self.data = DeviceSet(images, labels, mean, std, device=device, channels_last=channels_last)
        self.count, self.seed = count, seed

    def appended(self, batch: Tensor, step: int) -> Tensor:
        """Map (B, C, H, W) to (B + count, C, H, W): the batch's own images first."""
        make = torch.Generator().manual_seed(derive(self.seed, "foreign", step))
        indices = torch.randint(len(self.data), (self.count,), generator=make)
        foreign, _ = self.data.batch(indices)
        return torch.cat([batch, foreign.to(batch.dtype)])
