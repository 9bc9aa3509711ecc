"""Inception-V3 (Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, CVPR 2016, arXiv 1512.00567), as torchvision builds it.

With 1,000 classes and 299x299 images it has torchvision's 23,834,568 parameters, 27,161,264 with the auxiliary head,
and computes the same function as torchvision's. The modules have torchvision's names (``Mixed_5b.branch5x5_2.conv``),
except for the norms (``norm``, not ``bn``) and the classifier (``head``, not ``fc``), so a pattern such as
``Mixed_6*`` in ``norm.placement.pattern`` uses the names of the literature. torchvision's norms have an eps of 0.001;
here ``norm.eps`` applies, as everywhere. Initial values are those of all our networks (:mod:`gbn.models.initialize`).

Images smaller than 75x75, the minimum of torchvision's stem, get a stem of their own: the same five convolutions,
padded, without strides and pools. At 32x32 the three groups of blocks then work on maps of side 32, 15 and 7, where
the original has 35, 17 and 8. This adaptation is ours: it is not known how Mixture Normalization (Kalayeh, Shah 2019)
adapted Inception-V3 to CIFAR.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gbn.models.interface import ConvNorm, Kernel, NormLayer, Role, needs_bias, scaled

SMALLEST = 7  # leaves one pixel after the two blocks that halve the maps
SMALLEST_WITH_STRIDES = 75
SMALLEST_WITH_AUX = 299
LAST_BEFORE_AUX = "Mixed_6e"

Pool = Literal["average", "max"]
Branch = Sequence[tuple[int, Sequence[Kernel]]]
"""Consecutive convolutions, each (channels, [kernel]); two kernels are two convolutions of the same input."""

#: Name -> channels, kernel; stride, padding and whether a max-pool follows, for images of 75x75 or more.
STEM = {
    "Conv2d_1a_3x3": (32, 3, 2, 0, False),
    "Conv2d_2a_3x3": (32, 3, 1, 0, False),
    "Conv2d_2b_3x3": (64, 3, 1, 1, True),
    "Conv2d_3b_1x1": (80, 1, 1, 0, False),
    "Conv2d_4a_3x3": (192, 3, 1, 0, True),
}


def _a(pooled: int) -> tuple[Pool, dict[str, Branch]]:
    """Return the block of figure 5, with one branch's 5x5 left whole, as in all published code."""
    return "average", {
        "branch1x1": [(64, [1])],
        "branch5x5": [(48, [1]), (64, [5])],
        "branch3x3dbl": [(64, [1]), (96, [3]), (96, [3])],
        "branch_pool": [(pooled, [1])],
    }


def _b() -> tuple[Pool, dict[str, Branch]]:
    """Return the block of figure 10, which halves the maps."""
    return "max", {
        "branch3x3": [(384, [3])],
        "branch3x3dbl": [(64, [1]), (96, [3]), (96, [3])],
        "branch_pool": [],
    }


def _c(inner: int) -> tuple[Pool, dict[str, Branch]]:
    """Return the block of figure 6: 7x7 as 1x7 and 7x1."""
    across, down = (1, 7), (7, 1)
    return "average", {
        "branch1x1": [(192, [1])],
        "branch7x7": [(inner, [1]), (inner, [across]), (192, [down])],
        "branch7x7dbl": [(inner, [1]), (inner, [down]), (inner, [across]), (inner, [down]), (192, [across])],
        "branch_pool": [(192, [1])],
    }


def _d() -> tuple[Pool, dict[str, Branch]]:
    """Return the block that halves the maps a second time."""
    return "max", {
        "branch3x3": [(192, [1]), (320, [3])],
        "branch7x7x3": [(192, [1]), (192, [(1, 7)]), (192, [(7, 1)]), (192, [3])],
        "branch_pool": [],
    }


def _e() -> tuple[Pool, dict[str, Branch]]:
    """Return the block of figure 7: 1x3 and 3x1 in parallel."""
    fork = (384, [(1, 3), (3, 1)])
    return "average", {
        "branch1x1": [(320, [1])],
        "branch3x3": [(384, [1]), fork],
        "branch3x3dbl": [(448, [1]), (384, [3]), fork],
        "branch_pool": [(192, [1])],
    }


