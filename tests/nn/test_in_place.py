"""What follows a norm may work in place on its result, as residual networks do after torch's BatchNorm."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

C = 6
LAYOUTS = {
    "planes": torch.randn(8, C, 4, 5),
    "short planes": torch.randn(8, C, 2, 3),
    "channels last": torch.randn(8, C, 4, 5).to(memory_format=torch.channels_last),
}


def changed(y: Tensor) -> Tensor:
    y += 1.0
    torch.relu_(y)
    y[:, : C // 2].mul_(2.0)
    return y


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_changes_in_place_are_differentiated(case: Any, training: bool, layout: str) -> None:
    x = LAYOUTS[layout]
    results = []
    for copied in (True, False):
        layer = case.layer(C).train(training)
        leaf = x.clone().requires_grad_()
        y = layer(leaf * 1.0)  # the identity returns its argument, and a leaf may not be changed
        y = changed(y.clone() if copied else y)
        y.backward(torch.randn(x.shape, generator=torch.Generator().manual_seed(1)))
        results.append([y.detach(), leaf.grad, *(parameter.grad for parameter in layer.parameters())])
    for expected, found in zip(*results, strict=True):
        assert torch.equal(found, expected)
