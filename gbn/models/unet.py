"""The U-Net (Ronneberger, Fischer, Brox, MICCAI 2015, arXiv 1505.04597) as in the reconstruction of BNU-Net.

Each level has two 3x3 convolutions, each with norm and activation, with 64, 128, 256, 512 channels; 2x2 max-pools
lead down to 1024. On the way up, a 2x2 transposed convolution with stride 2, without norm or activation, is
concatenated with the level's own features, and two convolutions follow; a 1x1 convolution gives one logit per
structure. Convolutions are padded, so that the masks have the size of the images. BNU-Net (Chu et al., BIBE 2019)
states a norm after each convolution and ELU, compared with no norm and ReLU; all numbers are the reconstruction's.

With one input channel, one output channel and a bias in every convolution: 31,030,593 parameters, and 11,776 more
with BN.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gbn.models.interface import ConvNorm, NormLayer, Role, needs_bias, scaled

BASE = 64  # channels of the first level at width 1


def _double(
    norm_layer: NormLayer, in_channels: int, channels: int, act: str, bias: bool, role: Role = "body"
) -> nn.Sequential:
    """Return two convolutions with norm and activation; ``role`` is that of the first norm."""
    return nn.Sequential(
        ConvNorm(norm_layer, in_channels, channels, 3, bias=bias, act=act, role=role),
        ConvNorm(norm_layer, channels, channels, 3, bias=bias, act=act),
    )


class UNet(nn.Module):
    """U-Net that returns the logits of masks, one channel per structure, for images of any size.

    Sides that are not a multiple of ``2 ** depth`` are padded by repeating the edge, evenly on both sides, and the
    logits are cropped back.

    Args:
        norm_layer: see :mod:`gbn.models.interface`.
        in_channels: channels of the images.
        num_classes: number of structures, each with its own logit.
        image_size: side of the square images (any; kept for the common signature).
        width: multiplies all channels; 1/8 is f = 8.
        depth: how many times the image is halved.
        activation: after each norm, "relu" or "elu"; the norm layer applies it.
        bias: whether the 3x3 convolutions have a bias; "auto": only if the norm has none. Transposed convolutions
            and the head, which are not followed by a norm, always have one.

    Raises:
        ValueError: a depth below 1, another activation.
    """

    def __init__(
        self,
        norm_layer: NormLayer,
        in_channels: int,
        num_classes: int,
        image_size: int,
        *,
        width: float = 1.0,
        depth: int = 4,
        activation: Literal["relu", "elu"] = "elu",
        bias: bool | Literal["auto"] = "auto",
    ) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(
                f"depth must be at least 1, {depth} was given: the paper's network halves 4 times"
            )
        if activation not in ("relu", "elu"):
            raise ValueError(f"activation must be 'relu' or 'elu', {activation!r} was given")
        bias = needs_bias(norm_layer, bias)
        self.multiple = 2**depth
        channels = [scaled(BASE * 2**level, width) for level in range(depth + 1)]
        self.down = nn.ModuleList()
        for level, own in enumerate(channels):
            before, role = (channels[level - 1], "body") if level else (in_channels, "stem")
            self.down.append(_double(norm_layer, before, own, activation, bias, role))  # type: ignore[arg-type]
        self.up = nn.ModuleList()
        self.merge = nn.ModuleList()
        for below, own in zip(channels[:0:-1], channels[-2::-1], strict=True):
            self.up.append(nn.ConvTranspose2d(below, own, 2, stride=2))
            self.merge.append(_double(norm_layer, 2 * own, own, activation, bias))
        self.head = nn.Conv2d(channels[0], num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to logits (N, num_classes, H, W)."""
        height, width = x.shape[2:]
        x, (top, left) = self._padded(x)
        kept = []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else F.max_pool2d(x, 2))
            kept.append(x)
        for up, merge, own in zip(self.up, self.merge, kept[-2::-1], strict=True):
            x = merge(torch.cat((own, up(x)), 1))
        return self.head(x)[:, :, top : top + height, left : left + width]

    def _padded(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return the input padded to a size that halves evenly, and the padding at the top and on the left."""
        rows, columns = (-size % self.multiple for size in x.shape[2:])
        top, left = rows // 2, columns // 2
        if rows or columns:
            x = F.pad(x, (left, columns - left, top, rows - top), mode="replicate")
        return x, (top, left)
