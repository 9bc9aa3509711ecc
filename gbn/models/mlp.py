"""A fully connected network: the smallest setting in which to study a norm, and the fastest to train."""

from typing import Literal

from torch import Tensor, nn

from gbn.models.interface import LinearNorm, NormLayer, needs_bias, scaled


class MLP(nn.Module):
    """``depth`` hidden layers of ``256 * width`` units, each linear, norm, ReLU; then a linear classifier.

    Args:
        norm_layer: see :mod:`gbn.models.interface`.
        in_channels: channels of the images.
        num_classes: number of logits.
        image_size: side of the square images.
        width: multiplies the 256 hidden units.
        depth: number of hidden layers, at least 1.
        bias: whether hidden layers have a bias; "auto": only if the norm has none.

    Raises:
        ValueError: a depth below 1.
    """

    def __init__(
        self,
        norm_layer: NormLayer,
        in_channels: int,
        num_classes: int,
        image_size: int,
        *,
        width: float = 1.0,
        depth: int = 3,
        bias: bool | Literal["auto"] = "auto",
    ) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"depth counts the hidden layers and must be at least 1, {depth} was given")
        bias = needs_bias(norm_layer, bias)
        hidden = scaled(256, width)
        sizes = [in_channels * image_size**2] + [hidden] * depth
        self.layers = nn.Sequential(
            *(LinearNorm(norm_layer, sizes[i], sizes[i + 1], bias=bias) for i in range(depth))
        )
        self.head = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, image_size, image_size) to logits (N, num_classes)."""
        return self.head(self.layers(x.flatten(1)))
