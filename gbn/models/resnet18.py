"""ResNet-18 with the CIFAR stem: 3x3 of stride 1 and no max-pool (the usual form of He et al. 2016a).

Stages of two basic blocks with 64, 128, 256, 512 channels, 1x1 convolutions as shortcuts where the shape
changes, as in the paper's ImageNet networks: 11.17 million parameters with ten classes.
"""

from typing import Literal

from torch import Tensor, nn

from gbn.models.interface import ConvNorm, NormLayer, needs_bias, scaled
from gbn.models.residual import BasicBlock


class ResNet18(nn.Module):
    """ResNet-18 for small images of any size.

    Args:
        norm_layer: see :mod:`gbn.models.interface`.
        in_channels: channels of the images.
        num_classes: number of logits.
        image_size: side of the square images (any; kept for the common signature).
        width: multiplies the channels 64, 128, 256, 512.
        bias: whether convolutions have a bias; "auto": only if the norm gives none.
    """

    def __init__(
        self,
        norm_layer: NormLayer,
        in_channels: int,
        num_classes: int,
        image_size: int,
        *,
        width: float = 1.0,
        bias: bool | Literal["auto"] = "auto",
    ) -> None:
        super().__init__()
        bias = needs_bias(norm_layer, bias)
        stem, *stages = (scaled(channels, width) for channels in (64, 64, 128, 256, 512))
        self.stem = ConvNorm(norm_layer, in_channels, stem, 3, bias=bias, role="stem")
        self.stages = nn.Sequential()
        channels = stem
        for i, out_channels in enumerate(stages):
            first = BasicBlock(
                norm_layer, channels, out_channels, stride=1 if i == 0 else 2, shortcut="B", bias=bias
            )
            second = BasicBlock(norm_layer, out_channels, out_channels, bias=bias)
            self.stages.append(nn.Sequential(first, second))
            channels = out_channels
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> logits (N, num_classes)."""
        return self.head(self.stages(self.stem(x)).mean((2, 3)))
