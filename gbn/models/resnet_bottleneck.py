"""The CIFAR ResNet of bottleneck blocks, depth 9n+2: ResNet-164 has 1.70 million parameters.

He et al. 2016b ("Identity Mappings", section 4) made CIFAR's ResNet-164 out of the bottlenecks of He et al. 2016a:
a 3x3 convolution with 16 channels, three stages of n blocks 1x1, 3x3, 1x1 with 16, 32, 64 channels inside and
four times as many at the end, global average pool, linear. Details that the papers leave open are those of the
code that Instance Enhancement Batch Normalization was published with (github.com/gbup-group/IEBN): the stride
stands on the 3x3 convolution, and the shortcut is a 1x1 convolution with norm where the shape changes, the first
stage (16 to 64 channels) included.

The 24,224 parameters that IEBN adds to ResNet-164 agree: two a channel are 12,112 channels, the 16 of the stem and
672 n of the blocks at n = 18. So n = 18 (not the 27 of a 6n+2 network), every norm of stem and blocks is counted, and
the three of the shortcuts (448 channels) are not. The count leaves open what the code settles: the kind of shortcut,
and the order of norm and convolution (the pre-activation network has 12,112 channels of norms as well).

Depths 20, 38, 56, 74, 92, 110, 164, ... are both 6n+2 and 9n+2, hence a model of its own beside ``resnet``.
"""

from typing import Literal

from torch import Tensor, nn

from gbn.models.interface import ConvNorm, NormLayer, needs_bias, scaled
from gbn.models.residual import Shortcut, bottleneck_stages, bottlenecks_per_stage, check_shortcut

EXPANSION = 4


class ResNetBottleneck(nn.Module):
    """CIFAR ResNet with bottleneck blocks; images of any size.

    Args:
        norm_layer: see :mod:`gbn.models.interface`.
        in_channels: channels of the images.
        num_classes: number of logits.
        image_size: side of the square images (any; kept for the common signature).
        width: multiplies the channels 16, 32, 64 (a stage ends in four times as many).
        depth: 9n+2 with n >= 1.
        shortcut: "A" (zero padding) or "B" (1x1 convolution with norm).
        bias: whether convolutions have a bias; "auto": only if the norm gives none.

    Raises:
        ValueError: a depth that is not 9n+2, another shortcut.
    """

    def __init__(
        self,
        norm_layer: NormLayer,
        in_channels: int,
        num_classes: int,
        image_size: int,
        *,
        width: float = 1.0,
        depth: int = 164,
        shortcut: Shortcut = "B",
        bias: bool | Literal["auto"] = "auto",
    ) -> None:
        super().__init__()
        check_shortcut(shortcut)
        blocks = bottlenecks_per_stage(depth)
        bias = needs_bias(norm_layer, bias)
        stem, *inner = (scaled(channels, width) for channels in (16, 16, 32, 64))
        widths = [(channels, EXPANSION * channels) for channels in inner]
        self.stem = ConvNorm(norm_layer, in_channels, stem, 3, bias=bias, role="stem")
        self.stages = bottleneck_stages(norm_layer, stem, widths, blocks, shortcut=shortcut, bias=bias)
        self.head = nn.Linear(widths[-1][1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> logits (N, num_classes)."""
        return self.head(self.stages(self.stem(x)).mean((2, 3)))
