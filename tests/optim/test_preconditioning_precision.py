"""BNP where an input's mean is far above its deviation, on every path: variances and gradients of float64."""

import copy

import pytest
import torch
from torch import nn

from gbn import kernels
from gbn.optim import BatchNormPreconditioner
from tests.optim.preconditioned import BARE

#: Means as multiples of the deviation, which is 1.
MEANS = [0.0, 1.0, 30.0, 1e3, 3e3, 1e4]
EPS = 2.0**-24

LAST = torch.channels_last
#: Layer, shape of its input, memory format, statistics. Compiled code takes the first three as they are.
CASES = {
    "linear": (lambda: nn.Linear(20, 3), (128, 20), None, "channel"),
    "one_column": (lambda: nn.Linear(1, 3), (50, 1), None, "channel"),
    "convolution": (lambda: nn.Conv2d(6, 4, 3, padding=1, groups=2), (8, 6, 9, 7), None, "channel"),
    "sequence": (lambda: nn.Linear(20, 3), (4, 33, 20), None, "channel"),
    "channels_last": (lambda: nn.Conv2d(6, 4, 3), (8, 6, 9, 7), LAST, "channel"),
    "taps": (lambda: nn.Conv2d(6, 4, 3, padding=1, stride=2), (32, 6, 9, 7), None, "patch"),
}


def case(name, mean, dtype=torch.float32):
    torch.manual_seed(0)
    make, shape, layout, statistics = CASES[name]
    x = (torch.randn(shape) + mean * torch.linspace(0.5, 1, shape[-1])).to(dtype)
    x = x if layout is None else x.to(memory_format=layout)
    return make().to(dtype), x, {**BARE, "statistics": statistics}


def moments_of(layer, x, options):
    with BatchNormPreconditioner(layer, **options) as preconditioner:
        for part in (x[: len(x) // 3], x[len(x) // 3 :]):  # which are added up
            layer(part)
        preconditioner.precondition()
        return next(iter(preconditioner.moments().values()))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("path", kernels.KERNELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_moments_are_those_of_float64(dtype, path, name):
    for mean in MEANS:
        layer, x, options = case(name, mean, dtype)
        with kernels.using(path):
            first, variance = moments_of(layer, x, options)
        expected_first, expected = moments_of(copy.deepcopy(layer).double(), x.double(), options)
        # Sums of up to 128 deviations and of their squares are rounded to float32 by some 1e-6 of themselves.
        torch.testing.assert_close(first, expected_first, rtol=1e-12, atol=1e-6)
        torch.testing.assert_close(variance, expected, rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("path", kernels.KERNELS)
def test_gradients_are_rewritten_as_in_float64(path, name):
    for mean in MEANS:
        layer, x, options = case(name, mean)
        wide = copy.deepcopy(layer).double()
        out = wide(x.double())
        out.backward(torch.randn_like(out))
        given = [p.grad.clone() for p in wide.parameters()]
        layer.weight.grad, layer.bias.grad = (g.float() for g in given)
        for one, inputs in ((wide, x.double()), (layer, x)):
            with kernels.using(path), BatchNormPreconditioner(one, **options) as preconditioner:
                one(inputs)
                preconditioner.precondition()
                ((first, variance),) = preconditioner.moments().values()
        # The weight's gradient, the mean and their product are each rounded once before they cancel, and the variance
        # is off by 1e-6; the bias sums a row of that, times the mean.
        far, least = float(first.abs().max()), float(variance.min())
        size = float(given[0].abs().max() + far * given[1].abs().max())
        off = 4 * EPS * size / least + 2e-6 * float(wide.weight.grad.abs().max())
        torch.testing.assert_close(layer.weight.grad.double(), wide.weight.grad, rtol=0, atol=off)
        off = off * layer.weight[0].numel() * far + 1e-5 * size
        torch.testing.assert_close(layer.bias.grad.double(), wide.bias.grad, rtol=1e-6, atol=off)


@pytest.mark.parametrize("path", kernels.KERNELS)
def test_a_whole_step_far_from_zero(path):
    """Raw sums of squares in float32 have variances from 0 to 1.8 here, and gradients that are 16 times off."""
    torch.manual_seed(0)
    layer, x, cotangent = nn.Linear(20, 3), torch.randn(128, 20) + 3000, torch.randn(128, 3)
    found = []
    for one, inputs in ((layer, x), (copy.deepcopy(layer).double(), x.double())):
        with kernels.using(path), BatchNormPreconditioner(one, **BARE) as preconditioner:
            one(inputs).backward(cotangent.to(inputs.dtype))
            preconditioner.precondition()
            found.append((*next(iter(preconditioner.moments().values())), one.weight.grad.double()))
    (_, variance, gradient), (_, expected, expected_gradient) = found
    assert 0.7 < expected.min() < expected.max() < 1.3
    torch.testing.assert_close(variance, expected, rtol=1e-5, atol=0)
    # torch's own float32 gradient is a sum of 128 terms of some 3,000, rounded as it goes.
    off = 128 * EPS * 3000 * float(cotangent.abs().mean()) * 4
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=off)


@pytest.mark.parametrize("path", kernels.KERNELS)
def test_at_batch_one_the_running_variance_keeps_its_digits(path):
    rows = torch.randn(200, 12, generator=torch.Generator().manual_seed(0)) + 1e4
    found = []
    for one, inputs in ((nn.Linear(12, 2), rows), (nn.Linear(12, 2).double(), rows.double())):
        with kernels.using(path), BatchNormPreconditioner(one, **{**BARE, "rho": 0.97}) as preconditioner:
            for row in inputs.split(1):
                one(row)
                preconditioner.precondition()
            found.append(next(iter(preconditioner.moments().values())))
    for a, b in zip(*found, strict=True):
        # In float64 1e8 + 1 keeps nine digits of the 1.
        torch.testing.assert_close(a, b, rtol=1e-6, atol=0)
