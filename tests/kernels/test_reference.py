"""The reference kernel against float64 autograd of the same composition, written with gbn.risk."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gbn import kernels, risk
from gbn.kernels import reference
from gbn.kernels.epsilon import denominator, denominator_slope
from gbn.risk.parameters import QUADRANGLE_PARAMETERS

EPS = 1e-3  # large enough to be seen in every comparison
PAIRS = [
    pytest.param(name, mode, id=name if mode is None else f"{name}-{mode}")
    for name in risk.QUADRANGLES
    for mode in (risk.GRADIENT_MODES if "quantile_gradient" in QUADRANGLE_PARAMETERS[name] else (None,))
]


def build(name: str, mode: str | None) -> risk.Quadrangle:
    return risk.quadrangle(name, **({} if mode is None else {"quantile_gradient": mode}))


def composition(x: Tensor, weight: Tensor, bias: Tensor, pair: risk.Quadrangle, eps: float) -> Tensor:
    """The definition, each operation differentiated by autograd."""
    dims = (0, *range(2, x.dim()))
    shape = (1, -1, *[1] * (x.dim() - 2))
    s, d = pair.statistic(x, dims, True), pair.deviation(x, dims, True)
    divisor = (d.square() + eps).sqrt() if pair.D.name == "std" else d + eps
    return (x - s) / divisor * weight.view(shape) + bias.view(shape)


def sample(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> tuple[Tensor, ...]:
    """x (skewed, channels of different scale and place), weight, bias and a random cotangent."""
    make = torch.Generator().manual_seed(seed)
    c = shape[1]
    per_channel = (1, c, *[1] * (len(shape) - 2))
    x = torch.randn(shape, generator=make, dtype=torch.float64).exp()
    x = x * torch.linspace(0.5, 3, c, dtype=torch.float64).view(per_channel)
    x = x + torch.linspace(-2, 5, c, dtype=torch.float64).view(per_channel)
    weight = torch.rand(c, generator=make, dtype=torch.float64) + 0.5
    bias = torch.randn(c, generator=make, dtype=torch.float64)
    cotangent = torch.randn(shape, generator=make, dtype=torch.float64)
    return tuple(t.to(dtype) for t in (x, weight, bias, cotangent))


def gradients(y: Tensor, cotangent: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(y, inputs, cotangent)


@pytest.mark.parametrize(("name", "mode"), PAIRS)
def test_value_and_gradients_are_those_of_the_composition(name: str, mode: str | None) -> None:
    pair = build(name, mode)
    x, weight, bias, cotangent = (t.requires_grad_() for t in sample(4, 3, 5, 2))
    expected = composition(x, weight, bias, pair, EPS)
    y, s, d = kernels.normalize(x, weight, bias, pair.S, pair.D, EPS)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(s, pair.statistic(x, (0, 2, 3)).detach())
    torch.testing.assert_close(d, pair.deviation(x, (0, 2, 3)).detach())
    inputs = (x, weight, bias)
    wanted = gradients(expected, cotangent.detach(), *inputs)
    for got, want in zip(gradients(y, cotangent.detach(), *inputs), wanted, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize(("name", "mode"), PAIRS)
def test_tied_samples(name: str, mode: str | None) -> None:
    """Few distinct values, as after a ReLU or in low precision; one channel is constant."""
    pair = build(name, mode)
    x, weight, bias, cotangent = sample(6, 3, 4, 4, seed=1)
    x = x.round()
    x[:, 1] = x[:, 1].clamp_min(x[:, 1].median())
    x[:, 2] = 0.7
    for t in (x, weight, bias):
        t.requires_grad_()
    y, _, _ = kernels.normalize(x, weight, bias, pair.S, pair.D, EPS)
    wanted = gradients(composition(x, weight, bias, pair, EPS), cotangent, x, weight, bias)
    for got, want in zip(gradients(y, cotangent, x, weight, bias), wanted, strict=True):
        assert got.isfinite().all()
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("name", list(risk.QUADRANGLES))
def test_sum_rules_of_the_input_gradient(name: str) -> None:
    """Exact gradients: sum dx = 0 for every pair; sum x dx = 0 (at eps = 0) for a homogeneous one."""
    mode = "exact" if "quantile_gradient" in QUADRANGLE_PARAMETERS[name] else None
    pair = build(name, mode)
    x, weight, bias, cotangent = sample(8, 3, 4, 4, seed=2)
    x.requires_grad_()
    y, _, _ = kernels.normalize(x, weight, bias, pair.S, pair.D, 0.0)
    (dx,) = gradients(y, cotangent, x)
    size = dx.abs().sum((0, 2, 3))
    assert (dx.sum((0, 2, 3)).abs() < 1e-10 * size).all()
    along_x = (x * dx).sum((0, 2, 3)).abs() / (x.abs() * dx.abs()).sum((0, 2, 3))
    assert (along_x < 1e-8).all() == pair.homogeneous


@pytest.mark.parametrize("name", ["std", "cvar", "expectile", "range"])
@given(
    seed=st.integers(0, 10_000),
    channels=st.integers(1, 7),
    images=st.integers(1, 5),
    height=st.integers(1, 4),
    block=st.sampled_from([1, 7, 30, 1 << 17]),
)
def test_blocks_of_channels_do_not_show(
    name: str, seed: int, channels: int, images: int, height: int, block: int
) -> None:
    x, weight, bias, cotangent = sample(images, channels, height, 3, seed=seed)
    pair = build(name, None)
    x.requires_grad_()
    whole = reference._BLOCK_VALUES
    try:
        reference._BLOCK_VALUES = block
        y, s, d = kernels.normalize(x, weight, bias, pair.S, pair.D, EPS)
        (dx,) = gradients(y, cotangent, x)
    finally:
        reference._BLOCK_VALUES = whole
    expected = composition(x, weight, bias, pair, EPS)
    assert s.shape == d.shape == (channels,)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(dx, gradients(expected, cotangent, x)[0])


@pytest.mark.parametrize("block", [1, 200, 1 << 17])
@pytest.mark.parametrize(
    ("shape", "memory_format"),
    [
        ((4, 5, 6, 3), torch.channels_last),
        ((2, 5, 3, 2, 4), torch.channels_last_3d),
        ((4, 5, 6, 3), torch.contiguous_format),
        ((9, 5), torch.contiguous_format),
        ((4, 5, 7), torch.contiguous_format),
    ],
)
def test_memory_formats(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], memory_format: torch.memory_format, block: int
) -> None:
    monkeypatch.setattr(reference, "_BLOCK_VALUES", block)
    x, weight, bias, cotangent = sample(*shape)
    pair = build("cvar", None)
    plain = x.clone().requires_grad_()
    formatted = x.to(memory_format=memory_format).requires_grad_()
    y, _, _ = kernels.normalize(formatted, weight, bias, pair.S, pair.D, EPS, "relu")
    assert y.is_contiguous(memory_format=memory_format)
    expected = composition(plain, weight, bias, pair, EPS).relu()
    torch.testing.assert_close(y, expected.contiguous(memory_format=memory_format))
    for given_format in (memory_format, torch.contiguous_format):  # the cotangent may come in either
        g = cotangent.to(memory_format=given_format)
        (dx,) = torch.autograd.grad(y, formatted, g, retain_graph=True)
        assert dx.is_contiguous(memory_format=memory_format)
        (want,) = torch.autograd.grad(expected, plain, cotangent, retain_graph=True)
        torch.testing.assert_close(dx, want.contiguous(memory_format=memory_format))


def test_an_input_that_is_a_strided_view() -> None:
    x, weight, bias, cotangent = sample(4, 6, 5, 8)
    pair = build("cvar", None)
    view = x.requires_grad_()[:, ::2, :, 1::3]
    y, _, _ = kernels.normalize(view, weight[::2], bias[::2], pair.S, pair.D, EPS)
    expected = composition(view, weight[::2], bias[::2], pair, EPS)
    torch.testing.assert_close(y, expected)
    g = cotangent[:, ::2, :, 1::3]
    torch.testing.assert_close(gradients(y, g, x)[0], gradients(expected, g, x)[0])


@pytest.mark.parametrize("name", ["std", "cvar", "mad", "huber", "worst_case"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_low_precision_input_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    """Result and gradients are the float64 ones of the same (rounded) inputs, rounded once at the end."""
    pair = build(name, None)
    x, weight, bias, cotangent = sample(16, 3, 8, 8)
    x, cotangent = x.to(dtype), cotangent.to(dtype)
    low = [x.clone().requires_grad_(), weight.float().requires_grad_(), bias.float().requires_grad_()]
    high = [t.detach().double().requires_grad_() for t in low]
    y, s, _ = kernels.normalize(low[0], low[1], low[2], pair.S, pair.D, EPS)
    assert (y.dtype, s.dtype) == (dtype, torch.float32)
    expected = composition(*high, pair, EPS)
    # one rounding of the result in its dtype (half an ulp, eps/2, relative to the largest term), plus
    # float32's error of sums of 1024 terms, some 10 eps32 of the sum of magnitudes
    tolerance = torch.finfo(dtype).eps + 20 * torch.finfo(torch.float32).eps
    assert (y - expected).abs().max() <= tolerance * expected.abs().max()
    got, wanted = gradients(y, cotangent, *low), gradients(expected, cotangent.double(), *high)
    for a, b, like in zip(got, wanted, low, strict=True):
        assert a.dtype == like.dtype
        assert (a - b).abs().max() <= tolerance * max(b.abs().max(), 1.0)


def test_large_offset_does_not_cancel() -> None:
    """Channel values around 1e4 with spread 1: what is lost is the input's rounding, not more."""
    pair = build("cvar", None)
    x, weight, bias, cotangent = sample(16, 2, 8, 8)
    x = (x + 1e4).float()
    low, high = x.clone().requires_grad_(), x.double().requires_grad_()
    y, _, _ = kernels.normalize(low, weight.float(), bias.float(), pair.S, pair.D, EPS)
    expected = composition(high, weight, bias, pair, EPS)
    (dx,), (wanted,) = gradients(y, cotangent.float(), low), gradients(expected, cotangent, high)
    assert (dx - wanted).abs().max() < 1e-4 * wanted.abs().max()


