"""The residual networks for small images: a 3x3 convolution, stages of blocks, global average pool, linear.

============================  =========================  =====================================================
network                       blocks                     source
============================  =========================  =====================================================
:class:`ResNet`               basic, depth 6n+2          He et al. 2016a, "Deep Residual Learning", section 4.2
:class:`ResNet18`             basic, 2 per stage         the same, section 4.1, with the CIFAR stem
:class:`ResNetBottleneck`     bottleneck, depth 9n+2     He et al. 2016b, "Identity Mappings", section 4
:class:`ResNeXt`              grouped, depth 9n+2        Xie et al. 2017, section 5.3
:class:`PreActResNet`         pre-activation, 6n+2       He et al. 2016b
:class:`PreActResNetBottleneck`  pre-activation, 9n+2    He et al. 2016b
============================  =========================  =====================================================

Every network takes images of any size; ``width`` multiplies its channels, and ``bias`` says whether the convolutions
before a norm have a bias ("auto": only if the norm has none).
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from gbn.models.interface import ConvNorm, NormLayer, needs_bias, scaled

Shortcut = Literal["A", "B"]
"""A: subsample, pad with zero channels, no parameters; B: 1x1 convolution (He et al. 2016a, section 3.3)."""

EXPANSION = 4
"""Ratio of a bottleneck's output channels to the channels of its 3x3 convolution."""


def check_shortcut(shortcut: str) -> None:
    """Raise ValueError for a shortcut other than A and B."""
    if shortcut not in ("A", "B"):
        raise ValueError(
            f"shortcut must be 'A' (zero padding) or 'B' (1x1 convolution), {shortcut!r} was given"
        )


def blocks_per_stage(depth: int) -> int:
    """Return the n of a 6n+2 network: n basic blocks of two convolutions in each of three stages, stem, classifier.

    Raises:
        ValueError: a depth that is not 6n+2 with n >= 1.
    """
    if depth < 8 or (depth - 2) % 6:
        raise ValueError(
            f"depth must be 6n+2 with n >= 1 (8, 14, 20, 26, 32, 44, 56, 110, ...), {depth} was given"
        )
    return (depth - 2) // 6


def bottlenecks_per_stage(depth: int) -> int:
    """Return the n of a 9n+2 network: n bottlenecks of three convolutions in each of three stages, stem, classifier.

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
        """Map (N, C, H, W) to (N, C + extra, ceil(H / stride), ceil(W / stride))."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.extra))

    def extra_repr(self) -> str:
        """Return the number of added channels and the stride."""
        return f"extra={self.extra}, stride={self.stride}"


