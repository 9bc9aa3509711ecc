"""The 5-layer CNN of Mixture Normalization (Kalayeh, Shah, TPAMI 2019, arXiv 1806.02892).

conv 5x5 x64, norm, ReLU, max-pool 3x3/2; conv 5x5 x128, norm, ReLU, max-pool 3x3/2; conv 5x5 x128, norm,
ReLU, max-pool 3x3/2; conv 3x3 or 5x5 x256, norm, ReLU, average-pool; linear. The pools are padded by 1, so
32 becomes 16, 8, 4. The size of the last kernel is not known for certain, so it is an option.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from gbn.models.interface import ConvNorm, NormLayer, needs_bias, scaled


class CNN(nn.Module):
    """Four convolutions and a linear classifier for images of any size (the last pool covers what is left).

    At 32x32 the last pool is the 4x4 average of the paper.

    Args:
        norm_layer: see :mod:`gbn.models.interface`.
        in_channels: channels of the images.
        num_classes: number of logits.
        image_size: side of the square images (any; kept for the common signature).
        width: multiplies the channels 64, 128, 128, 256.
        last_kernel: side of the fourth convolution's kernel, 3 or 5.
        bias: whether convolutions have a bias; "auto": only if the norm has none.

    Raises:
        ValueError: a last kernel other than 3 or 5.
    """

    def __init__(
        self,
        norm_layer: NormLayer,
        in_channels: int,
        num_classes: int,
        image_size: int,
        *,
        width: float = 1.0,
        last_kernel: int = 3,
        bias: bool | Literal["auto"] = "auto",
    ) -> None:
        super().__init__()
        if last_kernel not in (3, 5):
            raise ValueError(f"last_kernel must be 3 or 5, {last_kernel} was given")
        bias = needs_bias(norm_layer, bias)
        c1, c2, c3, c4 = (scaled(channels, width) for channels in (64, 128, 128, 256))
        self.layer1 = ConvNorm(norm_layer, in_channels, c1, 5, bias=bias, role="stem")
        self.layer2 = ConvNorm(norm_layer, c1, c2, 5, bias=bias)
        self.layer3 = ConvNorm(norm_layer, c2, c3, 5, bias=bias)
        self.layer4 = ConvNorm(norm_layer, c3, c4, last_kernel, bias=bias)
        self.head = nn.Linear(c4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to logits (N, num_classes)."""
        for layer in (self.layer1, self.layer2, self.layer3):
            x = F.max_pool2d(layer(x), 3, stride=2, padding=1)
        return self.head(self.layer4(x).mean((2, 3)))
