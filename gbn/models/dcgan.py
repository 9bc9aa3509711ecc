"""DCGAN for 32x32 images (Radford, Metz, Chintala, ICLR 2016, arXiv 1511.06434): the 64x64 network less one level.

Generator: latents (N, 100) projected to 512 x 4 x 4, then 256 x 8 x 8, 128 x 16 x 16 and the image, by transposed
convolutions 4x4/2 with norm and ReLU between them, and tanh at the end. Discriminator, its mirror image: 128 x 16 x
16, 256 x 8 x 8, 512 x 4 x 4, one logit, by convolutions 4x4/2 with norm and LeakyReLU(0.2) between them. As in the
paper, the generator's output and the discriminator's input have no norm.

The projection is normalized per channel over its 4 x 4 positions, as is usual today (the authors' code has a gain and
statistics for each of its 8,192 units). Initial weights are N(0, 0.02) as in the paper; gains start at the norm's own
initial value (BatchNorm: 1, a control: 1/c) and are not drawn from N(1, 0.02) around it, since a norm's initial
values are part of the arm.

Norms have the module paths ``generator.layers.0.norm`` to ``.2.norm`` and ``discriminator.layers.1.norm`` and
``.2.norm``. So ``norm.placement.pattern=[generator.*]`` uses a method in the generator only, with BatchNorm
elsewhere (``norm.placement.otherwise``), and a single path uses it in one layer.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gbn.models.interface import NormLayer, needs_bias, scaled

#: Channels at 16x16, 8x8 and 4x4.
CHANNELS = (128, 256, 512)

#: Slope of LeakyReLU below zero.
SLOPE = 0.2

SIZE = 32


class _Up(nn.Module):
    """Transposed convolution 4x4, norm, ReLU: (N, C, H, W) -> (N, out_channels, 2H, 2W), 1x1 to 4x4 at stride 1."""

    def __init__(
        self, norm_layer: NormLayer, in_channels: int, out_channels: int, *, stride: int, bias: bool
    ) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(in_channels, out_channels, 4, stride, stride // 2, bias=bias)
        self.norm = norm_layer(out_channels, act="relu", dim=2, role="body")

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps one level up."""
        return self.norm(self.conv(x))


class _Down(nn.Module):
    """Convolution 4x4/2, norm (none at the image), LeakyReLU(0.2): (N, C, H, W) -> (N, out_channels, H/2, W/2).

    Norm layers apply LeakyReLU with its default slope of 0.01, so the network applies its own and requests norms
    without activation.
    """

    def __init__(
        self, norm_layer: NormLayer | None, in_channels: int, out_channels: int, *, bias: bool
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 4, 2, 1, bias=bias)
        self.norm = None if norm_layer is None else norm_layer(out_channels, act=None, dim=2, role="body")

    def forward(self, x: Tensor) -> Tensor:
        """Return the maps one level down."""
        x = self.conv(x)
        return F.leaky_relu(x if self.norm is None else self.norm(x), SLOPE)


class Generator(nn.Module):
    """Latents (N, latent) -> images (N, channels, 32, 32) in [-1, 1].

    Args:
        norm_layer: see :mod:`gbn.models.interface`.
        latent: size of a latent vector.
        channels: of the images.
        width: multiplies :data:`CHANNELS`.
        bias: whether layers before a norm have a bias; "auto": only if the norm has none.
    """

    def __init__(
        self,
        norm_layer: NormLayer,
        latent: int = 100,
        channels: int = 3,
        *,
        width: float = 1.0,
        bias: bool | Literal["auto"] = "auto",
    ) -> None:
        super().__init__()
        bias = needs_bias(norm_layer, bias)
        c16, c8, c4 = (scaled(c, width) for c in CHANNELS)
        self.latent = latent
        self.layers = nn.Sequential(
            _Up(norm_layer, latent, c4, stride=1, bias=bias),
            _Up(norm_layer, c4, c8, stride=2, bias=bias),
            _Up(norm_layer, c8, c16, stride=2, bias=bias),
        )
        self.output = nn.ConvTranspose2d(c16, channels, 4, 2, 1)

    def forward(self, latents: Tensor) -> Tensor:
        """Map (N, latent) to (N, channels, 32, 32)."""
        return torch.tanh(self.output(self.layers(latents[:, :, None, None])))


class Discriminator(nn.Module):
    """Images (N, channels, 32, 32) -> logits (N,), positive for real.

    Args:
        norm_layer: see :mod:`gbn.models.interface`.
        channels: of the images.
        width: multiplies :data:`CHANNELS`.
        bias: whether layers before a norm have a bias; "auto": only if the norm has none.
    """

    def __init__(
        self,
        norm_layer: NormLayer,
        channels: int = 3,
        *,
        width: float = 1.0,
        bias: bool | Literal["auto"] = "auto",
    ) -> None:
        super().__init__()
        bias = needs_bias(norm_layer, bias)
        c16, c8, c4 = (scaled(c, width) for c in CHANNELS)
        self.layers = nn.Sequential(
            _Down(None, channels, c16, bias=True),
            _Down(norm_layer, c16, c8, bias=bias),
            _Down(norm_layer, c8, c4, bias=bias),
        )
        self.output = nn.Conv2d(c4, 1, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, channels, 32, 32) to (N,)."""
        return self.output(self.layers(x)).flatten()


class DCGAN(nn.Module):
    """The generator and the discriminator; latents pass through both.

    Args:
        norm_layer: for both networks; use its placement to restrict a method to one of them.
        in_channels: channels of the images.
        num_classes: kept for the common signature; images are generated without labels.
        image_size: side of the images, 32.
        width: multiplies all channels.
        latent: size of a latent vector.
        bias: whether layers before a norm have a bias; "auto": only if the norm has none.

    Raises:
        ValueError: images of another size, or a latent size below 1.
    """

    #: Standard deviation of the initial weights, see :func:`gbn.models.initialize`.
    initial_std = 0.02

    def __init__(
        self,
        norm_layer: NormLayer,
        in_channels: int,
        num_classes: int,
        image_size: int,
        *,
        width: float = 1.0,
        latent: int = 100,
        bias: bool | Literal["auto"] = "auto",
    ) -> None:
        super().__init__()
        if image_size != SIZE:
            raise ValueError(
                f"DCGAN makes images of {SIZE}x{SIZE}, {image_size}x{image_size} was given: "
                "use cifar10, cifar100 or svhn"
            )
        if latent < 1:
            raise ValueError(f"latent must be at least 1, {latent} was given: 100 is the paper's")
        self.generator = Generator(norm_layer, latent, in_channels, width=width, bias=bias)
        self.discriminator = Discriminator(norm_layer, in_channels, width=width, bias=bias)

    def forward(self, latents: Tensor) -> Tensor:
        """Map latents (N, latent) to the discriminator's logits of their images (N,)."""
        return self.discriminator(self.generator(latents))
