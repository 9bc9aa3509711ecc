"""The compiled kernels of mixture normalization against the eager ones in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gbn import kernels
from gbn.kernels.mixture import (
    Mixture,
    Moments,
    fitted,
    implementation,
    normalize_by_batch,
    sample,
    seeded,
    uniform,
)
from gbn.kernels.mixture.autograd import MOST_COMPONENTS
from gbn.kernels.numba import launch

ZERO = torch.zeros((), dtype=torch.int64)
#: A component of one sample has variance 0: with a small eps the rounding of that 0 would be all that is compared.
EPS = 1e-2

pytestmark = pytest.mark.skipif(kernels.selected() != "numba", reason="the compiled kernels do not work here")

#: Planes of whole vectors, with a rest, of more than a tile, of a few values, none; channels beyond a vector.
SHAPES = [(6, 4, 7), (9, 5, 7, 7), (16, 33, 4, 4), (2, 3, 40, 41), (5, 19, 3, 3), (3, 4, 2, 3, 2), (40, 18)]


def batch(shape: tuple[int, ...], last: bool = False) -> Tensor:
    """Two kinds of images, each channel at its own place."""
    make = torch.Generator().manual_seed(len(shape))
    x = 2 * torch.randn(shape, generator=make)
    x += torch.randn((1, shape[1], *[1] * (len(shape) - 2)), generator=make)
    x[: shape[0] // 2] += 2 * torch.randn((1, *shape[1:]), generator=make)
    if last and len(shape) in (4, 5):
        return x.to(memory_format=torch.channels_last if len(shape) == 4 else torch.channels_last_3d)
    return x.transpose(0, 1).contiguous().transpose(0, 1) if last else x


def mixture_of(x: Tensor, components: int) -> tuple[Mixture, Tensor]:
    """Rounded to float32, so that every computation begins with the same."""
    samples = sample(x.double(), 1024, ZERO, ZERO)
    draws = uniform(ZERO, ZERO, 1, components)
    floor = torch.full((samples.shape[1],), 0.05, dtype=torch.float64)
    found = fitted(samples, seeded(samples, components, draws, "joint"), 2, floor)
    return Mixture(*(part.float() for part in found)), samples.mean(0).float()


def results(
    x: Tensor, g: Tensor, given: tuple[Mixture, Tensor], affine: tuple[Tensor, ...], act: str | None
) -> list[Tensor]:
    """y, the moments, gradients to x and what is given of gain and bias."""
    wide = torch.promote_types(x.dtype, torch.float32)
    leaves = [x.detach().requires_grad_(), *(part.to(wide).requires_grad_() for part in affine)]
    mixture = Mixture(*(part.to(wide) for part in given[0]))
    weight, bias = leaves[1:] or (None, None)
    y, moments = normalize_by_batch(leaves[0], mixture, weight, bias, EPS, center=given[1].to(wide), act=act)
    return [y, *moments, *torch.autograd.grad(y, leaves, g.to(y.dtype))]


def away_from_the_kink(g: Tensor, exact: Tensor, eager: Tensor) -> Tensor:
    """The cotangent with 0 where rounding decides whether the ReLU lets it through."""
    return g.masked_fill(exact.abs() <= 16 * (eager - exact).abs().max(), 0.0)


def check(ours: list[Tensor], eager: list[Tensor], exact: list[Tensor]) -> None:
    """In the L2 norm no farther from float64 than four times what the eager kernels are in float32.

    They round as often, in another order; half a unit of eps a number is allowed where they are right by chance.
    """
    for got, other, want in zip(ours, eager, exact, strict=True):
        error, allowed = (got - want).norm(), 4 * (other - want).norm() + 1e-6 * want.norm()
        assert error <= allowed


@pytest.mark.parametrize("components", [1, 3])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_agrees_with_the_eager_kernels(shape: tuple[int, ...], last: bool, components: int) -> None:
    x = batch(shape, last)
    given = mixture_of(x, components)
    make = torch.Generator().manual_seed(1)
    g = torch.randn(shape, generator=make).transpose(0, 1).contiguous().transpose(0, 1)  # a layout of its own
    affine = tuple(torch.randn(2, shape[1], generator=make).unbind())
    for act, with_affine in (("relu", affine), (None, ())):
        with kernels.using("reference"):
            before = [results(one, g, given, with_affine, None)[0] for one in (x.double(), x)]
            g_kept = away_from_the_kink(g, *before)
            exact = results(x.double(), g_kept, given, with_affine, act)
            eager = results(x, g_kept, given, with_affine, act)
        assert implementation(x, components, joint=True) == "numba"
        ours = results(x, g_kept, given, with_affine, act)
        check(ours, eager, exact)
        assert ours[0].stride() == x.stride()
        assert ours[5].stride() == x.stride()


@pytest.mark.parametrize("last", [False, True])
def test_agrees_where_results_are_written_past_the_caches(last: bool) -> None:
    x = batch((17, 32, 32, 32), last)
    given, g = mixture_of(x, 3), torch.randn(x.shape, generator=torch.Generator().manual_seed(3))
    with kernels.using("reference"):
        exact, eager = (results(x.to(kind), g, given, (), None) for kind in (torch.float64, torch.float32))
    check(results(x, g, given, (), None), eager, exact)


@pytest.mark.parametrize("components", [2, 5, MOST_COMPONENTS])
@pytest.mark.slow
def test_agrees_for_other_numbers_of_components(components: int) -> None:
    for last in (False, True):
        x = batch((8, 20, 5, 5), last)
        g, given = torch.ones_like(x), mixture_of(x, components)
        with kernels.using("reference"):
            exact, eager = (
                results(x.to(kind), g, given, (), None) for kind in (torch.float64, torch.float32)
            )
        check(results(x, g, given, (), None), eager, exact)
    assert implementation(x, MOST_COMPONENTS + 1, joint=True) == "reference"


@pytest.mark.parametrize("last", [False, True])
def test_one_component_is_batch_normalization(last: bool) -> None:
    x = batch((8, 5, 6, 6), last).requires_grad_()
    given, g = mixture_of(x.detach(), 1), torch.randn(x.shape)
    weight, bias = torch.rand(5).requires_grad_(), torch.rand(5).requires_grad_()
    leaves = [x, weight, bias]
    y, moments = normalize_by_batch(x, given[0], weight, bias, 1e-5, center=given[1], act="relu")
    expected = torch.relu(torch.nn.functional.batch_norm(x, None, None, weight, bias, True, 0.1, 1e-5))
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=2e-6)
    found, wanted = (torch.autograd.grad(one, leaves, g) for one in (y, expected))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert torch.equal(moments.weight, torch.ones_like(moments.weight))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    x = batch((6, 5, 4, 5)).to(dtype)
    given = mixture_of(x, 3)
    g = torch.randn(x.shape, generator=torch.Generator().manual_seed(2)).to(dtype)
    exact = results(x.double(), g, given, (), None)
    y, *_, dx = results(x, g, given, (), None)
    for got, want in ((y, exact[0]), (dx, exact[5])):
        assert got.dtype == dtype
        off = (want.to(dtype).double() - want).norm()
        assert (got - want).norm() <= 1.2 * off + 1e-5 * want.norm()


@pytest.mark.parametrize("last", [False, True])
def test_results_do_not_depend_on_the_threads(last: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    x = batch((70, 18, 12, 12), last)
    given, g = mixture_of(x, 3), torch.randn(x.shape)
    before = torch.get_num_threads()
    try:
        found = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(results(x, g, given, (), "relu"))
        monkeypatch.setattr(launch, "_parallel", lambda: None)  # without an OpenMP runtime
        found.append(results(x, g, given, (), "relu"))
    finally:
        torch.set_num_threads(before)
    for one, *others in zip(*found, strict=True):
        assert all(torch.equal(one, other) for other in others)


@pytest.mark.parametrize("last", [False, True])
def test_constant_channels_and_empty_components_give_finite_numbers(last: bool) -> None:
    x = batch((5, 4, 4, 4), last)
    x[:, 1] = 1e4
    mixture, _ = mixture_of(x, 3)
    mixture.mean[0] = -1e6
    y, *moments, dx = results(x, torch.ones_like(x), (mixture, x.mean((0, 2, 3))), (), None)
    for one in (y, *moments, dx):
        assert one.isfinite().all()
    assert y[:, 1].abs().max() < 0.02
    assert (Moments(*moments).weight[0] == 0).all()


@pytest.mark.parametrize("last", [False, True])
def test_no_number_stays_none(last: bool) -> None:
    x = batch((5, 4, 4, 4), last)
    given = mixture_of(x, 3)
    x[2, 1, 0, 0] = torch.nan
    y, *moments, _ = results(x, torch.ones_like(x), given, (), "relu")
    assert y[:, 1].isnan().all()
    assert Moments(*moments).mean[:, 1].isnan().all()


def test_frozen_parts_get_no_gradient() -> None:
    x = batch((6, 4, 4, 4))
    given = mixture_of(x, 3)
    weight = torch.ones(4, requires_grad=True)
    y, _ = normalize_by_batch(x, given[0], weight, torch.zeros(4), EPS, center=given[1], act="gelu")
    (gradient,) = torch.autograd.grad(y.sum(), weight)
    with kernels.using("reference"):
        y, _ = normalize_by_batch(x, given[0], weight, torch.zeros(4), EPS, center=given[1], act="gelu")
    torch.testing.assert_close(gradient, *torch.autograd.grad(y.sum(), weight), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize(("count", "channels"), [(600, 20), (37, 5)])
def test_fits_as_the_eager_steps(empty: bool, count: int, channels: int) -> None:
    make = torch.Generator().manual_seed(count)
    samples = torch.randn(count, channels, generator=make)
    samples[: count // 3] += 3
    start = seeded(samples, 3, uniform(ZERO, ZERO, 1, 3), "joint")
    if empty:
        start.mean[1] += 1e4
    kept = Mixture(*(part.clone() for part in start))
    rest = 3, torch.full((channels,), 1e-3), uniform(ZERO, ZERO, 2, 3)
    ours = fitted(samples, start, *rest)
    with kernels.using("reference"):
        eager = fitted(samples, start, *rest)
        exact = fitted(
            samples.double(), Mixture(*(part.double() for part in start)), 3, rest[1].double(), rest[2]
        )
    check(list(ours), list(eager), list(exact))
    for one, before in zip(start, kept, strict=True):
        assert torch.equal(one, before)  # what was given is not changed
    none = fitted(samples, start, 0, torch.full((channels,), 1.5))
    assert torch.equal(none.var, start.var.clamp(min=1.5))


def test_everything_else_is_left_to_the_eager_kernels() -> None:
    x = torch.zeros(4, 3, 2, 2)
    assert implementation(x, 3, joint=True) == "numba"
    assert implementation(x, 3, joint=False) == "reference"
    assert implementation(x, 3, joint=True, posterior_gradient=True) == "reference"
    assert implementation(x.double(), 3, joint=True) == "reference"
    assert implementation(x[:0], 3, joint=True) == "reference"
    with kernels.using("reference"):
        assert implementation(x, 3, joint=True) == "reference"


@pytest.mark.parametrize("choice", ["reference", "auto"])
def test_a_narrow_component_far_from_the_center_keeps_its_variance(choice: str) -> None:
    """Per channel: 32 of 4,096 samples about 6 with deviation 0.01, the others about 0 with deviation 1."""
    torch.manual_seed(0)
    x = torch.randn(16, 3, 16, 16)
    few = torch.rand(16, 1, 16, 16) < 32 / 4096
    x = torch.where(few, 6 + 0.01 * torch.randn(16, 3, 16, 16), x)
    mixture = Mixture(
        torch.tensor([[0.99], [0.01]]).expand(2, 3),
        torch.tensor([[0.0], [6.01]]).expand(2, 3),
        torch.tensor([[1.0], [1e-4]]).expand(2, 3),
    )
    results = []
    for dtype, kernel in ((torch.float64, "reference"), (torch.float32, choice)):
        constants = Mixture(*(part.to(dtype) for part in mixture))
        with kernels.using(kernel):
            y, moments = normalize_by_batch(
                x.to(dtype), constants, None, None, 1e-5, center=torch.zeros(3, dtype=dtype)
            )
        results.append((y.double(), moments.var.double()))
    (exact, var), (found, ours) = results
    torch.testing.assert_close(ours, var, rtol=1e-5, atol=0)
    torch.testing.assert_close(found, exact, rtol=2e-3, atol=1e-3)
