"""The kernel on a CUDA device gives the numbers of the CPU's float64."""

from __future__ import annotations

import pytest
import torch

from gbn import kernels, risk

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", list(risk.QUADRANGLES))
def test_values_and_gradients(name: str, dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    pair = risk.quadrangle(name)
    make = torch.Generator().manual_seed(0)
    x = torch.randn(16, 5, 7, 9, generator=make).to(dtype)
    g = torch.randn(x.shape, generator=make).to(dtype)
    weight, bias = torch.rand(5, generator=make) + 0.5, torch.randn(5, generator=make)
    results = []
    for device, kind in (("cuda", dtype), ("cpu", torch.float64)):
        leaf = x.to(device, kind, memory_format=memory_format).requires_grad_()
        wide = torch.float64 if kind == torch.float64 else torch.float32
        parameters = [t.to(device, wide).requires_grad_() for t in (weight, bias)]
        y, s, d = kernels.normalize(leaf, *parameters, pair.S, pair.D, 1e-3)
        gradients = torch.autograd.grad(y, [leaf, *parameters], g.to(device, kind))
        results.append([t.detach().cpu().double() for t in (y, s, d, *gradients)])
        assert y.is_contiguous(memory_format=memory_format)
    # a rounding of result and gradient in their dtype, and float32's error of sums of 1,008 terms
    tolerance = torch.finfo(dtype).eps + 20 * torch.finfo(torch.float32).eps
    for ours, exact in zip(*results, strict=True):
        assert (ours - exact).abs().max() <= tolerance * exact.abs().max().clamp_min(1.0)


def test_is_deterministic_with_ties() -> None:
    pair = risk.quadrangle("cvar")
    x = torch.randn(64, 8, 16, 16, generator=torch.Generator().manual_seed(0)).relu().cuda()
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).cuda()
    runs = []
    for _ in range(5):
        leaf = x.clone().requires_grad_()
        y, _, _ = kernels.normalize(leaf, None, None, pair.S, pair.D, 1e-5, "relu")
        runs.append(torch.autograd.grad(y, leaf, g)[0])
    for other in runs[1:]:
        assert torch.equal(other, runs[0])
