"""The pre-activation CIFAR ResNet of depth 6n+2 (He, Zhang, Ren, Sun, "Identity Mappings", ECCV 2016).

Norm and ReLU stand before each convolution and the shortcut path is free of both. As the paper says: the
first block takes the stem's norm and ReLU, before its two paths part, and a last norm and ReLU follow the
last block. So it has exactly as many norms as the ResNet of the same depth, and each is followed by an
activation.
"""

from typing import Literal

from torch import Tensor, nn

from gbn.models.interface import ConvNorm, NormLayer, needs_bias, scaled
from gbn.models.residual import Shortcut, blocks_per_stage, check_shortcut, shortcut_without_norm


class PreActBlock(nn.Module):
    """``conv(relu(norm(conv(relu(norm(x)))))) + shortcut``, 3x3 convolutions.

    The shortcut is the identity of x; where the shape changes, option A pads x and option B is a 1x1
    convolution (without norm) of the first activation.

    Args:
        norm_layer: see :mod:`gbn.models.interface`.
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: stride of the first convolution.
        shortcut: what replaces the identity where the shape changes.
        activated: whether the input is activated already, so that the block has no first norm.
        bias: whether convolutions that a norm follows have a bias.
    """

    def __init__(
        self,
        norm_layer: NormLayer,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        shortcut: Shortcut = "A",
        activated: bool = False,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.norm: nn.Module = nn.Identity() if activated else norm_layer(in_channels, act="relu", dim=2)
        self.layer1 = ConvNorm(norm_layer, in_channels, out_channels, 3, stride=stride, bias=bias)
        self.conv = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=bias)
        self.shortcut = shortcut_without_norm(in_channels, out_channels, stride, shortcut, bias)
        self.projects = isinstance(self.shortcut, nn.Conv2d)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, ceil(H / stride), ceil(W / stride))."""
        activated = self.norm(x)
        return self.conv(self.layer1(activated)) + self.shortcut(activated if self.projects else x)


class PreActResNet(nn.Module):
    """Pre-activation CIFAR ResNet; images of any size.

    Args:
        norm_layer: see :mod:`gbn.models.interface`.
        in_channels: channels of the images.
        num_classes: number of logits.
        image_size: side of the square images (any; kept for the common signature).
        width: multiplies the channels 16, 32, 64.
        depth: 6n+2 with n >= 1.
        shortcut: "A" (zero padding) or "B" (1x1 convolution).
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
                block = PreActBlock(
                    norm_layer,
                    channels,
                    out_channels,
                    stride=2 if i > 0 and j == 0 else 1,
                    shortcut=shortcut,
                    activated=i == j == 0,
                    bias=bias,
                )
                stage.append(block)
                channels = out_channels
            self.stages.append(stage)
        self.norm = norm_layer(channels, act="relu", dim=2, role="body")
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> logits (N, num_classes)."""
        return self.head(self.norm(self.stages(self.stem(x))).mean((2, 3)))
