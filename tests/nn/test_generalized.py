"""GeneralizedBatchNorm: BatchNorm's semantics in every corner, and BatchNorm itself for (mean, std)."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gbn import risk
from gbn.nn import (
    GeneralizedBatchNorm1d,
    GeneralizedBatchNorm2d,
    GeneralizedBatchNorm3d,
    MatchedBatchNorm2d,
    ReparametrizedBatchNorm2d,
)

C = 5
BY_SHAPE = [
    ((16, C), nn.BatchNorm1d, GeneralizedBatchNorm1d),
    ((8, C, 7), nn.BatchNorm1d, GeneralizedBatchNorm1d),
    ((4, C, 5, 3), nn.BatchNorm2d, GeneralizedBatchNorm2d),
    ((2, C, 3, 2, 4), nn.BatchNorm3d, GeneralizedBatchNorm3d),
]
OPTIONS = [
    dict(zip(("momentum", "affine", "track_running_stats"), values, strict=True))
    for values in itertools.product((0.1, 1.0, None), (True, False), (True, False))
]


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    make = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=make, dtype=torch.float64).to(dtype)


def pair_of_layers(ours: type, theirs: type, **options: Any) -> tuple[nn.Module, nn.Module]:
    a, b = ours(C, quadrangle="std", **options), theirs(C, **options)
    if options.get("affine", True):
        with torch.no_grad():
            for layer in (a, b):
                layer.weight.copy_(noise(C, seed=1) + 1)
                layer.bias.copy_(noise(C, seed=2))
    return a, b


@pytest.mark.parametrize(("shape", "theirs", "ours"), BY_SHAPE)
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_mean_and_std_is_batchnorm(
    shape: tuple[int, ...], theirs: type, ours: type, options: dict[str, Any], dtype: torch.dtype
) -> None:
    """Three training steps and an evaluation: results, gradients and buffers."""
    a, b = (layer.to(dtype) for layer in pair_of_layers(ours, theirs, **options))
    # float32: sums of up to 60 terms and one more rounding in the root than torch's rsqrt; float64 likewise
    close = {"rtol": 1e-12, "atol": 1e-12} if dtype == torch.float64 else {"rtol": 2e-5, "atol": 2e-5}
    for step in range(3):
        x = 3 * noise(*shape, seed=step, dtype=dtype) + 2
        xa, xb = x.clone().requires_grad_(), x.clone().requires_grad_()
        ya, yb = a(xa), b(xb)
        torch.testing.assert_close(ya, yb, **close)
        g = noise(*shape, seed=100 + step, dtype=dtype)
        ga = torch.autograd.grad(ya, [xa, *a.parameters()], g)
        gb = torch.autograd.grad(yb, [xb, *b.parameters()], g)
        for ours_, theirs_ in zip(ga, gb, strict=True):
            torch.testing.assert_close(ours_, theirs_, **close)
    assert a.state_dict().keys() == b.state_dict().keys()
    for name, value in b.state_dict().items():
        torch.testing.assert_close(a.state_dict()[name], value, **close)
    x = noise(*shape, seed=9, dtype=dtype)
    xa, xb = x.clone().requires_grad_(), x.clone().requires_grad_()
    ya, yb = a.eval()(xa), b.eval()(xb)
    torch.testing.assert_close(ya, yb, **close)
    ga = torch.autograd.grad(ya, [xa, *a.parameters()], g)
    for ours_, theirs_ in zip(ga, torch.autograd.grad(yb, [xb, *b.parameters()], g), strict=True):
        torch.testing.assert_close(ours_, theirs_, **close)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("module_too", [False, True])
def test_mean_and_std_is_batchnorm_in_low_precision(dtype: torch.dtype, module_too: bool) -> None:
    a, b = pair_of_layers(GeneralizedBatchNorm2d, nn.BatchNorm2d)
    if module_too:
        a, b = a.to(dtype), b.to(dtype)
    x = (3 * noise(8, C, 6, 6) + 2).to(dtype)
    xa, xb = x.clone().requires_grad_(), x.clone().requires_grad_()
    ya, yb = a(xa), b(xb)
    assert ya.dtype == yb.dtype == dtype
    ulp = torch.finfo(dtype).eps  # both round the same float32 numbers once or twice
    torch.testing.assert_close(ya, yb, rtol=2 * ulp, atol=2 * ulp)
    g = noise(8, C, 6, 6, seed=5).to(dtype)
    (da,), (db,) = torch.autograd.grad(ya, xa, g), torch.autograd.grad(yb, xb, g)
    torch.testing.assert_close(da, db, rtol=4 * ulp, atol=4 * ulp)
    for p, q in zip(a.buffers(), b.buffers(), strict=True):
        assert p.dtype == q.dtype
        torch.testing.assert_close(p, q, rtol=2 * ulp, atol=2 * ulp)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_mean_and_std_evaluate_as_batchnorm_bit_for_bit(dtype: torch.dtype, bias: bool) -> None:
    ours = GeneralizedBatchNorm2d(C, quadrangle="std", bias=bias)
    theirs = nn.BatchNorm2d(C)
    for step in range(3):
        theirs(3 * noise(8, C, 6, 6, seed=step) + 2)
    ours.load_state_dict(theirs.state_dict(), strict=bias)
    x = noise(1, C, 7, 7).to(dtype)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))
    # a gain of another dtype than the running averages is widened
    assert ours.weight is not None
    ours.weight.data = ours.weight.data.half()
    torch.testing.assert_close(ours(x), theirs(x))


def test_channel_of_tiny_spread_is_batchnorms_too() -> None:
    """Where eps decides: spread 1e-3, and a constant channel."""
    a, b = pair_of_layers(GeneralizedBatchNorm2d, nn.BatchNorm2d)
    x = noise(4, C, 6, 6) * torch.tensor([1.0, 1e-3, 0.0, 1e-2, 1.0]).view(1, C, 1, 1) + 0.25
    xa, xb = x.clone().requires_grad_(), x.clone().requires_grad_()
    ya, yb = a(xa), b(xb)
    torch.testing.assert_close(ya, yb, rtol=1e-4, atol=1e-4)
    g = noise(4, C, 6, 6, seed=3)
    (da,), (db,) = torch.autograd.grad(ya, xa, g), torch.autograd.grad(yb, xb, g)
    torch.testing.assert_close(da, db, rtol=1e-3, atol=1e-3 * db.abs().max().item())


@pytest.mark.parametrize("name", [name for name in risk.QUADRANGLES if name != "std"])
@pytest.mark.parametrize("momentum", [0.3, None])
def test_running_averages_of_a_pair_are_those_of_s_and_d(name: str, momentum: float | None) -> None:
    layer = GeneralizedBatchNorm2d(C, quadrangle=name, momentum=momentum)
    pair = risk.quadrangle(name)
    location, spread = torch.zeros(C), torch.ones(C)
    for step in range(3):
        x = 2 * noise(4, C, 6, 6, seed=step) + 1
        layer(x)
        share = 1 / (step + 1) if momentum is None else momentum
        location = (1 - share) * location + share * pair.statistic(x, (0, 2, 3))
        spread = (1 - share) * spread + share * pair.deviation(x, (0, 2, 3))
    torch.testing.assert_close(layer.running_statistic, location)
    torch.testing.assert_close(layer.running_deviation, spread)
    assert int(layer.num_batches_tracked) == 3
    x = noise(4, C, 6, 6, seed=9)
    shape = (1, C, 1, 1)
    expected = (x - location.view(shape)) / (spread.view(shape) + layer.eps) + layer.bias.detach().view(shape)
    torch.testing.assert_close(layer.eval()(x), expected)
    layer.reset_running_stats()
    assert (layer.running_statistic == 0).all()
    assert (layer.running_deviation == 1).all()
    assert int(layer.num_batches_tracked) == 0


def test_without_tracking_evaluation_uses_the_batch() -> None:
    layer = GeneralizedBatchNorm2d(C, quadrangle="cvar", track_running_stats=False)
    assert list(layer.buffers()) == []
    x = noise(4, C, 6, 6)
    assert torch.equal(layer.eval()(x), layer.train()(x))
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        layer.eval()(noise(1, C, 1, 1))


def test_tracking_switched_off_later_freezes_the_averages() -> None:
    """BatchNorm's semantics when the attribute is changed on a built layer."""
    layers = pair_of_layers(GeneralizedBatchNorm2d, nn.BatchNorm2d)
    for layer in layers:
        layer.track_running_stats = False
        layer(3 * noise(4, C, 6, 6))
    for a, b in zip(layers[0].buffers(), layers[1].buffers(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", list(risk.QUADRANGLES))
def test_output_ignores_scale_and_place_where_the_pair_is_homogeneous(name: str) -> None:
    layer = GeneralizedBatchNorm2d(C, quadrangle=name, eps=0.0)
    x = noise(6, C, 5, 5, dtype=torch.float64).exp()
    same = torch.allclose(layer(7 * x - 3), layer(x), rtol=1e-6, atol=1e-6)
    assert same == risk.quadrangle(name).homogeneous


@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.75, 0.9])
def test_active_share_before_a_relu_is_one_minus_alpha(alpha: float) -> None:
    """At gain 1 and bias 0, whatever the distribution (papers: why the quantile pair fits ReLU)."""
    layer = GeneralizedBatchNorm2d(C, quadrangle="cvar", alpha=alpha, act="relu")
    x = noise(10, C, 10, 10).exp()  # 1,000 values a channel, no ties
    active = (layer(x) > 0).sum((0, 2, 3))
    assert (active == round(1000 * (1 - alpha))).all()


