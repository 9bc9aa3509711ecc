"""The pre-activation CIFAR ResNet of bottleneck blocks, depth 9n+2 (He, Zhang, Ren, Sun, "Identity Mappings", 2016).

PreResNet-164 (n = 18) has 1.70 million parameters, ResNet-1001 (n = 111) 10.3 million. As in ``preact_resnet``, norm
and ReLU stand before each convolution, the first block takes those of the stem, and a last pair follows the last
block. The details are those of the authors' code (github.com/KaimingHe/resnet-1k-layers): the stride stands on
the first 1x1 convolution, and where the shape changes the shortcut is a 1x1 convolution, without norm, of the
block's first activation.
"""

from typing import Literal

from torch import Tensor, nn

from gbn.models.interface import ConvNorm, NormLayer, needs_bias, scaled
from gbn.models.residual import Shortcut, bottlenecks_per_stage, check_shortcut, shortcut_without_norm

EXPANSION = 4


class PreActBottleneck(nn.Module):
    """``conv1x1(relu(norm(conv3x3(relu(norm(conv1x1(relu(norm(x))))))))) + shortcut``.

    The shortcut is the identity of x; where the shape changes, option A pads x and option B is a 1x1
    convolution (without norm) of the first activation.

    Args:
        norm_layer: see :mod:`gbn.models.interface`.
        in_channels: channels of the input.
        inner: channels of the 3x3 convolution.
        out_channels: channels of the output.
        stride: stride of the first convolution.
        shortcut: what replaces the identity where the shape changes.
        activated: whether the input is activated already, so that the block has no first norm.
        bias: whether the convolutions have a bias.
    """

    def __init__(
        self,
        norm_layer: NormLayer,
        in_channels: int,
        inner: int,
        out_channels: int,
        *,
        stride: int = 1,
        shortcut: Shortcut = "B",
        activated: bool = False,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.norm: nn.Module = nn.Identity() if activated else norm_layer(in_channels, act="relu", dim=2)
        self.layer1 = ConvNorm(norm_layer, in_channels, inner, 1, stride=stride, bias=bias)
        self.layer2 = ConvNorm(norm_layer, inner, inner, 3, bias=bias)
        self.conv = nn.Conv2d(inner, out_channels, 1, bias=bias)
        self.shortcut = shortcut_without_norm(in_channels, out_channels, stride, shortcut, bias)
        self.projects = isinstance(self.shortcut, nn.Conv2d)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, ceil(H / stride), ceil(W / stride))."""
        activated = self.norm(x)
        branch = self.conv(self.layer2(self.layer1(activated)))
        return branch + self.shortcut(activated if self.projects else x)


class PreActResNetBottleneck(nn.Module):
    """Pre-activation CIFAR ResNet with bottleneck blocks; images of any size.

    Args:
        norm_layer: see :mod:`gbn.models.interface`.
        in_channels: channels of the images.
        num_classes: number of logits.
        image_size: side of the square images (any; kept for the common signature).
        width: multiplies the channels 16, 32, 64 (a stage ends in four times as many).
        depth: 9n+2 with n >= 1.
        shortcut: "A" (zero padding) or "B" (1x1 convolution).
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
        stem, *stages = (scaled(channels, width) for channels in (16, 16, 32, 64))
        self.stem = ConvNorm(norm_layer, in_channels, stem, 3, bias=bias, role="stem")
        self.stages = nn.Sequential()
        channels = stem
        for i, inner in enumerate(stages):
            stage = nn.Sequential()
            for j in range(blocks):
                block = PreActBottleneck(
                    norm_layer,
                    channels,
                    inner,
                    EXPANSION * inner,
                    stride=2 if i > 0 and j == 0 else 1,
                    shortcut=shortcut,
                    activated=i == j == 0,
                    bias=bias,
                )
                stage.append(block)
                channels = EXPANSION * inner
            self.stages.append(stage)
        self.norm = norm_layer(channels, act="relu", dim=2, role="body")
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, H, W) -> logits (N, num_classes)."""
        return self.head(self.norm(self.stages(self.stem(x))).mean((2, 3)))