@pytest.mark.parametrize("missing", ["weight", "bias", "both"])
def test_gain_and_bias_may_be_missing(missing: str) -> None:
    pair = build("cvar", None)
    x, weight, bias, cotangent = sample(4, 3, 5, 2)
    x.requires_grad_()
    gain = None if missing in ("weight", "both") else weight
    shift = None if missing in ("bias", "both") else bias
    y, _, _ = kernels.normalize(x, gain, shift, pair.S, pair.D, EPS)
    expected = composition(
        x,
        torch.ones_like(weight) if gain is None else gain,
        torch.zeros_like(bias) if shift is None else shift,
        pair,
        EPS,
    )
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(gradients(y, cotangent, x)[0], gradients(expected, cotangent, x)[0])


def test_gradients_of_parameters_only() -> None:
    """The first layer's images need no gradient."""
    pair = build("cvar", None)
    x, weight, bias, cotangent = sample(4, 3, 5, 2)
    weight.requires_grad_(), bias.requires_grad_()
    y, _, _ = kernels.normalize(x, weight, bias, pair.S, pair.D, EPS)
    expected = composition(x, weight, bias, pair, EPS)
    for got, want in zip(
        gradients(y, cotangent, weight, bias), gradients(expected, cotangent, weight, bias), strict=True
    ):
        torch.testing.assert_close(got, want)


