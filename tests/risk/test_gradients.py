"""Gradients against finite differences, and the sum identities that each gradient mode keeps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gbn.risk import GRADIENT_MODES, Deviation, Functional, Quadrangle, Statistic, compose, quadrangle

all_modes = pytest.mark.modes(*GRADIENT_MODES)


def samples(*shape: int, seed: int = 0) -> Tensor:
    """Skewed samples, no two closer than 1e-3: finite differences change no order."""
    generator = torch.Generator().manual_seed(seed)
    count = math.prod(shape)
    places = torch.randperm(count, generator=generator) + 0.3 * torch.rand(count, generator=generator)
    return torch.sinh(4.0 * places.double() / count - 1.5).reshape(shape)


def gradients(functional: Functional, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(functional(x, -1).sum(), x)[0]


def test_gradcheck(pair: Quadrangle) -> None:
    x = samples(2, 13).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: (pair.statistic(x, 1), pair.deviation(x, 1)), x, eps=1e-7)


def test_gradcheck_in_one_and_two_samples(pair: Quadrangle) -> None:
    one = torch.tensor([[0.3]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: pair.statistic(x, 1), one)
    two = torch.tensor([[0.3, -0.9]], dtype=torch.float64, requires_grad=True)
    # a Huber location of two samples may sit on its kink
    if pair.name != "huber":
        assert torch.autograd.gradcheck(lambda x: (pair.statistic(x, 1), pair.deviation(x, 1)), two)


def test_normalizing_with_random_cotangents(pair: Quadrangle) -> None:
    """Through (x - S) / D, over two of three dimensions, by directional derivatives."""
    x = samples(4, 3, 6, seed=1).requires_grad_()
    generator = torch.Generator().manual_seed(2)

    def normalized(x: Tensor) -> Tensor:
        return (x - pair.statistic(x, (0, 2), True)) / (pair.deviation(x, (0, 2), True) + 1e-3)

    for _ in range(3):
        cotangent = torch.randn(x.shape, dtype=x.dtype, generator=generator)
        direction = torch.randn(x.shape, dtype=x.dtype, generator=generator)
        (gradient,) = torch.autograd.grad((normalized(x) * cotangent).sum(), x)
        step = 1e-7 * direction
        slope = ((normalized(x + step) - normalized(x - step)) * cotangent).sum() / 2e-7
        torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-5, atol=1e-5)


@all_modes
@pytest.mark.parametrize("ties", [False, True])
def test_statistic_sum_identities(statistic: Statistic, ties: bool) -> None:
    """sum S_k = 1 and sum x_k S_k = S, kept or broken as gbn.risk.ranks says."""
    x = samples(5, 40, seed=3) if not ties else samples(5, 40, seed=3).mul(5).round().div(5)
    mode = statistic.parameters.get("quantile_gradient", "exact")
    gradient, value = gradients(statistic, x), statistic(x, -1)
    ones = torch.zeros_like(value) if mode == "detached" else torch.ones_like(value)
    torch.testing.assert_close(gradient.sum(-1), ones, rtol=1e-9, atol=1e-9)
    moment = (gradient * x).sum(-1)
    if not statistic.homogeneous:
        return
    if mode in ("exact", "window_centred", "smoothed"):
        torch.testing.assert_close(moment, value, rtol=1e-9, atol=1e-9)
    elif not ties:
        assert ((moment - value).abs() > 1e-6).any()


@all_modes
@pytest.mark.parametrize("ties", [False, True])
def test_deviation_sum_identities(deviation: Deviation, ties: bool) -> None:
    """sum D_k = 0 and sum x_k D_k = D; ``window`` on an extreme breaks the latter."""
    x = samples(5, 40, seed=4) if not ties else samples(5, 40, seed=4).mul(5).round().div(5)
    mode = deviation.parameters.get("quantile_gradient", "exact")
    gradient, value = gradients(deviation, x), deviation(x, -1)
    torch.testing.assert_close(gradient.sum(-1), torch.zeros_like(value), rtol=0, atol=1e-9)
    if not deviation.homogeneous:
        return
    if mode != "window":
        torch.testing.assert_close((gradient * x).sum(-1), value, rtol=1e-9, atol=1e-9)
    elif not ties:
        assert (((gradient * x).sum(-1) - value).abs() > 1e-6).all()


def test_normalizer_ignores_shift_and_scale(pair: Quadrangle) -> None:
    """The consequence of the identities: the gradient to x has no part along 1 or along x."""
    if not pair.homogeneous:
        return
    x = samples(3, 30, seed=5).requires_grad_()
    y = (x - pair.statistic(x, -1, True)) / pair.deviation(x, -1, True)
    cotangent = torch.randn(y.shape, dtype=y.dtype, generator=torch.Generator().manual_seed(6))
    (gradient,) = torch.autograd.grad((y * cotangent).sum(), x)
    torch.testing.assert_close(gradient.sum(-1), torch.zeros(3, dtype=x.dtype), rtol=0, atol=1e-8)
    torch.testing.assert_close((gradient * x).sum(-1), torch.zeros(3, dtype=x.dtype), rtol=0, atol=1e-8)
    moved = 3.0 * x + 2.0
    again = (moved - pair.statistic(moved, -1, True)) / pair.deviation(moved, -1, True)
    torch.testing.assert_close(again, y)


@pytest.mark.parametrize("n", [6, 7])
def test_paper_rows(n: int) -> None:
    """The table of subgradients, written out: exact quantile, mad and SQD on 1 ... n."""
    x = torch.arange(1.0, n + 1, dtype=torch.float64)
    middle = (n + 1) // 2
    one_hot = torch.zeros(n, dtype=torch.float64)
    one_hot[middle - 1] = 1.0
    mad = quadrangle("mad", quantile_gradient="exact")
    torch.testing.assert_close(gradients(mad.S, x), one_hot)
    side = torch.sign(x - middle) / n
    side[middle - 1] = -1.0 / n if n % 2 == 0 else 0.0
    torch.testing.assert_close(gradients(mad.D, x), side)
    sqd = gradients(quadrangle("cvar", alpha=0.75).D, x) + 1.0 / n
    m = -(-3 * n // 4)
    expected = (x > m).double() / (n * 0.25)
    expected[m - 1] = (m - 0.75 * n) / (n * 0.25)
    torch.testing.assert_close(sqd, expected)


def test_ties_share_equally() -> None:
    x = torch.tensor([0.0, 0.0, 0.0, 1.0, 2.0], dtype=torch.float64)  # three tied at the median
    mad = quadrangle("mad", quantile_gradient="exact")
    third = torch.tensor([1 / 3, 1 / 3, 1 / 3, 0, 0], dtype=torch.float64)
    torch.testing.assert_close(gradients(mad.S, x), third)
    # 2 / 5 above, minus 1 / 5 each; the tied share 1 - 2 * 2 / 5 = 1 / 5
    expected = torch.tensor([1 / 15 - 0.2] * 3 + [0.2, 0.2], dtype=torch.float64)
    torch.testing.assert_close(gradients(mad.D, x), expected)


def test_second_derivative_is_refused() -> None:
    x = torch.randn(5, requires_grad=True)
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(quadrangle("std").deviation(x), x, create_graph=True)


def test_composition_takes_each_ones_gradient() -> None:
    pair = compose({"name": "quantile", "alpha": 0.6, "quantile_gradient": "exact"}, "upper_semideviation")
    x = samples(2, 12, seed=7).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: (pair.statistic(x, 1), pair.deviation(x, 1)), x, eps=1e-7)
