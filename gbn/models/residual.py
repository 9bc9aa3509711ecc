"""The pieces that residual networks share: the two blocks and the shortcuts where the shape changes."""

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from gbn.models.interface import ConvNorm, NormLayer

Shortcut = Literal["A", "B"]
"""A: subsample, pad with zero channels, no parameters; B: 1x1 convolution (He et al. 2016a, section 3.3)."""


def check_shortcut(shortcut: str) -> None:
    """Raise ValueError for a shortcut other than A and B."""
    if shortcut not in ("A", "B"):
        raise ValueError(
            f"shortcut must be 'A' (zero padding) or 'B' (1x1 convolution), {shortcut!r} was given"
        )


def blocks_per_stage(depth: int) -> int:
    """The n of a 6n+2 network: n basic blocks of two convolutions in each of three stages, stem, classifier.

    Raises:
        ValueError: a depth that is not 6n+2 with n >= 1.
    """
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(
            f"depth must be 6n+2 with n >= 1 (8, 14, 20, 26, 32, 44, 56, 110, ...), {depth} was given"
        )
    return (depth - 2) // 6


def bottlenecks_per_stage(depth: int) -> int:
    """The n of a 9n+2 network: n bottlenecks of three convolutions in each of three stages, stem, classifier.

    Raises:
        ValueError: a depth that is not 9n+2 with n >= 1.
    """
    if depth < 11 or (depth - 2) % 9:
        raise ValueError(
            "depth must be 9n+2 with n >= 1 for bottleneck blocks "
            f"(11, 20, 29, 38, 47, 56, 110, 164, ...), {depth} was given"
        )
    return (depth - 2) // 9


class PadShortcut(nn.Module):
    """Option A: every ``stride``-th pixel, then zero channels: (N, C, H, W) -> (N, C + extra, H', W')."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        if out_channels < in_channels:
            raise ValueError(f"a padding shortcut cannot go from {in_channels} to {out_channels} channels")
        self.extra = out_channels - in_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C + extra, ceil(H / stride), ceil(W / stride))."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))

    def extra_repr(self) -> str:
        """The added channels and the stride."""
        return f"extra={self.extra}, stride={self.stride}"


def shortcut_without_norm(
    in_channels: int, out_channels: int, stride: int, shortcut: Shortcut, bias: bool
) -> nn.Module:
    """The shortcut of a pre-activation block: the identity, or where the shape changes option A or a 1x1 conv."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    if shortcut == "A":
        return PadShortcut(in_channels, out_channels, stride)
    return nn.Conv2d(in_channels, out_channels, 1, stride, bias=bias)


def shortcut_with_norm(
    norm_layer: NormLayer, in_channels: int, out_channels: int, stride: int, shortcut: Shortcut, bias: bool
) -> nn.Module:
    """The shortcut of a block whose sum is activated: as the one without, option B followed by a norm."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    if shortcut == "A":
        return PadShortcut(in_channels, out_channels, stride)
    return ConvNorm(
        norm_layer, in_channels, out_channels, 1, stride=stride, bias=bias, act=None, role="shortcut"
    )


class BasicBlock(nn.Module):
    """``relu(norm(conv(relu(norm(conv(x))))) + shortcut(x))`` with 3x3 convolutions (He et al. 2016a).

    Args:
        norm_layer: see :mod:`gbn.models.interface`; called with the roles body, branch_end and shortcut.
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: stride of the first convolution.
        shortcut: what replaces the identity where the shape changes.
        bias: whether the convolutions have a bias.
    """

    def __init__(
        self,
        norm_layer: NormLayer,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        shortcut: Shortcut = "A",
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.layer1 = ConvNorm(norm_layer, in_channels, out_channels, 3, stride=stride, bias=bias)
        self.layer2 = ConvNorm(
            norm_layer, out_channels, out_channels, 3, bias=bias, act=None, role="branch_end"
        )
        self.shortcut = shortcut_with_norm(norm_layer, in_channels, out_channels, stride, shortcut, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, ceil(H / stride), ceil(W / stride))."""
        return F.relu(self.layer2(self.layer1(x)) + self.shortcut(x))


class BottleneckBlock(nn.Module):
    """``relu(norm(conv1x1(relu(norm(conv3x3(relu(norm(conv1x1(x)))))))) + shortcut(x))`` (He et al. 2016a).

    Args:
        norm_layer: see :mod:`gbn.models.interface`; called with the roles body, branch_end and shortcut.
        in_channels: channels of the input.
        inner: channels of the 3x3 convolution.
        out_channels: channels of the output.
        stride: stride of the 3x3 convolution.
        groups: groups of the 3x3 convolution: ResNeXt's cardinality.
        shortcut: what replaces the identity where the shape changes.
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
        groups: int = 1,
        shortcut: Shortcut = "B",
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.layer1 = ConvNorm(norm_layer, in_channels, inner, 1, bias=bias)
        self.layer2 = ConvNorm(norm_layer, inner, inner, 3, stride=stride, groups=groups, bias=bias)
        self.layer3 = ConvNorm(norm_layer, inner, out_channels, 1, bias=bias, act=None, role="branch_end")
        self.shortcut = shortcut_with_norm(norm_layer, in_channels, out_channels, stride, shortcut, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, ceil(H / stride), ceil(W / stride))."""
        return F.relu(self.layer3(self.layer2(self.layer1(x))) + self.shortcut(x))


def bottleneck_stages(
    norm_layer: NormLayer,
    in_channels: int,
    widths: Sequence[tuple[int, int]],
    blocks: int,
    *,
    groups: int = 1,
    shortcut: Shortcut = "B",
    bias: bool = False,
) -> nn.Sequential:
    """Stages of ``blocks`` bottlenecks each; every stage but the first halves the image in its first block.

    Args:
        norm_layer: see :mod:`gbn.models.interface`.
        in_channels: channels of the input.
        widths: (channels of the 3x3 convolutions, channels of the output) of each stage.
        blocks: bottlenecks a stage.
        groups, shortcut, bias: see :class:`BottleneckBlock`.
    """
    stages = nn.Sequential()
    for i, (inner, out_channels) in enumerate(widths):
        stage = nn.Sequential()
        for j in range(blocks):
            stage.append(
                BottleneckBlock(
                    norm_layer,
                    in_channels,
                    inner,
                    out_channels,
                    stride=2 if i > 0 and j == 0 else 1,
                    groups=groups,
                    shortcut=shortcut,
                    bias=bias,
                )
            )
            in_channels = out_channels
        stages.append(stage)
    return stages
