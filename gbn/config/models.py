"""The schema of the group ``model``: one class per network of :data:`gbn.models.MODELS`, its depths and image sizes.

The networks check their options again (they can be used without a configuration); here a wrong depth or image size is
rejected before torch is imported.
"""

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from gbn.config.custom import CustomSection
from gbn.config.datasets import Shape
from gbn.config.section import Count, Depth, Section, Width
from gbn.targets import MODEL, Kind


class _Model(Section):
    """A network.

    Attributes:
        task: the task that it is for.
        smallest: side of the smallest images that it takes.
        one_value_up_to: side of the largest images of which some norm sees a single value per channel, so that
            norm=instance cannot normalize it; 0 if there are none.
    """

    task: ClassVar[str] = "classification"
    smallest: ClassVar[int] = 8
    one_value_up_to: ClassVar[float] = 0
    revision: Count
    width: Width = 1.0


class LeNetConfig(_Model):
    """LeNet-5 with a normalizer after each hidden layer."""

    smallest = 16
    one_value_up_to = math.inf
    name: Literal["lenet"]


class MLPConfig(_Model):
    """Fully connected network."""

    one_value_up_to = math.inf
    name: Literal["mlp"]
    depth: Depth = 3


class CNNConfig(_Model):
    """The five-layer CNN of Mixture Normalization."""

    one_value_up_to = 8
    name: Literal["cnn"]
    last_kernel: Literal[3, 5] = 3


class _SixNPlusTwo(_Model):
    depth: Depth = 20

    @field_validator("depth")
    @classmethod
    def _whole_blocks(cls, depth: int) -> int:
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(
                f"depth must be 6n+2 with n >= 1: 8, 14, 20, 26, 32, 44, 56, 110, ..., model.depth={depth} was "
                "given (9n+2 belongs to bottleneck blocks: model=resnet_bottleneck, preact_resnet_bottleneck)"
            )
        return depth


class ResNetConfig(_SixNPlusTwo):
    """CIFAR ResNet (He et al. 2016a), depth 6n+2."""

    name: Literal["resnet"]
    shortcut: Literal["A", "B"] = "A"


class PreActResNetConfig(_SixNPlusTwo):
    """Pre-activation CIFAR ResNet (He et al. 2016b), depth 6n+2."""

    name: Literal["preact_resnet"]
    shortcut: Literal["A", "B"] = "A"


class _NineNPlusTwo(_Model):
    depth: Depth

    @field_validator("depth")
    @classmethod
    def _whole_bottlenecks(cls, depth: int) -> int:
        if depth < 11 or (depth - 2) % 9:
            raise ValueError(
                "depth must be 9n+2 with n >= 1: 11, 20, 29, 38, 47, 56, 110, 164, ..., "
                f"model.depth={depth} was given"
            )
        return depth


class ResNetBottleneckConfig(_NineNPlusTwo):
    """CIFAR ResNet with bottleneck blocks (ResNet-164 of He et al. 2016b), depth 9n+2."""

    name: Literal["resnet_bottleneck"]
    depth: Depth = 164
    shortcut: Literal["A", "B"] = "B"


class PreActResNetBottleneckConfig(_NineNPlusTwo):
    """Pre-activation CIFAR ResNet with bottleneck blocks (He et al. 2016b), depth 9n+2."""

    name: Literal["preact_resnet_bottleneck"]
    depth: Depth = 164
    shortcut: Literal["A", "B"] = "B"


class ResNeXtConfig(_NineNPlusTwo):
    """CIFAR ResNeXt (Xie et al. 2017), depth 9n+2."""

    name: Literal["resnext"]
    depth: Depth = 29
    cardinality: Count = 8
    base_width: Count = 64


class DenseNetConfig(_Model):
    """CIFAR DenseNet (Huang et al. 2017), depth 6n+4 with bottlenecks and 3n+4 without."""

    name: Literal["densenet"]
    depth: Depth = 100
    growth_rate: Count = 12
    bottleneck: bool = True
    compression: Annotated[float, Field(gt=0, le=1)] = 0.5

    @model_validator(mode="after")
    def _whole_layers(self) -> "DenseNetConfig":
        form, each, some = "6n+4", 6, "10, 16, 22, 28, 40, 100, 190, 250"
        if not self.bottleneck:
            form, each, some = "3n+4", 3, "7, 10, 13, 22, 40, 100"
        if self.depth < each + 4 or (self.depth - 4) % each:
            raise ValueError(
                f"depth must be {form} with n >= 1 where model.bottleneck={str(self.bottleneck).lower()}: "
                f"{some}, ..., model.depth={self.depth} was given"
            )
        return self


class InceptionV3Config(_Model):
    """Inception-V3 (Szegedy et al. 2016); images under 75x75 get a stem for small images."""

    one_value_up_to = 8
    name: Literal["inception_v3"]
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    aux: bool = False


class ResNet18Config(_Model):
    """ResNet-18 with the CIFAR stem."""

    one_value_up_to = 8
    name: Literal["resnet18"]


class VGGConfig(_Model):
    """VGG-16 for 32x32 images."""

    smallest = 32
    name: Literal["vgg"]


class DCGANConfig(_Model):
    """DCGAN's generator and discriminator for color images of 32x32."""

    task = "generation"
    makes: ClassVar[Shape] = Shape(32, 3)
    name: Literal["dcgan"]
    latent: Count = 100


class UNetConfig(_Model):
    """U-Net of BNU-Net's reconstruction, for segmentation."""

    task = "segmentation"
    name: Literal["unet"]
    depth: Annotated[int, Field(ge=1, le=12)] = 4
    activation: Literal["relu", "elu"] = "elu"


class CustomModelConfig(CustomSection):
    """A network of another package, which takes norm_layer; it classifies."""

    task: ClassVar[str] = "classification"
    smallest: ClassVar[int] = 1
    one_value_up_to: ClassVar[float] = 0
    group: ClassVar[str] = "model"
    kind: ClassVar[Kind] = MODEL
    name: Literal["custom"]
    revision: Count


ModelConfig = (
    LeNetConfig
    | MLPConfig
    | CNNConfig
    | ResNetConfig
    | PreActResNetConfig
    | ResNet18Config
    | ResNetBottleneckConfig
    | PreActResNetBottleneckConfig
    | ResNeXtConfig
    | DenseNetConfig
    | InceptionV3Config
    | VGGConfig
    | DCGANConfig
    | UNetConfig
    | CustomModelConfig
)
