"""Networks whose only knowledge of normalization is the argument ``norm_layer``: one file per family.

``build("resnet", norm_layer, in_channels=3, num_classes=10, image_size=32, depth=20)`` builds one;
:func:`initialize` gives it the initial values of a seed.
"""

import inspect
from typing import Any

from torch import nn

from gbn.models.cnn import CNN
from gbn.models.custom import build_custom
from gbn.models.dcgan import DCGAN
from gbn.models.densenet import DenseNet
from gbn.models.inception_v3 import InceptionV3
from gbn.models.initialize import initialize
from gbn.models.interface import NormLayer, Role
from gbn.models.lenet import LeNet
from gbn.models.mlp import MLP
from gbn.models.resnet import (
    PreActResNet,
    PreActResNetBottleneck,
    ResNet,
    ResNet18,
    ResNetBottleneck,
    ResNeXt,
)
from gbn.models.unet import UNet
from gbn.models.vgg import VGG
from gbn.suggest import did_you_mean

__all__ = ["MODELS", "OF_OTHER_TASKS", "NormLayer", "Role", "build", "initialize"]

MODELS: dict[str, type[nn.Module]] = {
    "cnn": CNN,
    "densenet": DenseNet,
    "inception_v3": InceptionV3,
    "lenet": LeNet,
    "mlp": MLP,
    "preact_resnet": PreActResNet,
    "preact_resnet_bottleneck": PreActResNetBottleneck,
    "resnet": ResNet,
    "resnet18": ResNet18,
    "resnet_bottleneck": ResNetBottleneck,
    "resnext": ResNeXt,
    "vgg": VGG,
}
"""Name in the configuration -> class. A network added here is covered by the shared tests of the models."""


OF_OTHER_TASKS: dict[str, type[nn.Module]] = {"dcgan": DCGAN, "unet": UNet}
"""The networks for tasks other than classification, which do not map images to logits of classes."""


def build(name: str, norm_layer: NormLayer, **options: Any) -> nn.Module:
    """Return the network ``name`` with the given norms.

    Args:
        name: a key of :data:`MODELS` or :data:`OF_OTHER_TASKS`, or ``custom``.
        norm_layer: makes the norm at each site, see :mod:`gbn.models.interface`.
        **options: ``in_channels``, ``num_classes``, ``image_size`` and the network's own options
            (``width``, ``depth``, ...); for ``custom`` see :func:`gbn.models.custom.build_custom`.

    Raises:
        ValueError: an unknown name or option, or a value that the network rejects.
    """
    if name == "custom":
        return build_custom(norm_layer, **options)
    networks = MODELS | OF_OTHER_TASKS
    if name not in networks:
        names = sorted([*networks, "custom"])
        raise ValueError(f"unknown model {name!r}{did_you_mean(name, names)}; allowed: {', '.join(names)}")
    allowed = [option for option in inspect.signature(networks[name]).parameters if option != "norm_layer"]
    for option in options:
        if option not in allowed:
            raise ValueError(
                f"model {name!r} has no option {option!r}{did_you_mean(option, allowed)}; "
                f"allowed: {', '.join(allowed)}"
            )
    return networks[name](norm_layer, **options)
