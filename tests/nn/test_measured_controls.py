"""The measured controls, the tracking control and the starts, against the formulas written out in float64."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gbn import kernels, risk
from gbn.methods import CONTROLS
from gbn.nn import calibrate, norm_layer
from gbn.nn.instance_enhancement import initial_gate

C = 5
EPS = 1e-30  # in most tests the functions are compared, not the places of eps
MEASURED = ("bn_measured_matched", "bn_measured_reparam")
PAIRS: dict[str, dict[str, Any]] = {
    "cvar": {"quadrangle": "cvar", "alpha": 0.9, "quantile_gradient": "exact"},
    "mad": {"quadrangle": "mad"},
    "worst_case": {"quadrangle": "worst_case"},
    "entropic": {"quadrangle": "entropic"},
    "mean+upper": {"statistic": {"name": "mean"}, "deviation": {"name": "upper_semideviation"}},
}
SHAPES = [(7, C), (5, C, 3), (4, C, 3, 5), (3, C, 2, 3, 2)]


def images(*shape: int, seed: int = 0) -> Tensor:
    """Skewed, channels of different scale and place."""
    make = torch.Generator().manual_seed(seed)
    x = torch.randn(shape or (6, C, 3, 4), generator=make, dtype=torch.float64).exp()
    return x * per_channel(torch.linspace(0.5, 3, C), x) + per_channel(torch.linspace(-2, 2, C), x)


def noise(like: Tensor) -> Tensor:
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(9), dtype=like.dtype)


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.to(x.dtype).view(1, -1, *[1] * (x.dim() - 2))


def moments(x: Tensor, pair: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean, standard deviation, S and D of each channel: torch's, and those of the definitions in gbn.risk."""
    of, x = norm_layer("gbn", **pair)(C, act=None).pair, x.detach()
    rows = x.transpose(0, 1).flatten(1)
    with kernels.using("reference"):
        _, s, d = kernels.normalize(x, None, None, of.statistic, of.deviation, 1.0)
    return rows.mean(1), rows.std(1, correction=0), s, d


def layer_of(
    method: str, pair: dict[str, Any], x: Tensor, act: str | None = None, **options: Any
) -> nn.Module:
    pair = {"matched_to": pair} if method in CONTROLS else pair
    norm = norm_layer(method, **pair, **{"eps": EPS, **options})
    return norm(C, act=act, dim=max(1, x.dim() - 2), dtype=torch.float64)


