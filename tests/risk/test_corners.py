"""Constants, one and two samples, NaN, infinities, half precision, large offsets, dimensions."""

from __future__ import annotations

import math

import pytest
import torch

from gbn.risk import GRADIENT_MODES, Quadrangle, quadrangle

all_modes = pytest.mark.modes(*GRADIENT_MODES)


@all_modes
@pytest.mark.parametrize("n", [1, 2, 9])
@pytest.mark.parametrize("constant", [0.0, 0.1, -3.7, 1e4])
def test_constant_rows(pair: Quadrangle, constant: float, n: int) -> None:
    x = torch.full((2, n), constant).requires_grad_()
    s, d = pair.statistic(x, 1), pair.deviation(x, 1)
    torch.testing.assert_close(s, torch.full((2,), constant), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(d, torch.zeros(2), rtol=0, atol=1e-6 * max(1.0, abs(constant)))
    for value in (s, d):
        if value.requires_grad:
            (gradient,) = torch.autograd.grad(value.sum(), x)
            assert gradient.isfinite().all()
            assert gradient.abs().max() <= 1.0 + 1e-5


@all_modes
def test_one_sample_is_the_statistic(pair: Quadrangle) -> None:
    x = torch.tensor([1.5, -2.0, 0.0])
    torch.testing.assert_close(pair.statistic(x, ()), x)
    torch.testing.assert_close(pair.deviation(x, ()), torch.zeros(3))


@pytest.mark.modes("exact")
def test_two_samples(pair: Quadrangle) -> None:
    """Half the distance is every symmetric deviation of two samples; every pair's gradient keeps its sums."""
    x = torch.tensor([1.0, 4.0], dtype=torch.float64, requires_grad=True)
    s, d = pair.statistic(x), pair.deviation(x)
    if pair.name in ("std", "mad", "range", "worst_case", "upper_range", "lower_range", "mean_mad"):
        assert d.item() == pytest.approx(1.5)
    assert 1.0 <= s.item() <= 4.0
    if pair.homogeneous:
        (of_s,) = torch.autograd.grad(s, x)
        (of_d,) = torch.autograd.grad(d, x)
        assert of_s.sum().item() == pytest.approx(1.0)
        assert (of_s * x).sum().item() == pytest.approx(s.item())
        assert of_d.sum().item() == pytest.approx(0.0, abs=1e-12)
        assert (of_d * x).sum().item() == pytest.approx(d.item())


@all_modes
def test_nan_goes_through_and_only_in_its_row(pair: Quadrangle) -> None:
    x = torch.randn(3, 20, generator=torch.Generator().manual_seed(0))
    x[1, 7] = float("nan")
    for value in (pair.statistic(x, 1), pair.deviation(x, 1)):
        assert value.isnan().tolist() == [False, True, False]


@all_modes
@pytest.mark.parametrize("infinity", [math.inf, -math.inf])
def test_infinity_ends_and_stays_in_its_row(pair: Quadrangle, infinity: float) -> None:
    """As in batch normalization an infinite sample spoils its channel (the deviation) and no other."""
    x = torch.randn(3, 20, generator=torch.Generator().manual_seed(0))
    x[1, 7] = infinity
    s, d = pair.statistic(x, 1), pair.deviation(x, 1)
    assert d.isfinite().tolist() == [True, False, True]
    assert s[[0, 2]].isfinite().all()


@all_modes
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(pair: Quadrangle, dtype: torch.dtype) -> None:
    x = torch.randn(4, 5000, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    wide = x.detach().float()
    for half, full in ((pair.statistic, pair.statistic), (pair.deviation, pair.deviation)):
        value = half(x, 1)
        assert value.dtype == dtype
        torch.testing.assert_close(value, full(wide, 1).to(dtype), rtol=0, atol=0)


def test_large_offset(pair: Quadrangle) -> None:
    """float32 at 10,000 sigma from 0: no more is lost than the samples themselves have lost."""
    x = torch.randn(4, 3000, generator=torch.Generator().manual_seed(0))
    moved = x + 1e4
    there = (moved.double() - 1e4).float()  # what is left of the samples
    rounding = 2e-3  # a few units in the last place of 1e4
    torch.testing.assert_close(pair.deviation(moved, 1), pair.deviation(there, 1), rtol=1e-3, atol=rounding)
    torch.testing.assert_close(
        pair.statistic(moved, 1) - 1e4, pair.statistic(there, 1), rtol=0, atol=2 * rounding
    )


def test_float32_agrees_with_float64(pair: Quadrangle) -> None:
    x = torch.randn(4, 20_000, generator=torch.Generator().manual_seed(0)).requires_grad_()
    wide = x.detach().double().requires_grad_()
    for call in (pair.statistic, pair.deviation):
        narrow, value = call(x, 1), call(wide, 1)
        # sums of 20,000 terms of size 1, pairwise: a few units in the last place
        torch.testing.assert_close(narrow.double(), value, rtol=2e-6, atol=2e-6)
        (a,), (b,) = torch.autograd.grad(narrow.sum(), x), torch.autograd.grad(value.sum(), wide)
        # single samples may change sides of a level; the whole gradient hardly changes
        assert (a.double() - b).norm() <= 1e-2 * b.norm()


@all_modes
def test_any_set_of_dimensions(pair: Quadrangle) -> None:
    x = torch.randn(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for call in (pair.statistic, pair.deviation):
        expected = torch.stack([call(x[:, c].flatten()) for c in range(4)])
        torch.testing.assert_close(call(x, (0, 2)), expected)
        torch.testing.assert_close(call(x, (-1, 0)), expected)
        assert call(x, [0, 2], True).shape == (1, 4, 1)
        assert call(x, keepdim=True).shape == (1, 1, 1)
        torch.testing.assert_close(call(x), call(x.flatten(), 0))
        torch.testing.assert_close(call(x.transpose(0, 2), 1), call(x, 1).T)


@all_modes
def test_no_rows(pair: Quadrangle) -> None:
    x = torch.zeros(0, 5)
    assert pair.statistic(x, 1).shape == (0,)
    assert pair.deviation(x, 1).shape == (0,)


@pytest.mark.gpu
@all_modes
def test_cuda_agrees_with_the_cpu(pair: Quadrangle) -> None:
    x = torch.randn(4, 2000, generator=torch.Generator().manual_seed(0)).relu_()  # half of it tied
    here, there = x.clone().requires_grad_(), x.cuda().requires_grad_()
    for call in (pair.statistic, pair.deviation):
        ours, theirs = call(here, 1), call(there, 1)
        torch.testing.assert_close(theirs.cpu(), ours, rtol=1e-5, atol=1e-6)
        if ours.requires_grad:
            (a,), (b,) = torch.autograd.grad(ours.sum(), here), torch.autograd.grad(theirs.sum(), there)
            torch.testing.assert_close(b.cpu(), a, rtol=1e-4, atol=1e-5)


def test_extreme_levels_end() -> None:
    x = torch.randn(4, 2000, generator=torch.Generator().manual_seed(0)).exp()
    for tau in (1e-6, 1 - 1e-6):
        e = quadrangle("expectile", tau=tau).statistic(x.double(), 1)
        residual = x.double() - e[:, None]
        force = tau * residual.relu().mean(1) - (1 - tau) * (-residual).relu().mean(1)
        torch.testing.assert_close(force, torch.zeros_like(force), rtol=0, atol=1e-12)
    for b in (1e-6, 1e6):
        assert quadrangle("huber", b=b).statistic(x, 1).isfinite().all()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("b", [0.01, 0.1, 1.0])
def test_huber_location_solves_its_equation(seed: int, b: float) -> None:
    """Also with few, clustered samples, where Newton's method alone cycles or stands on flat ground."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(200, 6, dtype=torch.float64, generator=generator).pow(3)
    s = quadrangle("huber", b=b, scaled=False).statistic(x, 1)
    force = (x - s[:, None]).clamp(-b, b).sum(1)
    torch.testing.assert_close(force, torch.zeros_like(force), rtol=0, atol=1e-10)


def test_huber_takes_the_middle_of_a_flat_minimum() -> None:
    x = torch.tensor([0.0, 0.0, 1.0, 9.0, 10.0, 11.0], dtype=torch.float64, requires_grad=True)
    s = quadrangle("huber", b=0.5, scaled=False).statistic(x)
    assert s.item() == pytest.approx(5.0)
    (gradient,) = torch.autograd.grad(s, x)
    torch.testing.assert_close(gradient, torch.tensor([0, 0, 0.5, 0.5, 0, 0], dtype=torch.float64))


def test_refusals() -> None:
    std = quadrangle("std")
    with pytest.raises(TypeError, match=r"torch\.int64 was given; .* floating-point"):
        std.deviation(torch.arange(4))
    with pytest.raises(ValueError, match="no samples"):
        std.deviation(torch.zeros(3, 0), 1)
    with pytest.raises(IndexError, match="dim 2 of a tensor of shape"):
        std.deviation(torch.zeros(3, 3), 2)
    with pytest.raises(ValueError, match="twice"):
        std.deviation(torch.zeros(3, 3), (0, -2))