def test_second_derivative_is_refused_not_wrong() -> None:
    pair = build("cvar", None)
    x, weight, bias, cotangent = sample(4, 3, 5, 2)
    x.requires_grad_()
    y, _, _ = kernels.normalize(x, weight, bias, pair.S, pair.D, EPS)
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(y, x, cotangent, create_graph=True)


@pytest.mark.parametrize("act", [None, *kernels.ACTIVATIONS])
def test_activation_is_applied_and_differentiated(act: str | None) -> None:
    pair = build("cvar", None)
    x, weight, bias, cotangent = sample(4, 3, 5, 2)
    x.requires_grad_()
    y, _, _ = kernels.normalize(x, weight, bias, pair.S, pair.D, EPS, act)
    expected = composition(x, weight, bias, pair, EPS)
    expected = expected if act is None else kernels.ACTIVATIONS[act](expected)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(gradients(y, cotangent, x)[0], gradients(expected, cotangent, x)[0])


@pytest.mark.parametrize("name", ["std", "cvar"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_normalize_with_given_values(name: str, dtype: torch.dtype) -> None:
    pair = build(name, None)
    x, weight, bias, cotangent = sample(4, 3, 5, 2, dtype=dtype)
    s, d = torch.tensor([0.5, -1, 2]), torch.tensor([0.3, 1, 4])
    x.requires_grad_()
    y = kernels.normalize_with(x, s, d, weight, bias, pair.D, EPS, "relu")
    assert y.dtype == dtype
    wide = x.detach().double().requires_grad_()
    divisor = denominator(pair.D, d.double(), EPS)
    shape = (1, 3, 1, 1)
    expected = (wide - s.double().view(shape)) / divisor.view(shape) * weight.double().view(shape)
    expected = (expected + bias.double().view(shape)).relu()
    close = {} if dtype == torch.float64 else {"rtol": 2e-2, "atol": 5e-2}
    torch.testing.assert_close(y.double(), expected, **close)
    (dx,), (want,) = gradients(y, cotangent, x), gradients(expected, cotangent.double(), wide)
    off = ((dx.double() - want).abs() > 2e-2 * want.abs().max()).double().mean()
    # a result that rounds across 0 switches its ReLU: none in float64, at most one of 120 in bfloat16
    assert off <= (0 if dtype == torch.float64 else 1 / 120)


def test_eps_is_inside_the_root_for_std_and_beside_d_elsewhere() -> None:
    value = torch.tensor([0.0, 0.5, 2.0], dtype=torch.float64, requires_grad=True)
    for name in risk.DEVIATIONS:
        deviation = risk.deviation(name)
        divisor = denominator(deviation, value, 0.25)
        expected = (value**2 + 0.25) ** 0.5 if name == "std" else value + 0.25
        torch.testing.assert_close(divisor, expected)
        (slope,) = torch.autograd.grad(divisor.sum(), value)
        torch.testing.assert_close(denominator_slope(deviation, value, divisor), slope)
