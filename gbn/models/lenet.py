"""LeNet-5 with a norm and a ReLU after each hidden layer (LeCun, Bottou, Bengio, Haffner 1998).

This is the usual modern version: max-pooling instead of the trainable subsampling, ReLU instead of tanh, a fully
connected third layer instead of the partially connected one, a linear layer instead of the Gaussian connections. At
28x28 and width 1 it has this version's well-known 61,706 weights and biases, if its layers keep their biases.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from gbn.models.interface import ConvNorm, LinearNorm, NormLayer, needs_bias, scaled


class LeNet(nn.Module):
    """conv 5x5 x6, pool, conv 5x5 x16, pool, 120, 84, classes; for images of 16x16 or more.

    Images smaller than 32x32 are first padded by 2 on each side, as in the paper, where 28x28 becomes 32x32.

    Args:
        norm_layer: see :mod:`gbn.models.interface`.
        in_channels: channels of the images.
        num_classes: number of logits.
        image_size: side of the square images, at least 16.
        width: multiplies the channels and the hidden units.
        bias: whether hidden layers have a bias; "auto": only if the norm has none.

    Raises:
        ValueError: images too small for two 5x5 convolutions with pooling.
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
        if image_size < 16:
            raise ValueError(
                f"LeNet needs images of at least 16x16, {image_size}x{image_size} was given: "
                "use cnn, resnet or mlp"
            )
        bias = needs_bias(norm_layer, bias)
        channels1, channels2, hidden1, hidden2 = (scaled(units, width) for units in (6, 16, 120, 84))
        padding = 2 if image_size < 32 else 0
        side = ((image_size + 2 * padding - 4) // 2 - 4) // 2
        self.layer1 = ConvNorm(norm_layer, in_channels, channels1, 5, padding=padding, bias=bias, role="stem")
        self.layer2 = ConvNorm(norm_layer, channels1, channels2, 5, padding=0, bias=bias)
        self.layer3 = LinearNorm(norm_layer, channels2 * side**2, hidden1, bias=bias)
        self.layer4 = LinearNorm(norm_layer, hidden1, hidden2, bias=bias)
        self.head = nn.Linear(hidden2, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, image_size, image_size) to logits (N, num_classes)."""
        x = F.max_pool2d(self.layer1(x), 2)
        x = F.max_pool2d(self.layer2(x), 2)
        return self.head(self.layer4(self.layer3(x.flatten(1))))
