"""The pieces that residual networks share: the basic block and the shortcuts where the shape changes."""

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
        self.shortcut: nn.Module
        if stride == 1 and in_channels == out_channels:
            self.shortcut = nn.Identity()
        elif shortcut == "A":
            self.shortcut = PadShortcut(in_channels, out_channels, stride)
        else:
            self.shortcut = ConvNorm(
                norm_layer, in_channels, out_channels, 1, stride=stride, bias=bias, act=None, role="shortcut"
            )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, ceil(H / stride), ceil(W / stride))."""
        return F.relu(self.layer2(self.layer1(x)) + self.shortcut(x))
