"""The CIFAR ResNeXt of depth 9n+2 (Xie, Girshick, Dollar, Tu, He, CVPR 2017, section 5.3).

A 3x3 convolution with 64 channels, three stages of n bottlenecks that end in 256, 512, 1024 channels, global average
pool, linear. The 3x3 convolution inside has ``cardinality`` groups of ``base_width`` channels in the first stage,
twice as many in the next. ResNeXt-29, 8x64d has 34.4 million parameters; 16x64d has 68.1 million.

The blocks are the original ones (norm and ReLU after each convolution), with option B as shortcuts, as in the
authors' code (github.com/facebookresearch/ResNeXt). Its README says that the paper's own CIFAR numbers came from
pre-activated blocks, and that the original ones are better.
"""

from typing import Literal

from torch import Tensor, nn

from gbn.models.interface import ConvNorm, NormLayer, needs_bias, scaled
from gbn.models.residual import bottleneck_stages, bottlenecks_per_stage

EXPANSION = 4


class ResNeXt(nn.Module):
    """CIFAR ResNeXt; images of any size.

    Args:
        norm_layer: see :mod:`gbn.models.interface`.
        in_channels: channels of the images.
        num_classes: number of logits.
        image_size: side of the square images (any; kept for the common signature).
        width: multiplies the stem's 64 channels, what the stages end in, and the width of the groups (to the
            nearest integer, at least one channel a group); the cardinality stays.
        depth: 9n+2 with n >= 1.
        cardinality: groups of each 3x3 convolution.
        base_width: channels of a group in the first stage; the following stages have 2 and 4 times as many.
        bias: whether convolutions have a bias; "auto": only if the norm gives none.

    Raises:
        ValueError: a depth that is not 9n+2, a cardinality or a base width under 1.
    """

    def __init__(
        self,
        norm_layer: NormLayer,
        in_channels: int,
        num_classes: int,
        image_size: int,
        *,
        width: float = 1.0,
        depth: int = 29,
        cardinality: int = 8,
        base_width: int = 64,
        bias: bool | Literal["auto"] = "auto",
    ) -> None:
        super().__init__()
        for name, value in (("cardinality", cardinality), ("base_width", base_width)):
            if value < 1:
                raise ValueError(
                    f"{name} must be at least 1, {value} was given: 8 and 64 are the paper's 8x64d"
                )
        blocks = bottlenecks_per_stage(depth)
        bias = needs_bias(norm_layer, bias)
        stem = scaled(64, width)
        widths = [
            (cardinality * max(1, round(base_width * factor * width)), EXPANSION * scaled(64 * factor, width))
            for factor in (1, 2, 4)
        ]
        self.stem = ConvNorm(norm_layer, in_channels, stem, 3, bias=bias, role="stem")
        self.stages = bottleneck_stages(norm_layer, stem, widths, blocks, groups=cardinality, bias=bias)
        self.head = nn.Linear(widths[-1][1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> logits (N, num_classes)."""
        return self.head(self.stages(self.stem(x)).mean((2, 3)))
