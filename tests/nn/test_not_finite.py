"""A value that is not finite spoils its whole channel and no other, as in BatchNorm."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

C, BAD = 6, 2  # channels, and the one that is spoilt


def run(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    make = torch.Generator().manual_seed(1)
    y = layer(x)
    (dx,) = torch.autograd.grad(y, x, torch.randn(y.shape, generator=make))
    return y.detach(), dx


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_a_channel_is_spoilt_as_a_whole_and_alone(case: Any, bad: float) -> None:
    if not case.of_the_batch or "mixture" in case.name:
        pytest.skip("statistics of an image, or of all channels together")
    make = torch.Generator().manual_seed(0)
    x = torch.randn(8, C, 5, 4, generator=make).exp()
    layer = case.layer(C, "relu").train()
    twin = copy.deepcopy(layer)
    clean = run(twin, x)
    spoilt = x.clone()
    spoilt[3, BAD, 1, 2] = bad
    others = [c for c in range(C) if c != BAD]
    for value, wanted in zip(run(layer, spoilt), clean, strict=True):
        assert value[:, BAD].isnan().all() or not case.divides
        assert torch.equal(value[:, others], wanted[:, others])
    running = [(a, b) for a, b in zip(layer.buffers(), twin.buffers(), strict=True) if a.shape == (C,)]
    for value, wanted in running:
        assert not value[BAD].isfinite() or not case.divides
        assert torch.equal(value[others], wanted[others])
    if running:
        y, wanted = layer.eval()(x), twin.eval()(x)
        assert y[:, BAD].isnan().all() or not case.divides
        assert torch.equal(y[:, others], wanted[:, others])
        y = twin(spoilt)  # in evaluation no image reaches another, nor one channel another
        y[3, BAD] = wanted[3, BAD]
        assert torch.equal(y, wanted)
