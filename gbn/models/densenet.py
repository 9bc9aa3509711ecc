"""The CIFAR DenseNet and DenseNet-BC (Huang, Liu, van der Maaten, Weinberger, CVPR 2017, arXiv 1608.06993).

A 3x3 convolution, three dense blocks in which each layer adds k channels (the growth rate) to all preceding ones,
transitions of a 1x1 convolution and a 2x2 average pool between the blocks, global average pool, linear. Norm and ReLU
come before each convolution, so the stem has none of its own. DenseNet-BC (the default) has bottleneck layers (a 1x1
convolution to 4k channels first) and transitions that keep half of the channels: L = 100, k = 12 has 769,162
parameters with ten classes. The plain DenseNet, ``bottleneck=False, compression=1.0``, has 1.0 million at L = 40,
k = 12 and 7.0 million at L = 100.

The stem has 16 channels, or 2k in a DenseNet-BC, as the paper says (section 3, "Implementation Details"). The
authors' later code always has 2k, which does not agree with the paper's table: it gives 1.0, 7.0 and 27.2 million for
the plain networks of (L, k) = (40, 12), (100, 12), (100, 24); 16 channels give 1.02, 6.98, 27.25, and 2k would give
1.06, 7.08, 28.07.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gbn.models.interface import ConvNorm, NormLayer, needs_bias, scaled


def layers_per_block(depth: int, bottleneck: bool) -> int:
    """Return the number of dense layers per block: the rest is the stem, two transitions and the classifier.

    Raises:
        ValueError: a depth that is not 6n+4 (with bottlenecks) or 3n+4 (without), n >= 1.
    """
    convolutions = 6 if bottleneck else 3
    if depth < convolutions + 4 or (depth - 4) % convolutions:
        some = "10, 16, 22, 28, 40, 100, 190, 250" if bottleneck else "7, 10, 13, 22, 40, 100"
        raise ValueError(
            f"depth must be {convolutions}n+4 with n >= 1 for a DenseNet with bottleneck={bottleneck} "
            f"({some}, ...), {depth} was given"
        )
    return (depth - 4) // convolutions


class DenseLayer(nn.Module):
    """``concat(x, conv3x3(relu(norm(x))))``, or with a 1x1 convolution, norm and ReLU before the 3x3.

    Args:
        norm_layer: see :mod:`gbn.models.interface`.
        in_channels: channels of the input.
        growth_rate: channels that the layer adds.
        bottleneck: channels of the 1x1 convolution, or None for none.
        bias: whether the convolutions have a bias.
    """

    def __init__(
        self, norm_layer: NormLayer, in_channels: int, growth_rate: int, bottleneck: int | None, *, bias: bool
    ) -> None:
        super().__init__()
        self.norm = norm_layer(in_channels, act="relu", dim=2, role="body")
        self.layer1: nn.Module = nn.Identity()
        if bottleneck is not None:
            self.layer1 = ConvNorm(norm_layer, in_channels, bottleneck, 1, bias=bias)
        self.conv = nn.Conv2d(bottleneck or in_channels, growth_rate, 3, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C + growth_rate, H, W), the input first."""
        return torch.cat((x, self.conv(self.layer1(self.norm(x)))), 1)


class Transition(nn.Module):
    """``avg_pool2x2(conv1x1(relu(norm(x))))``: (N, C, H, W) -> (N, out_channels, floor(H / 2), floor(W / 2))."""

    def __init__(self, norm_layer: NormLayer, in_channels: int, out_channels: int, *, bias: bool) -> None:
        super().__init__()
        self.norm = norm_layer(in_channels, act="relu", dim=2, role="body")
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, out_channels, floor(H / 2), floor(W / 2))."""
        return F.avg_pool2d(self.conv(self.norm(x)), 2)


class DenseNet(nn.Module):
    """CIFAR DenseNet; images of 4x4 or more.

    Args:
        norm_layer: see :mod:`gbn.models.interface`.
        in_channels: channels of the images.
        num_classes: number of logits.
        image_size: side of the square images, at least 4.
        width: multiplies the growth rate and the stem's channels, and with them all others.
        depth: 6n+4 with bottlenecks, 3n+4 without, n >= 1.
        growth_rate: k, the channels that each layer adds.
        bottleneck: whether a 1x1 convolution to 4k channels comes before each 3x3 convolution.
        compression: fraction of the channels that a transition keeps, rounded down, at least one channel.
        bias: whether convolutions have a bias; "auto": only if the norm has none.

    Raises:
        ValueError: a depth that is not of the form above, a growth rate under 1, a compression outside (0, 1],
            images too small for two poolings.
    """

    def __init__(
        self,
        norm_layer: NormLayer,
        in_channels: int,
        num_classes: int,
        image_size: int,
        *,
        width: float = 1.0,
        depth: int = 100,
        growth_rate: int = 12,
        bottleneck: bool = True,
        compression: float = 0.5,
        bias: bool | Literal["auto"] = "auto",
    ) -> None:
        super().__init__()
        if image_size < 4:
            raise ValueError(f"DenseNet needs images of at least 4x4, {image_size}x{image_size} was given")
        if growth_rate < 1:
            raise ValueError(
                f"growth_rate must be at least 1, {growth_rate} was given: the paper has 12, 24, 40"
            )
        if not 0 < compression <= 1:
            raise ValueError(
                f"compression must be above 0 and at most 1, {compression} was given: "
                "0.5 is DenseNet-BC, 1.0 keeps all channels"
            )
        layers = layers_per_block(depth, bottleneck)
        bias = needs_bias(norm_layer, bias)
        growth = scaled(growth_rate, width)
        channels = 2 * growth if bottleneck and compression < 1 else scaled(16, width)
        self.stem = nn.Conv2d(in_channels, channels, 3, padding=1, bias=bias)
        self.blocks = nn.ModuleList()
        self.transitions = nn.ModuleList()
        for i in range(3):
            block = nn.Sequential()
            for _ in range(layers):
                inner = 4 * growth if bottleneck else None
                block.append(DenseLayer(norm_layer, channels, growth, inner, bias=bias))
                channels += growth
            self.blocks.append(block)
            if i < 2:
                # The small number keeps 0.29 * 100 from being rounded down to 28.
                kept = max(1, int(channels * compression + 1e-9))
                self.transitions.append(Transition(norm_layer, channels, kept, bias=bias))
                channels = kept
        self.norm = norm_layer(channels, act="relu", dim=2, role="body")
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to logits (N, num_classes)."""
        x = self.stem(x)
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i < len(self.transitions):
                x = self.transitions[i](x)
        return self.head(self.norm(x).mean((2, 3)))
