"""Mixture normalization on plain tensors, against the formula written out in float64 with autograd's derivative."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gbn.kernels.mixture import (
    FORMS,
    Mixture,
    fitted,
    normalize_by_batch,
    normalize_by_mixture,
    sample,
    seeded,
    uniform,
)
from gbn.kernels.mixture.fit import log_likelihood

K = 3
SHAPES = [(40, 4), (6, 4, 7), (5, 4, 3, 2), (3, 4, 2, 3, 2)]
ZERO = torch.zeros((), dtype=torch.int64)


def batch(*shape: int, seed: int = 0) -> Tensor:
    """Two kinds of images: some stand apart."""
    make = torch.Generator().manual_seed(seed)
    x = torch.randn(shape, generator=make, dtype=torch.float64)
    apart = 3 * torch.randn((1, *shape[1:]), generator=make, dtype=torch.float64)
    return torch.cat((x[: shape[0] // 2] + apart, x[shape[0] // 2 :]))


def samples_of(x: Tensor) -> Tensor:
    return sample(x, 10**9, ZERO, ZERO)


def mixture_of(samples: Tensor, form: str, steps: int = 2, components: int = K) -> Mixture:
    draws = uniform(ZERO, ZERO, 1, components * (1 if form == "joint" else samples.shape[1]))
    floor = torch.full((samples.shape[1],), 1e-3, dtype=samples.dtype)
    return fitted(samples, seeded(samples, components, draws, form), steps, floor)


def written_out(
    x: Tensor, mixture: Mixture, weight: Tensor, bias: Tensor, posterior_gradient: bool, own: bool = True
) -> Tensor:
    """The transform, component by component and sample by sample; by the mixture's own moments with own=False."""
    rows = x.transpose(0, 1).flatten(1).T
    densities = -0.5 * (
        (rows - mixture.mean[:, None]).square() / mixture.var[:, None] + mixture.var[:, None].log()
    )
    if mixture.weight.shape[1] == 1:
        densities = densities.sum(2, keepdim=True)
    t = torch.softmax(densities + mixture.weight.log()[:, None], 0)
    if not posterior_gradient:
        t = t.detach()
    share, mean, var = mixture
    if own:
        w = t / t.sum(1, keepdim=True)
        mean = (w * rows).sum(1)
        var = (w * (rows - mean[:, None]).square()).sum(1)
        share = t.mean(1)
    x_hat = (t / share[:, None].sqrt() * (rows - mean[:, None]) / (var[:, None] + 1e-5).sqrt()).sum(0)
    return (x_hat * weight + bias).T.reshape(x.shape[1], x.shape[0], *x.shape[2:]).transpose(0, 1)


def affine(seed: int = 5) -> tuple[Tensor, Tensor]:
    make = torch.Generator().manual_seed(seed)
    weight, bias = (torch.randn(4, generator=make, dtype=torch.float64) for _ in range(2))
    return weight.requires_grad_(), bias.requires_grad_()


@pytest.mark.parametrize("posterior_gradient", [False, True])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("last", [False, True])
def test_is_the_formula_and_its_derivative(
    form: str, posterior_gradient: bool, shape: tuple[int, ...], last: bool
) -> None:
    x, (weight, bias) = batch(*shape), affine()
    mixture = mixture_of(samples_of(x), form)
    if last and len(shape) in (4, 5):
        x = x.to(memory_format=torch.channels_last if len(shape) == 4 else torch.channels_last_3d)
    elif last:
        x = x.transpose(0, 1).contiguous().transpose(0, 1)  # a layout of no name
    x = x.requires_grad_()
    y, moments = normalize_by_batch(x, mixture, weight, bias, 1e-5, posterior_gradient)
    expected = written_out(x, mixture, weight, bias, posterior_gradient)
    torch.testing.assert_close(y, expected)
    assert not any(part.requires_grad for part in moments)
    cotangent = torch.randn(shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    for a, b in zip(
        torch.autograd.grad(y, [x, weight, bias], cotangent),
        torch.autograd.grad(expected, [x, weight, bias], cotangent),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_by_a_given_mixture_too(form: str, shape: tuple[int, ...]) -> None:
    x, (weight, bias) = batch(*shape).requires_grad_(), affine()
    mixture = mixture_of(samples_of(x.detach()), form)
    y = normalize_by_mixture(x, mixture, weight, bias, 1e-5)
    expected = written_out(x, mixture, weight, bias, posterior_gradient=True, own=False)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(z.square().sum(), [x, weight, bias]) for z in (y, expected))
    )