@pytest.mark.parametrize("name", [n for n in risk.QUADRANGLES if risk.quadrangle(n).homogeneous])
def test_rescaled_deviation_is_sigma_on_a_gaussian(name: str) -> None:
    n = 64 * 16 * 16
    layer = GeneralizedBatchNorm2d(2, quadrangle=name, rescaled=True, samples=n)
    x = 3 * noise(64, 2, 16, 16, seed=4) + 1
    y = layer(x)
    # y = (x - S) / (D/c): its own spread is that of x in units of sigma, that is 1. Extremes of one sample of n
    # scatter by about 0.25 sigma of 4 sigma; the others by about n^(-1/2).
    extremes = ("range", "worst_case", "upper_range", "lower_range")
    torch.testing.assert_close(
        y.std((0, 2, 3)), torch.ones(2), rtol=0, atol=0.2 if name in extremes else 0.03
    )
    raw = GeneralizedBatchNorm2d(2, quadrangle=name)
    c = risk.quadrangle(name).gaussian(n)[1]
    torch.testing.assert_close(y, c * raw(x), rtol=1e-3, atol=1e-3)
    for a, b in zip(layer.buffers(), raw.buffers(), strict=True):  # D itself is what is averaged
        assert torch.equal(a, b)


def test_rescaled_without_affine() -> None:
    options = {"eps": 1e-3, "rescaled": True}
    x = noise(4, C, 6, 6).bfloat16()
    plain, affine = GeneralizedBatchNorm2d(C, affine=False, **options), GeneralizedBatchNorm2d(C, **options)
    assert torch.equal(plain(x), affine(x))
    assert torch.equal(plain.eval()(x), affine.eval()(x))


