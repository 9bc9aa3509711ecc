"""What follows a norm may work in place on its result, as residual networks do after torch's BatchNorm."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

C = 6
SHAPES = {"planes": (8, C, 4, 5), "short planes": (8, C, 2, 3), "channels last": (8, C, 4, 5)}


def changed(y: Tensor) -> Tensor:
    y += 1.0
    y[:, : C // 2].mul_(2.0)
    return torch.relu_(y)


@pytest.mark.parametrize("training", [True, False])
def test_changes_in_place_are_differentiated(case: Any, training: bool) -> None:
    for name, shape in SHAPES.items():
        make = torch.Generator().manual_seed(0)
        x, cotangent = torch.randn(shape, generator=make).exp(), torch.randn(shape, generator=make)
        if name == "channels last":
            x = x.to(memory_format=torch.channels_last)
        results = []
        for copied in (True, False):
            layer, leaf = case.layer(C).train(training), x.clone().requires_grad_()
            y = layer(leaf * 1.0)  # the identity returns its argument, and a leaf may not be changed
            y = changed(y.clone() if copied else y)
            y.backward(cotangent)
            results.append([y.detach(), leaf.grad, *(parameter.grad for parameter in layer.parameters())])
        for expected, found in zip(*results, strict=True):
            assert torch.equal(found, expected), name
