"""The CIFAR ResNet of depth 6n+2 (He, Zhang, Ren, Sun, "Deep Residual Learning", CVPR 2016, section 4.2).

A 3x3 convolution, three stages of n basic blocks with 16, 32, 64 channels, global average pool, linear. The
paper uses shortcut A on CIFAR; depth 20 has 0.27 million parameters.
"""

from typing import Literal

from torch import Tensor, nn

from gbn.models.interface import ConvNorm, NormLayer, needs_bias, scaled
from gbn.models.residual import BasicBlock, Shortcut, blocks_per_stage, check_shortcut


class ResNet(nn.Module):
    """CIFAR ResNet; images of any size.

    Args:
        norm_layer: see :mod:`gbn.models.interface`.
        in_channels: channels of the images.
        num_classes: number of logits.
        image_size: side of the square images (any; kept for the common signature).
        width: multiplies the channels 16, 32, 64.
        depth: 6n+2 with n >= 1.
        shortcut: "A" (zero padding, the paper's choice here) or "B" (1x1 convolution with norm).
        bias: whether convolutions have a bias; "auto": only if the norm gives none.

    Raises:
        ValueError: a depth that is not 6n+2, another shortcut.
    """

    def __init__(
        self,
        norm_layer: NormLayer,
        in_channels: int,
        num_classes: int,
        image_size: int,
        *,
        width: float = 1.0,
        depth: int = 20,
        shortcut: Shortcut = "A",
        bias: bool | Literal["auto"] = "auto",
    ) -> None:
        super().__init__()
        check_shortcut(shortcut)
        blocks = blocks_per_stage(depth)
        bias = needs_bias(norm_layer, bias)
        stem, *stages = (scaled(channels, width) for channels in (16, 16, 32, 64))
        self.stem = ConvNorm(norm_layer, in_channels, stem, 3, bias=bias, role="stem")
        self.stages = nn.Sequential()
        channels = stem
        for i, out_channels in enumerate(stages):
            stage = nn.Sequential()
            for j in range(blocks):
                stride = 2 if i > 0 and j == 0 else 1
                stage.append(
                    BasicBlock(
                        norm_layer, channels, out_channels, stride=stride, shortcut=shortcut, bias=bias
                    )
                )
                channels = out_channels
            self.stages.append(stage)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> logits (N, num_classes)."""
        return self.head(self.stages(self.stem(x)).mean((2, 3)))