@pytest.mark.parametrize("form", FORMS)
def test_moments_say_what_they_are(form: str) -> None:
    x = batch(5, 4, 3, 2)
    _, moments = normalize_by_batch(x, mixture_of(samples_of(x), form), None, None, 1e-5)
    torch.testing.assert_close(moments.weight.sum(0), torch.ones_like(moments.weight[0]))
    mean = (moments.weight * moments.mean).sum(0)
    var = (moments.weight * (moments.var + (moments.mean - mean).square())).sum(0)
    torch.testing.assert_close(mean, x.mean((0, 2, 3)))
    torch.testing.assert_close(var, x.var((0, 2, 3), correction=0))
    effective = moments.concentration.reciprocal()
    assert (effective <= 30).all()
    assert (effective >= 1).all()


@pytest.mark.parametrize("form", FORMS)
def test_the_order_of_components_means_nothing(form: str) -> None:
    x, (weight, bias) = batch(5, 4, 3, 2).requires_grad_(), affine()
    mixture = mixture_of(samples_of(x.detach()), form)
    other = Mixture(*(part[[2, 0, 1]] for part in mixture))
    results = [normalize_by_batch(x, one, weight, bias, 1e-5, True)[0] for one in (mixture, other)]
    torch.testing.assert_close(*results)
    torch.testing.assert_close(*(torch.autograd.grad(y.square().sum(), [x, weight])[0] for y in results))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("seed", range(5))
def test_expectation_maximization_never_lowers_the_likelihood(form: str, seed: int) -> None:
    samples = samples_of(batch(30, 4, 3, 2, seed=seed))
    mixture = mixture_of(samples, form, steps=0)
    floor = torch.full((4,), 1e-9, dtype=samples.dtype)
    before = log_likelihood(samples, mixture)
    for _ in range(12):
        mixture = fitted(samples, mixture, 1, floor)
        after = log_likelihood(samples, mixture)
        assert (after >= before - 1e-9).all()
        before = after
    assert mixture.weight.sum(0) == pytest.approx(1.0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stream", range(20))
def test_seeds_fall_into_different_clusters(form: str, stream: int) -> None:
    make = torch.Generator().manual_seed(stream)
    centers = torch.tensor([[0.0, 0.0], [1e3, 1e3], [-1e3, 1e3]])
    samples = (centers[:, None] + torch.randn(3, 20, 2, generator=make)).flatten(0, 1)
    draws = uniform(torch.tensor(stream), ZERO, 1, K * (1 if form == "joint" else 2))
    found = seeded(samples, K, draws, form).mean
    columns = found if form == "joint" else found[:, :1]  # the second channel has two clusters only
    nearest = torch.cdist(columns, centers if form == "joint" else centers[:, :1]).argmin(1)
    assert sorted(nearest.tolist()) == [0, 1, 2]


@pytest.mark.parametrize("form", FORMS)
def test_an_empty_component_begins_again_at_a_sample(form: str) -> None:
    samples = samples_of(batch(30, 4, 3, 2)).float()
    mixture = mixture_of(samples, form)
    gone = Mixture(mixture.weight, mixture.mean.clone(), mixture.var)
    gone.mean[1] = 1e6
    floor = torch.full((4,), 1e-3)
    draws = uniform(ZERO, ZERO, 2, K * gone.weight.shape[1])
    stays = fitted(samples, gone, 1, floor)
    assert (stays.mean[1] == 1e6).all()
    assert (stays.weight[1] < 1e-4).all()
    again = fitted(samples, gone, 5, floor, draws)
    assert (again.mean.abs() < 20).all()
    assert (again.weight > 1e-3).all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [0.0, 1e4])
