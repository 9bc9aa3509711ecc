"""The parts that all networks share: the interface for norm layers, width scaling, convolution + norm.

A network takes ``norm_layer`` and knows nothing else about normalization: it calls
``norm_layer(num_features, act=..., dim=..., role=...)`` at each site and uses the result. ``act`` names the
activation that follows (the layer applies it, so that norm and activation can be one kernel) or is None if none
follows; ``dim`` is 1 for (N, C) features and 2 for (N, C, H, W); ``role`` says where in the network the site is,
for methods that are not used everywhere.
"""

from typing import Literal, Protocol

from torch import Tensor, nn

Role = Literal["stem", "body", "branch_end", "shortcut"]
"""stem: first layer; body: inside; branch_end: last norm of a residual branch; shortcut: on a projection."""


Kernel = int | tuple[int, int]
"""Side of a square kernel, or (height, width)."""


class NormLayer(Protocol):
    """Makes the module for one site of the network: normalization, then the activation, if there is one."""

    def __call__(
        self, num_features: int, act: str | None = "relu", dim: int = 2, role: Role = "body"
    ) -> nn.Module:
        """Return a module that keeps the shape of (N, num_features, ...) inputs."""
        ...


def needs_bias(norm_layer: NormLayer, bias: bool | Literal["auto"]) -> bool:
    """Return whether the layers before a norm keep a bias of their own.

    A norm subtracts a bias again, so "auto" means none, unless the factory has ``needs_bias = True`` (the method
    ``none``, where nothing else shifts the channel).
    """
    return bool(getattr(norm_layer, "needs_bias", False)) if bias == "auto" else bias


def scaled(channels: int, width: float) -> int:
    """Return ``channels * width`` to the nearest integer, at least 4 (or ``channels``, if that is less).

    Multiples of 8 are not enforced: width 1 is exactly the published network (LeNet has 6 channels), and the
    usual widths (1/2, 1/4, 2) give them anyway.

    Raises:
        ValueError: a width that is not positive.
    """
    if not width > 0:
        raise ValueError(f"width must be positive, {width} was given: 1.0 is the published network")
    return max(min(channels, 4), round(channels * width))


class ConvNorm(nn.Module):
    """Convolution, norm, activation; ``same`` padding for odd kernels at stride 1.

    (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride)) at the default padding.

    Args:
        norm_layer: makes the norm with its activation.
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel: side of the kernel or (height, width), odd.
        stride: stride of the convolution.
        padding: zeros on each side, in both directions; half the kernel in each if None.
        groups: groups of the convolution; must divide both numbers of channels.
        bias: whether the convolution has a bias.
        act: the activation after the norm, or None.
        role: the norm's role in the network.
    """

    def __init__(
        self,
        norm_layer: NormLayer,
        in_channels: int,
        out_channels: int,
        kernel: Kernel,
        *,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        bias: bool = False,
        act: str | None = "relu",
        role: Role = "body",
    ) -> None:
        super().__init__()
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        around = (height // 2, width // 2) if padding is None else (padding, padding)
        self.conv = nn.Conv2d(
            in_channels, out_channels, (height, width), stride, around, groups=groups, bias=bias
        )
        self.norm = norm_layer(out_channels, act=act, dim=2, role=role)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, H', W')."""
        return self.norm(self.conv(x))


class LinearNorm(nn.Module):
    """Linear layer, norm over the batch, activation: (N, in_features) -> (N, out_features)."""

    def __init__(self, norm_layer: NormLayer, in_features: int, out_features: int, *, bias: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, out_features, bias=bias)
        self.norm = norm_layer(out_features, act="relu", dim=1, role="body")

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_features) to (N, out_features)."""
        return self.norm(self.linear(x))