def _shortcut(
    in_channels: int,
    out_channels: int,
    stride: int,
    shortcut: Shortcut,
    bias: bool,
    norm_layer: NormLayer | None = None,
) -> nn.Module:
    """Return the identity or, if the shape changes, option A or B, the latter with a norm if one is given."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    if shortcut == "A":
        return PadShortcut(in_channels, out_channels, stride)
    if norm_layer is None:
        return nn.Conv2d(in_channels, out_channels, 1, stride, bias=bias)
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
        self.shortcut = _shortcut(in_channels, out_channels, stride, shortcut, bias, norm_layer)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, ceil(H / stride), ceil(W / stride))."""
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
        self.shortcut = _shortcut(in_channels, out_channels, stride, shortcut, bias, norm_layer)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, ceil(H / stride), ceil(W / stride))."""
        return F.relu(self.layer3(self.layer2(self.layer1(x))) + self.shortcut(x))


class PreActBlock(nn.Module):
    """``conv(relu(norm(conv(relu(norm(x)))))) + shortcut``, 3x3 convolutions (He et al. 2016b).

    The shortcut is the identity of x; where the shape changes, option A pads x and option B is a 1x1
    convolution (without norm) of the first activation.

    Args:
        norm_layer: see :mod:`gbn.models.interface`.
        in_channels: channels of the input.
        out_channels: channels of the output.
        stride: stride of the first convolution.
        shortcut: what replaces the identity where the shape changes.
        activated: whether the input is activated already, so that the block has no first norm.
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
        activated: bool = False,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.norm: nn.Module = nn.Identity() if activated else norm_layer(in_channels, act="relu", dim=2)
        self.layer1 = ConvNorm(norm_layer, in_channels, out_channels, 3, stride=stride, bias=bias)
        self.conv = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=bias)
        self.shortcut = _shortcut(in_channels, out_channels, stride, shortcut, bias)
        self.projects = isinstance(self.shortcut, nn.Conv2d)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, ceil(H / stride), ceil(W / stride))."""
        activated = self.norm(x)
        return self.conv(self.layer1(activated)) + self.shortcut(activated if self.projects else x)


class PreActBottleneck(nn.Module):
    """``conv1x1(relu(norm(conv3x3(relu(norm(conv1x1(relu(norm(x))))))))) + shortcut`` (He et al. 2016b).

    The shortcut is that of :class:`PreActBlock`. The first 1x1 convolution has the stride, as in the authors' code
    (github.com/KaimingHe/resnet-1k-layers).

    Args:
        norm_layer: see :mod:`gbn.models.interface`.
        in_channels: channels of the input.
        inner: channels of the 3x3 convolution.
        out_channels: channels of the output.
        stride: stride of the first convolution.
        shortcut: what replaces the identity where the shape changes.
        activated: whether the input is activated already, so that the block has no first norm.
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
        shortcut: Shortcut = "B",
        activated: bool = False,
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.norm: nn.Module = nn.Identity() if activated else norm_layer(in_channels, act="relu", dim=2)
        self.layer1 = ConvNorm(norm_layer, in_channels, inner, 1, stride=stride, bias=bias)
        self.layer2 = ConvNorm(norm_layer, inner, inner, 3, bias=bias)
        self.conv = nn.Conv2d(inner, out_channels, 1, bias=bias)
        self.shortcut = _shortcut(in_channels, out_channels, stride, shortcut, bias)
        self.projects = isinstance(self.shortcut, nn.Conv2d)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C_in, H, W) to (N, C_out, ceil(H / stride), ceil(W / stride))."""
        activated = self.norm(x)
        branch = self.conv(self.layer2(self.layer1(activated)))
        return branch + self.shortcut(activated if self.projects else x)


class _Residual(nn.Module):
    """Stem, stages and head; in a pre-activation network a final norm and ReLU follow the stages.

    Args:
        norm_layer: see :mod:`gbn.models.interface`.
        in_channels: channels of the images.
        num_classes: number of logits.
        stem: channels of the first convolution.
        outputs: output channels of each stage.
        blocks: blocks per stage; every stage but the first halves the image in its first block.
        make: (stage, channels of the input, stride, whether the block is the network's first) -> a block.
        bias: whether the stem's convolution has a bias.
        last_norm: whether a norm and ReLU follow the last block.
    """

    def __init__(
        self,
        norm_layer: NormLayer,
        in_channels: int,
        num_classes: int,
        *,
        stem: int,
        outputs: Sequence[int],
        blocks: int,
        make: Callable[[int, int, int, bool], nn.Module],
        bias: bool,
        last_norm: bool = False,
    ) -> None:
        super().__init__()
        self.stem = ConvNorm(norm_layer, in_channels, stem, 3, bias=bias, role="stem")
        self.stages = nn.Sequential()
        channels = stem
        for i, out_channels in enumerate(outputs):
            stage = nn.Sequential()
            for j in range(blocks):
                stage.append(make(i, channels, 2 if i > 0 and j == 0 else 1, i == j == 0))
                channels = out_channels
            self.stages.append(stage)
        self.norm = norm_layer(channels, act="relu", dim=2, role="body") if last_norm else nn.Identity()
        self.head = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to logits (N, num_classes)."""
        return self.head(self.norm(self.stages(self.stem(x))).mean((2, 3)))


class ResNet(_Residual):
    """The CIFAR ResNet (He et al. 2016a): 16, 32, 64 channels; depth 20 has 0.27 million parameters.

    Args:
        norm_layer: see :mod:`gbn.models.interface`.
        in_channels: channels of the images.
        num_classes: number of logits.
        image_size: side of the square images (any; kept for the common signature).
        width: multiplies the channels.
        depth: 6n+2 with n >= 1.
        shortcut: "A" (zero padding, the paper's choice here) or "B" (1x1 convolution with norm).
        bias: see the module.

    Raises:
        ValueError: a depth that is not 6n+2, another shortcut.
    """

    def __init__(
        self,
        norm_layer: NormLayer,
        in_channels: int,
        num_classes: int,
        image_size: int,
        *,
        width: float = 1.0,
        depth: int = 20,
        shortcut: Shortcut = "A",
        bias: bool | Literal["auto"] = "auto",
    ) -> None:
        check_shortcut(shortcut)
        blocks, bias = blocks_per_stage(depth), needs_bias(norm_layer, bias)
        stem, *outputs = (scaled(channels, width) for channels in (16, 16, 32, 64))

        def make(stage: int, channels: int, stride: int, first: bool) -> nn.Module:
            return BasicBlock(
                norm_layer, channels, outputs[stage], stride=stride, shortcut=shortcut, bias=bias
            )

        super().__init__(
            norm_layer,
            in_channels,
            num_classes,
            stem=stem,
            outputs=outputs,
            blocks=blocks,
            make=make,
            bias=bias,
        )


class ResNet18(_Residual):
    """ResNet-18 with the CIFAR stem: 3x3 with stride 1 and no max-pool, the usual form for small images.

    Stages of two basic blocks with 64, 128, 256, 512 channels and option B shortcuts, as in the paper's ImageNet
    networks: 11.17 million parameters with ten classes.

    Args:
        norm_layer: see :mod:`gbn.models.interface`.
        in_channels: channels of the images.
        num_classes: number of logits.
        image_size: side of the square images (any; kept for the common signature).
        width: multiplies the channels.
        bias: see the module.
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
        bias = needs_bias(norm_layer, bias)
        stem, *outputs = (scaled(channels, width) for channels in (64, 64, 128, 256, 512))

        def make(stage: int, channels: int, stride: int, first: bool) -> nn.Module:
            return BasicBlock(norm_layer, channels, outputs[stage], stride=stride, shortcut="B", bias=bias)

        super().__init__(
            norm_layer, in_channels, num_classes, stem=stem, outputs=outputs, blocks=2, make=make, bias=bias
        )


class ResNetBottleneck(_Residual):
    """The CIFAR ResNet of bottleneck blocks: ResNet-164 (n = 18) has 1.70 million parameters.

    He et al. 2016b (section 4) built the CIFAR ResNet-164 from the bottlenecks of He et al. 2016a: 16, 32, 64
    channels inside the blocks of the three stages and four times as many at their ends. Details that the papers leave
    open follow the published code of Instance Enhancement Batch Normalization (github.com/gbup-group/IEBN): the 3x3
    convolution has the stride, and the shortcut is option B, with norm, wherever the shape changes, including the
    first stage (16 to 64 channels).

    The 24,224 parameters that IEBN adds to ResNet-164 agree: at two per channel they are 12,112 channels, the 16 of
    the stem and 672 n of the blocks at n = 18. So n = 18 (not the 27 of a 6n+2 network), and every norm of the stem
    and blocks is counted but the three of the shortcuts (448 channels) are not. Two things the count leaves open and
    the code settles: the kind of shortcut, and the order of norm and convolution (the norms of the pre-activation
    network also have 12,112 channels). Depths 20, 38, 56, 74, 92, 110, 164, ... are both 6n+2 and 9n+2, hence the
    separate model.

    Args:
        norm_layer: see :mod:`gbn.models.interface`.
        in_channels: channels of the images.
        num_classes: number of logits.
        image_size: side of the square images (any; kept for the common signature).
        width: multiplies the channels.
        depth: 9n+2 with n >= 1.
        shortcut: "A" (zero padding) or "B" (1x1 convolution with norm).
        bias: see the module.

    Raises:
        ValueError: a depth that is not 9n+2, another shortcut.
    """

    def __init__(
        self,
        norm_layer: NormLayer,
        in_channels: int,
        num_classes: int,
        image_size: int,
        *,
        width: float = 1.0,
        depth: int = 164,
        shortcut: Shortcut = "B",
        bias: bool | Literal["auto"] = "auto",
    ) -> None:
        check_shortcut(shortcut)
        blocks, bias = bottlenecks_per_stage(depth), needs_bias(norm_layer, bias)
        stem, *inner = (scaled(channels, width) for channels in (16, 16, 32, 64))
        outputs = [EXPANSION * channels for channels in inner]

        def make(stage: int, channels: int, stride: int, first: bool) -> nn.Module:
            sizes = channels, inner[stage], outputs[stage]
            return BottleneckBlock(norm_layer, *sizes, stride=stride, shortcut=shortcut, bias=bias)

        super().__init__(
            norm_layer,
            in_channels,
            num_classes,
            stem=stem,
            outputs=outputs,
            blocks=blocks,
            make=make,
            bias=bias,
        )


class ResNeXt(_Residual):
    """The CIFAR ResNeXt (Xie, Girshick, Dollar, Tu, He, CVPR 2017, section 5.3).

    A stem of 64 channels and three stages of bottlenecks with 256, 512, 1024 output channels. The 3x3 convolution
    inside has ``cardinality`` groups of ``base_width`` channels in the first stage, and each following stage doubles
    the channels per group. ResNeXt-29, 8x64d has 34.4 million parameters; 16x64d has 68.1 million.

    The blocks are the original ones (norm and ReLU after each convolution), with option B shortcuts, as in the
    authors' code (github.com/facebookresearch/ResNeXt). Its README says that the paper's own CIFAR numbers came from
    pre-activation blocks, and that the original ones are better.

    Args:
        norm_layer: see :mod:`gbn.models.interface`.
        in_channels: channels of the images.
        num_classes: number of logits.
        image_size: side of the square images (any; kept for the common signature).
        width: multiplies the stem's 64 channels, the stages' output channels, and the width of the groups (to the
            nearest integer, at least one channel per group); the cardinality is unchanged.
        depth: 9n+2 with n >= 1.
        cardinality: groups of each 3x3 convolution.
        base_width: channels per group in the first stage; the following stages have 2 and 4 times as many.
        bias: see the module.

    Raises:
        ValueError: a depth that is not 9n+2, or a cardinality or base width below 1.
    """

    def __init__(
        self,
        norm_layer: NormLayer,
        in_channels: int,
        num_classes: int,
        image_size: int,
        *,
        width: float = 1.0,
        depth: int = 29,
        cardinality: int = 8,
        base_width: int = 64,
        bias: bool | Literal["auto"] = "auto",
    ) -> None:
        for name, value in (("cardinality", cardinality), ("base_width", base_width)):
            if value < 1:
                raise ValueError(
                    f"{name} must be at least 1, {value} was given: 8 and 64 are the paper's 8x64d"
                )
        blocks, bias = bottlenecks_per_stage(depth), needs_bias(norm_layer, bias)
        stem = scaled(64, width)
        inner = [cardinality * max(1, round(base_width * factor * width)) for factor in (1, 2, 4)]
        outputs = [EXPANSION * scaled(64 * factor, width) for factor in (1, 2, 4)]

        def make(stage: int, channels: int, stride: int, first: bool) -> nn.Module:
            sizes = channels, inner[stage], outputs[stage]
            return BottleneckBlock(norm_layer, *sizes, stride=stride, groups=cardinality, bias=bias)

        super().__init__(
            norm_layer,
            in_channels,
            num_classes,
            stem=stem,
            outputs=outputs,
            blocks=blocks,
            make=make,
            bias=bias,
        )


class PreActResNet(_Residual):
    """The pre-activation CIFAR ResNet (He, Zhang, Ren, Sun, "Identity Mappings", ECCV 2016).

    Norm and ReLU come before each convolution, and the shortcut path has neither. As in the paper, the first block
    uses the stem's norm and ReLU, before its two paths split, and a final norm and ReLU follow the last block. So it
    has exactly as many norms as the ResNet of the same depth, and each is followed by an activation.

    Args:
        norm_layer: see :mod:`gbn.models.interface`.
        in_channels: channels of the images.
        num_classes: number of logits.
        image_size: side of the square images (any; kept for the common signature).
        width: multiplies the channels 16, 32, 64.
        depth: 6n+2 with n >= 1.
        shortcut: "A" (zero padding) or "B" (1x1 convolution).
        bias: see the module.

    Raises:
        ValueError: a depth that is not 6n+2, another shortcut.
    """

    def __init__(
        self,
        norm_layer: NormLayer,
        in_channels: int,
        num_classes: int,
        image_size: int,
        *,
        width: float = 1.0,
        depth: int = 20,
        shortcut: Shortcut = "A",
        bias: bool | Literal["auto"] = "auto",
    ) -> None:
        check_shortcut(shortcut)
        blocks, bias = blocks_per_stage(depth), needs_bias(norm_layer, bias)
        stem, *outputs = (scaled(channels, width) for channels in (16, 16, 32, 64))

        def make(stage: int, channels: int, stride: int, first: bool) -> nn.Module:
            return PreActBlock(
                norm_layer,
                channels,
                outputs[stage],
                stride=stride,
                shortcut=shortcut,
                activated=first,
                bias=bias,
            )

        super().__init__(
            norm_layer,
            in_channels,
            num_classes,
            stem=stem,
            outputs=outputs,
            blocks=blocks,
            make=make,
            bias=bias,
            last_norm=True,
        )


class PreActResNetBottleneck(_Residual):
    """The pre-activation CIFAR ResNet of bottleneck blocks (He, Zhang, Ren, Sun, "Identity Mappings", ECCV 2016).

    PreResNet-164 (n = 18) has 1.70 million parameters, ResNet-1001 (n = 111) 10.3 million. The details are those of
    the authors' code (github.com/KaimingHe/resnet-1k-layers).

    Args:
        norm_layer: see :mod:`gbn.models.interface`.
        in_channels: channels of the images.
        num_classes: number of logits.
        image_size: side of the square images (any; kept for the common signature).
        width: multiplies the channels 16, 32, 64 (a stage has four times as many output channels).
        depth: 9n+2 with n >= 1.
        shortcut: "A" (zero padding) or "B" (1x1 convolution).
        bias: see the module.

    Raises:
        ValueError: a depth that is not 9n+2, another shortcut.
    """

    def __init__(
        self,
        norm_layer: NormLayer,
        in_channels: int,
        num_classes: int,
        image_size: int,
        *,
        width: float = 1.0,
        depth: int = 164,
        shortcut: Shortcut = "B",
        bias: bool | Literal["auto"] = "auto",
    ) -> None:
        check_shortcut(shortcut)
        blocks, bias = bottlenecks_per_stage(depth), needs_bias(norm_layer, bias)
        stem, *inner = (scaled(channels, width) for channels in (16, 16, 32, 64))
        outputs = [EXPANSION * channels for channels in inner]

        def make(stage: int, channels: int, stride: int, first: bool) -> nn.Module:
            sizes = channels, inner[stage], outputs[stage]
            return PreActBottleneck(
                norm_layer, *sizes, stride=stride, shortcut=shortcut, activated=first, bias=bias
            )

        super().__init__(
            norm_layer,
            in_channels,
            num_classes,
            stem=stem,
            outputs=outputs,
            blocks=blocks,
            make=make,
            bias=bias,
            last_norm=True,
        )
