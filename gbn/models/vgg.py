"""VGG-16 for 32x32 images (Simonyan, Zisserman 2015, configuration D, with a norm after each convolution).

The usual CIFAR form: thirteen 3x3 convolutions, five max-pools down to one pixel, and one linear classifier
instead of the three fully connected layers; 14.72 million parameters with ten classes.
"""

from typing import Literal

from torch import Tensor, nn

from gbn.models.interface import ConvNorm, NormLayer, Role, needs_bias, scaled

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG(nn.Module):
    """VGG-16 for images of 32x32 or more (what is left after five poolings is averaged).

    Args:
        norm_layer: see :mod:`gbn.models.interface`.
        in_channels: channels of the images.
        num_classes: number of logits.
        image_size: side of the square images, at least 32.
        width: multiplies all channels.
        bias: whether convolutions have a bias; "auto": only if the norm has none.

    Raises:
        ValueError: images too small for five poolings.
    """

    def __init__(
        self,
        norm_layer: NormLayer,
        in_channels: int,
        num_classes: int,
        image_size: int,
        *,
        width: float = 1.0,
        bias: bool | Literal["auto"] = "auto",
    ) -> None:
        super().__init__()
        if image_size < 32:
            raise ValueError(
                f"VGG-16 needs images of at least 32x32, {image_size}x{image_size} was given: "
                "use cnn, resnet or mlp"
            )
        bias = needs_bias(norm_layer, bias)
        self.stages = nn.Sequential()
        channels = in_channels
        for i, stage in enumerate(STAGES):
            layers = nn.Sequential()
            for j, full in enumerate(stage):
                role: Role = "stem" if i == j == 0 else "body"
                layers.append(ConvNorm(norm_layer, channels, scaled(full, width), 3, bias=bias, role=role))
                channels = scaled(full, width)
            layers.append(nn.MaxPool2d(2))
            self.stages.append(layers)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to logits (N, num_classes)."""
        return self.head(self.stages(x).mean((2, 3)))