def test_constant_channels_and_empty_components_give_finite_numbers(form: str, value: float) -> None:
    x = batch(5, 4, 3, 2).float()
    x[:, 1] = value
    x.requires_grad_()
    mixture = mixture_of(samples_of(x.detach()), form)
    gone = Mixture(mixture.weight, mixture.mean.clone(), mixture.var)
    gone.mean[0] = -1e6
    for one in (mixture, gone):
        y, moments = normalize_by_batch(x, one, None, None, 1e-5, True, x.detach().mean((0, 2, 3)))
        (dx,) = torch.autograd.grad(y, x, torch.ones_like(y))
        for found in (y, dx, *moments):
            assert found.isfinite().all()
        assert y[:, 1].abs().max() < 0.02  # rounding of the mean of 1e4, over sqrt(eps)
    without = Mixture(torch.zeros_like(mixture.weight).index_fill(0, torch.tensor(1), 1.0), *mixture[1:])
    assert normalize_by_mixture(x, without, None, None, 1e-5).isfinite().all()


def test_float32_agrees_with_float64_where_components_stand_apart() -> None:
    x = batch(16, 8, 8, 8)
    x[: len(x) // 3] += 30
    x = (x + 100).float()
    mixture = mixture_of(samples_of(x), "joint")
    narrow, wide = (
        normalize_by_batch(x.to(dtype), mixture, None, None, 1e-5)[0] for dtype in (x.dtype, torch.float64)
    )
    torch.testing.assert_close(narrow.double(), wide, rtol=1e-3, atol=1e-3)


def test_draws_are_splitmix64_of_stream_and_count() -> None:
    """Against the generator written in Python's integers."""
    step, most = 0x9E3779B97F4A7C15, 2**64

    def mixed(z: int) -> int:
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % most
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % most
        return z ^ (z >> 31)

    for stream, count in ((0, 0), (7, 3), (2**62 + 5, 10**6)):
        base = mixed((mixed((stream + count * step) % most) + 2 * step) % most)
        expected = [(mixed((base + (i + 1) * step) % most) >> 40) * 2.0**-24 for i in range(8)]
        assert uniform(torch.tensor(stream), torch.tensor(count), 2, 8).tolist() == expected
    draws = uniform(ZERO, ZERO, 0, 100_000)
    assert draws.mean() == pytest.approx(0.5, abs=0.005)
    assert draws.var() == pytest.approx(1 / 12, abs=0.002)


def test_a_sample_sees_every_image_and_depends_on_stream_and_count_alone() -> None:
    x = torch.arange(8 * 25).view(8, 1, 5, 5).float()
    found = sample(x, 16, ZERO, ZERO).squeeze(1)
    assert found.shape == (16,)
    assert len(found.unique()) == 16
    assert (found // 25).unique().tolist() == list(range(8))
    assert torch.equal(found, sample(x.clone(memory_format=torch.channels_last), 16, ZERO, ZERO).squeeze(1))
    for stream, count in ((1, 0), (0, 1)):
        assert not torch.equal(found, sample(x, 16, torch.tensor(stream), torch.tensor(count)).squeeze(1))
    assert torch.equal(sample(x, 200, ZERO, ZERO).squeeze(1), x.flatten())
    tally = torch.zeros(200)
    for count in range(400):
        tally[sample(x, 16, ZERO, torch.tensor(count)).long().squeeze(1)] += 1
    assert tally.min() > 10  # 32 expected
    assert tally.max() < 60
