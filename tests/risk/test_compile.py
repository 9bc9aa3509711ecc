"""torch.compile traces statistics and deviations whole: the selection and the solvers are custom operators."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gbn.risk import compose


@pytest.mark.slow
def test_fullgraph() -> None:
    parts = [compose("quantile", "cvar"), compose("expectile", "huber"), compose("midrange", "range")]

    def normalized(x: Tensor) -> list[Tensor]:
        return [(x - p.statistic(x, (0, 2), True)) / (p.deviation(x, (0, 2), True) + 1e-3) for p in parts]

    x = torch.randn(4, 3, 50, generator=torch.Generator().manual_seed(0)).requires_grad_()
    cotangent = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    results = []
    for function in (normalized, torch.compile(normalized, fullgraph=True)):
        outputs = function(x)
        (gradient,) = torch.autograd.grad(sum((y * cotangent).sum() for y in outputs), x)
        results.append((*outputs, gradient))
    for eager, compiled in zip(*results, strict=True):
        torch.testing.assert_close(compiled, eager, rtol=1e-5, atol=1e-5)


def test_operators_keep_their_contract() -> None:
    x = torch.randn(3, 20)
    mean = x.mean(-1, keepdim=True)
    ops = torch.ops.gbn
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(ops.select, (x, [1, 5, 20], [3, 9]), test_utils=checks)
    torch.library.opcheck(ops.expectile, (x, mean, 0.75), test_utils=checks)
    torch.library.opcheck(ops.huber_location, (x, mean, torch.ones(3, 1)), test_utils=checks)