def moved(layer: nn.Module) -> nn.Module:
    """Gain and bias away from their start."""
    with torch.no_grad():
        layer.weight.copy_(torch.linspace(-1, 2, C))
        layer.bias.copy_(torch.linspace(1, -1, C))
    return layer


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("method", [*MEASURED, "bn_tracking"])
def test_the_first_batch_gets_the_pairs_function(method: str, name: str, shape: tuple[int, ...]) -> None:
    x = images(*shape)
    expected = layer_of("gbn", PAIRS[name], x, "relu")(x)
    torch.testing.assert_close(layer_of(method, PAIRS[name], x, "relu")(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", PAIRS)
@pytest.mark.parametrize("method", MEASURED)
def test_what_is_measured_is_the_pairs_own_and_stays(method: str, name: str) -> None:
    first, later = images(), images(seed=1)
    layer = layer_of(method, PAIRS[name], first)
    assert layer.measured_batches == 0
    layer(first)
    mean, std, s, d = moments(first, PAIRS[name])
    k, c = layer.matched_shift.clone(), layer.matched_scale.clone()
    torch.testing.assert_close(mean + k * std, s)
    torch.testing.assert_close(c * std, d)
    layer(later)
    assert torch.equal(layer.matched_shift, k)
    assert torch.equal(layer.matched_scale, c)
    assert layer.measured_batches == 1


@pytest.mark.parametrize("name", PAIRS)
def test_reparametrized_is_batchnorm_with_constants(name: str) -> None:
    """gain (x_hat - k)/c + bias at any gain and bias, and all its gradients, on a batch after the first."""
    first, x = images(), images(seed=1).requires_grad_()
    layer = layer_of("bn_measured_reparam", PAIRS[name], first, eps=1e-3)
    layer(first)
    mean, std, s, d = moments(first, PAIRS[name])
    k, c = (s - mean) / std, d / std
    moved(layer)
    gain, bias = (p.detach().clone().requires_grad_() for p in (layer.weight, layer.bias))
    variance = x.var((0, 2, 3), correction=0)
    x_hat = (x - per_channel(x.mean((0, 2, 3)), x)) / per_channel(variance + 1e-3, x).sqrt()
    expected = per_channel(gain, x) * (x_hat - per_channel(k, x)) / per_channel(c, x) + per_channel(bias, x)
    y, g = layer(x), noise(x)
    torch.testing.assert_close(y, expected)
    ours = torch.autograd.grad(y, [x, layer.weight, layer.bias], g)
    for a, b in zip(ours, torch.autograd.grad(expected, [x, gain, bias], g), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("name", PAIRS)
def test_matched_is_batchnorm_started_there(name: str) -> None:
    """Only its parameters are measured: BatchNorm with the same ones does the same with every later batch."""
    first = images()
    layer = layer_of("bn_measured_matched", PAIRS[name], first)
    start = layer.bias.detach().clone()
    layer(first)
    mean, std, s, d = moments(first, PAIRS[name])
    torch.testing.assert_close(layer.weight.detach(), std / d)
    torch.testing.assert_close(layer.bias.detach(), start - (s - mean) / d)
    plain = nn.BatchNorm2d(C, eps=EPS).double()
    state = layer.state_dict()
    plain.load_state_dict({key: state[key] for key in plain.state_dict()})
    for training in (True, False):
        x = images(seed=1)
        assert torch.equal(layer.train(training)(x), plain.train(training)(x))


@pytest.mark.parametrize("eps", [1e-5, 0.1])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", PAIRS)
def test_tracking_is_the_pair_forward_and_batchnorm_backward(
    name: str, shape: tuple[int, ...], eps: float
) -> None:
    x = images(*shape).requires_grad_()
    layer, pair = (
        moved(layer_of(method, PAIRS[name], x, "silu", eps=eps)) for method in ("bn_tracking", "gbn")
    )
    y, expected, g = layer(x), pair(x), noise(x)
    assert torch.equal(y, expected)
    ours = torch.autograd.grad(y, [x, layer.weight, layer.bias], g)
    theirs = torch.autograd.grad(expected, [pair.weight, pair.bias], g)
    for a, b in zip(ours[1:], theirs, strict=True):
        torch.testing.assert_close(a, b)
    # The k and c of this batch as constants, for sigma = sqrt(var + eps) and the divisor D + eps.
    dims = [0, *range(2, x.dim())]
    _, _, s, d = moments(x, PAIRS[name])
    mean, sigma = x.mean(dims), (x.var(dims, correction=0) + eps).sqrt()
    k, c = ((s - mean) / sigma).detach(), ((d + eps) / sigma).detach()
    z = (x - per_channel(mean + k * sigma, x)) / per_channel(c * sigma, x)
    frozen = nn.functional.silu(
        per_channel(layer.weight.detach(), x) * z + per_channel(layer.bias.detach(), x)
    )
    torch.testing.assert_close(frozen, expected)
    torch.testing.assert_close(ours[0], torch.autograd.grad(frozen, x, g)[0])
    for training in (True, False):
        assert torch.equal(layer.train(training)(x), pair.train(training)(x))
    for a, b in zip(layer.buffers(), pair.buffers(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["cvar", "entropic"])
def test_the_gate_of_the_tracking_control(name: str) -> None:
    """The gate's gradients are the pair's; that of x passes through the gate as well as through mu and sigma."""
    gated = {**PAIRS[name], "instance_enhancement": True}
    x = images().requires_grad_()
    layer, pair = (moved(layer_of(method, gated, x)) for method in ("bn_tracking", "gbn"))
    for one in (layer, pair):
        with torch.no_grad():
            one.gate_weight.copy_(torch.linspace(-1, 1, C))
    y, expected, g = layer(x), pair(x), noise(x)
    torch.testing.assert_close(y, expected)
    assert [key for key, _ in layer.named_parameters()] == ["weight", "bias", "gate_weight", "gate_bias"]
    ours = torch.autograd.grad(y, [x, *layer.parameters()], g)
    for a, b in zip(ours[1:], torch.autograd.grad(expected, list(pair.parameters()), g), strict=True):
        torch.testing.assert_close(a, b)
    mean, std, s, d = moments(x, PAIRS[name])
    mu, sigma = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0).sqrt()
    z = (x - per_channel(mu + (s - mean) / std * sigma, x)) / per_channel(d / std * sigma, x)
    gate = torch.sigmoid(x.mean((2, 3)) * layer.gate_weight + layer.gate_bias)[..., None, None]
    frozen = gate * z * per_channel(layer.weight, x)
    torch.testing.assert_close(ours[0], torch.autograd.grad(frozen, x, g)[0])


@pytest.mark.parametrize("method", MEASURED)
@pytest.mark.parametrize("rescaled", [False, True])
def test_measured_controls_of_a_gated_and_of_a_rescaled_pair(method: str, rescaled: bool) -> None:
    x, pair = images(), {**PAIRS["mad"], "instance_enhancement": True, "gate_bias": 0.5}
    layer = layer_of(method, pair, x, rescaled=rescaled)
    torch.testing.assert_close(layer(x), layer_of("gbn", pair, x, rescaled=rescaled)(x))
    _, std, _, d = moments(x, PAIRS["mad"])
    c = risk.quadrangle("mad").gaussian()[1] if rescaled else 1.0
    torch.testing.assert_close(layer.matched_scale, d / std / c / initial_gate(0.5))


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize("name", ["cvar", "mad", "mean+upper"])
def test_a_pair_that_starts_at_batchnorms_function(name: str, rescaled: bool, gated: bool) -> None:
    pair, x = {**PAIRS[name], "instance_enhancement": gated}, images()
    measured = layer_of("gbn", pair, x, rescaled=rescaled, start="bn_measured")
    torch.testing.assert_close(measured(x), nn.BatchNorm2d(C, eps=EPS, affine=False).double()(x))
    mean, std, s, d = moments(x, PAIRS[name])
    torch.testing.assert_close(measured.bias.detach(), (s - mean) / std)
    gaussian = layer_of("gbn", pair, x, rescaled=rescaled, start="bn")
    k, c = gaussian.pair.gaussian()
    gate = initial_gate(-1.0) if gated else 1.0
    assert gaussian.weight[0].item() == pytest.approx((1.0 if rescaled else c) / gate)
    torch.testing.assert_close(gaussian(x), per_channel(c / d, x) * (x - per_channel(s, x)) + k)


def test_a_start_is_measured_once() -> None:
    x = images()
    layer = layer_of("gbn", PAIRS["cvar"], x, start="bn_measured")
    layer(x)
    start = layer.weight.detach().clone()
    layer(images(seed=1))
    assert torch.equal(layer.weight, start)
    layer.reset_parameters()
    assert (layer.weight == 1).all()
    assert layer.measured_batches == 0
    assert "measured_batches" not in layer_of("gbn", PAIRS["cvar"], x).state_dict()


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("gbn", {"start": "bn", "quadrangle": "entropic"}, "not positively homogeneous"),
        ("gbn", {"start": "bn", "quadrangle": "range"}, "sample size"),
        ("gbn", {"start": "bn", "affine": False}, "needs affine=True"),
        ("gbn", {"start": "bn_measured", "bias": False}, "needs bias=True"),
        ("gbn", {"start": "bn_mesured"}, "did you mean 'bn_measured'"),
        ("bn_tracking", {"matched_to": {"quadrangle": "cvar", "start": "bn"}}, "unknown parameter 'start'"),
        ("bn_measured_matched", {"matched_to": "gbn_cvar", "affine": False}, "needs affine=True"),
        ("bn_measured_reparam", {"matched_to": "gbn_range", "rescaled": True}, "sample size"),
    ],
)
def test_what_cannot_be_is_refused(method: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        norm_layer(method, **options)


@pytest.mark.parametrize("method", MEASURED)
def test_channels_without_calibration_stay_batchnorms(method: str) -> None:
    """Constant, up to rounding."""
    x = images(8, C, 4, 4).float()
    x[:, 0], x[:, 1], x[:, 2] = 0.0, 0.1, 1e12
    layer = norm_layer(method, matched_to="gbn_cvar")(C, act=None)
    y = layer(x)
    assert y.isfinite().all()
    torch.testing.assert_close(y[:, :3], norm_layer("bn")(C, act=None)(x)[:, :3])
    assert (layer.matched_scale[:3] == 1).all()
    assert (layer.matched_scale[3:] != 1).all()


@pytest.mark.parametrize("x", [torch.zeros(4, C), torch.ones(4, C).cumsum(0) // 3], ids=["constant", "ties"])
def test_tracking_where_channels_are_constant_or_tied(x: Tensor) -> None:
    x = x.double().requires_grad_()
    layer, pair = (layer_of(method, PAIRS["mad"], x, "relu", eps=1e-5) for method in ("bn_tracking", "gbn"))
    y = layer(x)
    assert torch.equal(y, pair(x))  # a value equal to S gives exactly 0, so that no tie passes a ReLU
    y.backward(noise(x))
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("method", MEASURED)
def test_only_a_training_batch_is_measured(method: str) -> None:
    x = images()
    layer = layer_of(method, PAIRS["cvar"], x)
    calibrate(nn.Sequential(layer), [x])
    layer.eval()(x)
    layer.train()(x[:0])
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        layer(x[:1, :, :1, :1])
    assert layer.measured_batches == 0
    layer(x)
    assert layer.measured_batches == 1


@pytest.mark.parametrize("method", [*MEASURED, "gbn"])
def test_a_copy_or_a_checkpoint_goes_on_before_and_after_the_first_batch(method: str) -> None:
    x, later = images(), images(seed=1)
    options = {"start": "bn_measured"} if method == "gbn" else {}
    whole, resumed, fresh = (layer_of(method, PAIRS["cvar"], x, **options) for _ in range(3))
    before = copy.deepcopy(whole)
    state = copy.deepcopy(whole.state_dict())
    whole(x)
    assert torch.equal(before(x), whole(x))
    resumed.load_state_dict(whole.state_dict())
    for _ in range(2):
        assert torch.equal(resumed(later), whole(later))
    for a, b in zip(resumed.state_dict().values(), whole.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    resumed.load_state_dict(state)  # one that was saved before the first batch measures its own
    assert torch.equal(resumed(later), fresh(later))


@pytest.mark.filterwarnings("ignore:.*use_reentrant")
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("method", [*MEASURED, "bn_tracking"])
def test_under_gradient_checkpointing(method: str, reentrant: bool) -> None:
    results = []
    for again in (False, True):
        x = images().requires_grad_()
        layer = layer_of(method, PAIRS["cvar"], x, "relu")
        y = checkpoint(layer, x, use_reentrant=reentrant) if again else layer(x)
        y.backward(noise(x))
        results.append([y.detach(), x.grad, *(p.grad for p in layer.parameters()), *layer.buffers()])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_tracking_is_differentiable_once() -> None:
    x = images().requires_grad_()
    y = layer_of("bn_tracking", PAIRS["cvar"], x)(x)
    with pytest.raises(RuntimeError, match="differentiable once"):
        torch.autograd.grad(y.square().sum(), x, create_graph=True)