def test_worst_case_is_alive_before_a_relu() -> None:
    """(x - max) / (max - mean) is never positive; the bias starts where the mean is 0."""
    layer = GeneralizedBatchNorm2d(C, quadrangle="worst_case", act="relu")
    share = (layer(noise(16, C, 8, 8)) > 0).float().mean((0, 2, 3))
    assert ((share > 0.4) & (share < 0.6)).all()
    rescaled = GeneralizedBatchNorm2d(C, quadrangle="worst_case", act="relu", rescaled=True, samples=1024)
    share = (rescaled(noise(16, C, 8, 8)) > 0).float().mean((0, 2, 3))
    assert ((share > 0.4) & (share < 0.6)).all()


@pytest.mark.parametrize("options", [{"affine": False, "quadrangle": "worst_case"}, {"deviation": "std"}])
def test_dead_layers_are_announced(options: dict[str, Any]) -> None:
    with pytest.warns(UserWarning, match="leaves no value above 0"):
        GeneralizedBatchNorm2d(C, **{"statistic": "maximum", **options}, act="relu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        GeneralizedBatchNorm2d(C, **{"statistic": "maximum", **options}, act="silu")


def test_statistic_and_deviation_apart() -> None:
    x = noise(6, C, 4, 4).exp()
    layer = GeneralizedBatchNorm2d(
        C, statistic={"name": "quantile", "alpha": 0.6}, deviation=risk.deviation("cvar", alpha=0.8), eps=0.0
    )
    s = risk.statistic("quantile", alpha=0.6)(x, (0, 2, 3), True)
    d = risk.deviation("cvar", alpha=0.8)(x, (0, 2, 3), True)
    torch.testing.assert_close(layer(x), (x - s) / d)
    one = GeneralizedBatchNorm2d(C, quadrangle="cvar", alpha=0.8, statistic="mean", eps=0.0)
    torch.testing.assert_close(one(x), (x - x.mean((0, 2, 3), True)) / d)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quadrangle": "cvr"}, "did you mean 'cvar'"),
        ({"alpha": 1.5}, "between 0 and 1"),
        ({"alhpa": 0.5}, "alpha"),
        ({"quantile_gradient": "exactly"}, "one of exact"),
        ({"statistic": {"alpha": 0.5}}, "has no name"),
        ({"statistic": "mean", "deviation": "cvar", "alpha": 0.5}, "belongs to neither"),
        ({"quadrangle": None, "statistic": "mean"}, "deviation is missing"),
        ({"act": "rleu"}, "did you mean 'relu'"),
        ({"quadrangle": "range", "rescaled": True}, "sample size"),
        ({"quadrangle": "entropic", "rescaled": True}, "not positively homogeneous"),
        ({"num_features": 0}, "at least 1"),
        ({"eps": -1e-5}, "at least 0"),
    ],
)
def test_bad_arguments_say_what_is_allowed(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GeneralizedBatchNorm2d(**{"num_features": C, **options})


def test_bad_inputs_say_what_is_expected() -> None:
    layer = GeneralizedBatchNorm2d(C)
    with pytest.raises(ValueError, match=r"expects 4D input, got 2D \(8, 5\)"):
        layer(noise(8, C))
    with pytest.raises(ValueError, match="num_features=5, got an input with 6"):
        layer(noise(8, C + 1, 2, 2))
    with pytest.raises(ValueError, match=r"floating point input, got torch\.int64"):
        layer(torch.zeros(2, C, 2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match="expects 2D or 3D input"):
        GeneralizedBatchNorm1d(C)(noise(8, C, 2, 2))


def test_repr_names_the_pair() -> None:
    text = repr(GeneralizedBatchNorm2d(C, quadrangle="cvar", alpha=0.9, act="relu", rescaled=True))
    for part in ("5, eps=1e-05", "momentum=0.1", "alpha=0.9", "act='relu'", "rescaled=True"):
        assert part in text


def test_is_no_subclass_of_batchnorm() -> None:
    for layer in (
        GeneralizedBatchNorm2d(C, quadrangle="std"),
        MatchedBatchNorm2d(C, matched_to={"quadrangle": "cvar"}),
    ):
        assert not isinstance(layer, nn.modules.batchnorm._BatchNorm)
    assert not issubclass(ReparametrizedBatchNorm2d, nn.modules.batchnorm._BatchNorm)