BLOCKS = {
    "Mixed_5b": _a(32),
    "Mixed_5c": _a(64),
    "Mixed_5d": _a(64),
    "Mixed_6a": _b(),
    "Mixed_6b": _c(128),
    "Mixed_6c": _c(160),
    "Mixed_6d": _c(160),
    "Mixed_6e": _c(192),
    "Mixed_7a": _d(),
    "Mixed_7b": _e(),
    "Mixed_7c": _e(),
}


class InceptionLogits(NamedTuple):
    """The outputs in training of a network with an auxiliary head: (N, num_classes) twice."""

    logits: Tensor
    auxiliary: Tensor


class Mixed(nn.Module):
    """Parallel branches whose outputs are concatenated over channels.

    (N, in_channels, H, W) -> (N, out_channels, H', W'): H' = H, or floor((H - 1) / 2) in a block that halves.

    Args:
        convolution: makes a convolution with its norm from (in_channels, out_channels, kernel, stride, padding);
            padding None keeps the size.
        in_channels: channels of the input.
        pool: ``average`` keeps the size; with ``max`` the last convolution of each branch halves it.
        branches: name -> branch; ``branch_pool`` follows the pool. The only convolution of a branch b is the
            module ``b``; several are ``b_1``, ``b_2``, ..., two of the same input ``b_2a`` and ``b_2b``.
        width: multiplies the branches' channels.
    """

    def __init__(
        self,
        convolution: Callable[[int, int, Kernel, int, int | None], nn.Module],
        in_channels: int,
        pool: Pool,
        branches: Mapping[str, Branch],
        *,
        width: float = 1.0,
    ) -> None:
        super().__init__()
        self.pool = pool
        self.paths: dict[str, list[list[str]]] = {name: [] for name in branches}
        self.out_channels = 0
        for branch, convolutions in branches.items():
            channels = in_channels
            for i, (full, kernels) in enumerate(convolutions, start=1):
                stride, padding = (2, 0) if pool == "max" and i == len(convolutions) else (1, None)
                stem = branch if len(convolutions) == 1 else f"{branch}_{i}"
                names = [stem] if len(kernels) == 1 else [f"{stem}{letter}" for letter in "ab"]
                for name, kernel in zip(names, kernels, strict=True):
                    self.add_module(name, convolution(channels, scaled(full, width), kernel, stride, padding))
                channels = scaled(full, width) * len(kernels)
                self.paths[branch].append(names)
            self.out_channels += channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H', W')."""
        outputs = []
        for branch, path in self.paths.items():
            y = self._pooled(x) if branch == "branch_pool" else x
            for names in path:
                parts = [self.get_submodule(name)(y) for name in names]
                y = parts[0] if len(parts) == 1 else torch.cat(parts, 1)  # torch.cat of one would copy it
            outputs.append(y)
        return torch.cat(outputs, 1)

    def _pooled(self, x: Tensor) -> Tensor:
        if self.pool == "max":
            return F.max_pool2d(x, 3, stride=2)
        return F.avg_pool2d(x, 3, stride=1, padding=1)


class Auxiliary(nn.Module):
    """The head on the maps of side 17, used only in training: (N, in_channels, H, W) -> (N, num_classes).

    Args:
        norm_layer: see :mod:`gbn.models.interface`.
        in_channels: channels of the maps, whose side is at least 17.
        num_classes: number of logits.
        width: multiplies the channels of its convolutions.
        bias: whether they have a bias.
    """

    def __init__(
        self, norm_layer: NormLayer, in_channels: int, num_classes: int, *, width: float, bias: bool
    ) -> None:
        super().__init__()
        inner, outer = scaled(128, width), scaled(768, width)
        self.conv0 = ConvNorm(norm_layer, in_channels, inner, 1, bias=bias)
        self.conv1 = ConvNorm(norm_layer, inner, outer, 5, padding=0, bias=bias)
        self.fc = nn.Linear(outer, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, num_classes)."""
        x = self.conv1(self.conv0(F.avg_pool2d(x, 5, stride=3)))
        return self.fc(x.mean((2, 3)))


