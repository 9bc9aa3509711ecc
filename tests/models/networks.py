"""What the tests of the networks share: norms that remember where they stand, counting, small versions."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gbn.models import build

COMMON = {"in_channels": 3, "num_classes": 10, "image_size": 32}

#: Options under which a network runs in a moment; the others do so as they are.
SMALL = {
    "densenet": {"depth": 10},
    "inception_v3": {"width": 0.0625},
    "preact_resnet_bottleneck": {"depth": 11},
    "resnet18": {"width": 0.125},
    "resnet_bottleneck": {"depth": 11},
    "resnext": {"depth": 11, "width": 0.125},
    "vgg": {"width": 0.125},
}


class RecordingNorms:
    """BatchNorm and ReLU; remembers what it was asked for."""

    def __init__(self, needs_bias=False):
        self.calls = []
        self.needs_bias = needs_bias

    def __call__(self, num_features, act="relu", dim=2, role="body"):
        self.calls.append({"num_features": num_features, "act": act, "dim": dim, "role": role})
        norm = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}[dim](num_features)
        return nn.Sequential(norm, nn.ReLU()) if act == "relu" else norm

    def channels(self, *roles):
        """Channels of all norms in these roles together; of all norms if none is given."""
        return sum(call["num_features"] for call in self.calls if not roles or call["role"] in roles)


@dataclass(frozen=True)
class Network:
    """One network of the shared suite: a name in the registry, or the target of another package's."""

    name: str
    target: str | None = None

    def build(self, norms: Any, **options: Any) -> nn.Module:
        """The small version, with these options."""
        if self.target is not None:
            return build("custom", norms, target=self.target, **(COMMON | options))
        return build(self.name, norms, **(COMMON | SMALL.get(self.name, {}) | options))


def abstract(name, norms, **options):
    """The network without memory for its parameters."""
    with torch.device("meta"):
        return build(name, norms, **(COMMON | options))


def count(name, **options):
    """Number of parameters with BatchNorm everywhere."""
    return sum(parameter.numel() for parameter in abstract(name, RecordingNorms(), **options).parameters())


def stage_shapes(model, stages, size=32):
    """(C, H, W) that each of ``stages`` puts out for images of this side."""
    shapes = []
    for stage in stages:
        stage.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
    model(torch.randn(2, 3, size, size))
    return shapes