class InceptionV3(nn.Module):
    """Inception-V3 for images of 7x7 or more; below 75x75 with the stem for small images.

    Args:
        norm_layer: see :mod:`gbn.models.interface`.
        in_channels: channels of the images.
        num_classes: number of logits.
        image_size: side of the square images, at least 7; 75 or more have the stem with strides and pools.
        width: multiplies all channels.
        dropout: fraction of the features before the classifier that are dropped in training, below 1.
        aux: whether there is an auxiliary head, which needs images of 299x299 or more. In training the network
            then returns :class:`InceptionLogits`, which no task of this project supports.
        bias: whether convolutions have a bias; "auto": only if the norm has none.

    Raises:
        ValueError: images too small for the network or for its auxiliary head, or a dropout outside [0, 1).
    """

    def __init__(
        self,
        norm_layer: NormLayer,
        in_channels: int,
        num_classes: int,
        image_size: int,
        *,
        width: float = 1.0,
        dropout: float = 0.5,
        aux: bool = False,
        bias: bool | Literal["auto"] = "auto",
    ) -> None:
        super().__init__()
        _check(image_size, dropout, aux)
        with_bias = needs_bias(norm_layer, bias)

        def convolution(
            channels: int, out: int, kernel: Kernel, stride: int, padding: int | None
        ) -> nn.Module:
            return ConvNorm(norm_layer, channels, out, kernel, stride=stride, padding=padding, bias=with_bias)

        self.strided = image_size >= SMALLEST_WITH_STRIDES
        channels = in_channels
        role: Role = "stem"
        for name, (full, kernel, stride, zeros, _) in STEM.items():
            self.add_module(
                name,
                ConvNorm(
                    norm_layer,
                    channels,
                    scaled(full, width),
                    kernel,
                    stride=stride if self.strided else 1,
                    padding=zeros if self.strided else None,
                    bias=with_bias,
                    role=role,
                ),
            )
            channels, role = scaled(full, width), "body"
        self.AuxLogits: nn.Module | None = None
        for name, (pool, branches) in BLOCKS.items():
            block = Mixed(convolution, channels, pool, branches, width=width)
            self.add_module(name, block)
            channels = block.out_channels
            if aux and name == LAST_BEFORE_AUX:
                self.AuxLogits = Auxiliary(norm_layer, channels, num_classes, width=width, bias=with_bias)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor | InceptionLogits:
        """Map (N, in_channels, H, W) to logits (N, num_classes); with the auxiliary head in training, both heads'."""
        for name, (*_, pooled) in STEM.items():
            x = self.get_submodule(name)(x)
            if pooled and self.strided:
                x = F.max_pool2d(x, 3, stride=2)
        auxiliary = None
        for name in BLOCKS:
            x = self.get_submodule(name)(x)
            if name == LAST_BEFORE_AUX and self.AuxLogits is not None and self.training:
                auxiliary = self.AuxLogits(x)
        logits = self.head(self.dropout(x.mean((2, 3))))
        return logits if auxiliary is None else InceptionLogits(logits, auxiliary)


def _check(image_size: int, dropout: float, aux: bool) -> None:
    if image_size < SMALLEST:
        raise ValueError(
            f"Inception-V3 needs images of at least {SMALLEST}x{SMALLEST}, {image_size}x{image_size} was given: "
            "use cnn, resnet or mlp"
        )
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1, {dropout} was given: torchvision has 0.5")
    if aux and image_size < SMALLEST_WITH_AUX:
        raise ValueError(
            f"the auxiliary head needs images of at least {SMALLEST_WITH_AUX}x{SMALLEST_WITH_AUX}, "
            f"{image_size}x{image_size} was given: leave aux=False"
        )
