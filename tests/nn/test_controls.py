"""The controls do what makes them controls: on Gaussian pre-activations they are the pair."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gbn import risk
from gbn.nn import (
    BatchNormAct2d,
    GeneralizedBatchNorm2d,
    MatchedBatchNorm1d,
    MatchedBatchNorm2d,
    MatchedBatchNorm3d,
    ReparametrizedBatchNorm1d,
    ReparametrizedBatchNorm2d,
    ReparametrizedBatchNorm3d,
)

N, C, SIDE = 32, 3, 64
SAMPLES = N * SIDE * SIDE
EXTREMES = ("range", "worst_case", "upper_range", "lower_range")
HOMOGENEOUS = [name for name in risk.QUADRANGLES if risk.quadrangle(name).homogeneous]
SMOOTH = [name for name in HOMOGENEOUS if name not in EXTREMES]


def gaussian_scores() -> Tensor:
    """Each channel exactly Gaussian: the expected quantiles of n samples, in random order, another mu and sigma."""
    grid = (torch.arange(SAMPLES, dtype=torch.float64) + 0.5) / SAMPLES
    scores = torch.special.ndtri(grid)
    make = torch.Generator().manual_seed(0)
    rows = torch.stack([scores[torch.randperm(SAMPLES, generator=make)] for _ in range(C)])
    rows = rows * torch.tensor([[0.5], [1.0], [3.0]]) + torch.tensor([[-1.0], [0.0], [4.0]])
    return rows.view(C, N, SIDE, SIDE).transpose(0, 1).contiguous()


X = gaussian_scores()
COTANGENT = torch.randn(X.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def run(layer: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """Result and the gradients to gain and bias for a random cotangent.

    Behind a smooth activation: a ReLU would let samples within the comparison's tolerance of 0 switch sides.
    """
    y = layer.double()(X)
    return (y.detach(), *torch.autograd.grad(y, [layer.weight, layer.bias], COTANGENT))


def perturb(layer: nn.Module) -> nn.Module:
    """As after some training steps: gain and bias anywhere."""
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.3, 1.7, -0.8]))
        layer.bias.copy_(torch.tensor([0.4, -0.2, 1.1]))
    return layer


@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize("name", SMOOTH)
def test_reparametrized_is_the_pair_on_a_gaussian_at_any_gain_and_bias(name: str, rescaled: bool) -> None:
    options: dict[str, Any] = {"rescaled": rescaled, "act": "silu"}
    pair = perturb(GeneralizedBatchNorm2d(C, quadrangle=name, **options))
    control = perturb(ReparametrizedBatchNorm2d(C, matched_to={"quadrangle": name}, **options))
    # what is left is the grid's distance from the law, below 1e-3 at n = 131,072, and eps
    for ours, theirs in zip(run(control), run(pair), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-3, atol=2e-3 * theirs.abs().max().item())


@pytest.mark.parametrize("rescaled", [False, True])
@pytest.mark.parametrize("name", SMOOTH)
def test_matched_is_the_pair_at_the_start_only(name: str, rescaled: bool) -> None:
    options: dict[str, Any] = {"rescaled": rescaled, "act": "silu"}
    pair, control = (
        GeneralizedBatchNorm2d(C, quadrangle=name, **options),
        MatchedBatchNorm2d(C, matched_to={"quadrangle": name}, **options),
    )
    result, gain_gradient, bias_gradient = run(pair)
    ours, gain, bias = run(control)
    torch.testing.assert_close(ours, result, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(bias, bias_gradient, rtol=2e-3, atol=2e-3 * bias.abs().max().item())
    k, c = risk.quadrangle(name).gaussian()
    c = 1.0 if rescaled else c
    # x_hat_BN = c x_hat + k, so the gain's gradient is another: dL/dgain_BN = c dL/dgain + k dL/dbias
    expected = c * gain_gradient + k * bias_gradient
    torch.testing.assert_close(gain, expected, rtol=2e-3, atol=2e-3 * gain.abs().max().item())


@pytest.mark.parametrize("name", EXTREMES)
@pytest.mark.parametrize("control", [MatchedBatchNorm2d, ReparametrizedBatchNorm2d])
@pytest.mark.parametrize("rescaled", [False, True])
def test_controls_of_extremes_on_a_gaussian_sample(name: str, control: type, rescaled: bool) -> None:
    """The expected extremes of n samples; one sample's scatter by about 0.25 sigma."""
    x = torch.randn(8, 256, 8, 8, generator=torch.Generator().manual_seed(3))
    options = {"rescaled": rescaled, "samples": 512}
    pair = GeneralizedBatchNorm2d(256, quadrangle=name, **options)
    layer = control(256, matched_to={"quadrangle": name}, **options)
    apart = (layer(x) - pair(x)).mean((0, 2, 3))
    # mean over 256 channels of y: standard error 0.4/3/16 = 0.01 of the place, the ratio's bias is of second order
    c = 1.0 if rescaled else risk.quadrangle(name).gaussian(512)[1]
    assert abs(apart.mean().item()) < 0.06 / c
    ratio = (layer(x).std((0, 2, 3)) / pair(x).std((0, 2, 3))).mean().item()
    assert abs(ratio - 1) < 0.06


def test_start_of_the_quantile_pair_at_three_quarters() -> None:
    """The table of papers on the control: gain .7867 and bias -.5306 at alpha = .75."""
    layer = MatchedBatchNorm2d(C, matched_to={"quadrangle": "cvar", "alpha": 0.75})
    torch.testing.assert_close(layer.weight.detach(), torch.full((C,), 0.7867), rtol=0, atol=5e-5)
    torch.testing.assert_close(layer.bias.detach(), torch.full((C,), -0.5306), rtol=0, atol=5e-5)
    layer.weight.data.zero_()
    layer.reset_parameters()
    assert layer.weight[0].item() == pytest.approx(0.7867, abs=5e-5)


def test_matched_is_plain_batchnorm_otherwise() -> None:
    theirs, ours = (
        nn.BatchNorm2d(C).double(),
        MatchedBatchNorm2d(C, matched_to={"quadrangle": "cvar"}).double(),
    )
    theirs.load_state_dict(ours.state_dict())
    for mode in (True, False):
        torch.testing.assert_close(ours.train(mode)(X), theirs.train(mode)(X))
    for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
        assert torch.equal(a, b)


def test_reparametrized_trains_in_the_pairs_units() -> None:
    """y = gain (x_hat - k)/c + bias, and its running statistics are BatchNorm's."""
    k, c = risk.quadrangle("cvar", alpha=0.9).gaussian()
    ours = perturb(ReparametrizedBatchNorm2d(C, matched_to={"quadrangle": "cvar", "alpha": 0.9})).double()
    theirs = nn.BatchNorm2d(C, affine=False).double()
    shape = (1, C, 1, 1)
    expected = ours.weight.view(shape) * (theirs(X) - k) / c + ours.bias.view(shape)
    torch.testing.assert_close(ours(X), expected)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    torch.testing.assert_close(
        ours.eval()(X), ours.weight.view(shape) * (theirs.eval()(X) - k) / c + ours.bias.view(shape)
    )


def test_reparametrized_without_affine() -> None:
    fixed = ReparametrizedBatchNorm2d(C, matched_to={"quadrangle": "cvar"}, affine=False).double()
    free = ReparametrizedBatchNorm2d(C, matched_to={"quadrangle": "cvar"}).double()
    torch.testing.assert_close(fixed(X), free(X))
    assert list(fixed.parameters()) == []
    untracked = ReparametrizedBatchNorm2d(
        C, matched_to={"quadrangle": "cvar"}, affine=False, track_running_stats=False
    )
    assert untracked(X.bfloat16()).dtype == torch.bfloat16


def test_other_dimensions_agree() -> None:
    x2 = X[:, :, :4, :4].float()
    options: dict[str, Any] = {"matched_to": {"quadrangle": "cvar"}, "act": "relu"}
    for one, two, three in (
        (MatchedBatchNorm1d, MatchedBatchNorm2d, MatchedBatchNorm3d),
        (ReparametrizedBatchNorm1d, ReparametrizedBatchNorm2d, ReparametrizedBatchNorm3d),
    ):
        expected = two(C, **options)(x2)
        torch.testing.assert_close(one(C, **options)(x2.flatten(2)).view_as(x2), expected)
        torch.testing.assert_close(three(C, **options)(x2[:, :, None])[:, :, 0], expected)


@pytest.mark.parametrize("control", [MatchedBatchNorm2d, ReparametrizedBatchNorm2d])
def test_what_has_no_control_is_refused(control: type) -> None:
    with pytest.raises(ValueError, match="not positively homogeneous"):
        control(C, matched_to={"quadrangle": "entropic"})
    with pytest.raises(ValueError, match="sample size"):
        control(C, matched_to={"quadrangle": "range"})


def test_matched_needs_affine() -> None:
    with pytest.raises(ValueError, match="needs affine=True"):
        MatchedBatchNorm2d(C, matched_to={"quadrangle": "cvar"}, affine=False)


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("act", [None, "relu"])
@pytest.mark.parametrize("track", [True, False])
def test_batchnorm_with_activation_is_batchnorm_then_activation(
    momentum: float | None, act: str | None, track: bool
) -> None:
    options: dict[str, Any] = {"momentum": momentum, "track_running_stats": track}
    ours, theirs = BatchNormAct2d(C, act=act, **options).double(), nn.BatchNorm2d(C, **options).double()
    for mode in (True, True, False):
        expected = theirs.train(mode)(X)
        assert torch.equal(ours.train(mode)(X), expected.relu() if act else expected)
    for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
        assert torch.equal(a, b)
    assert ours.state_dict().keys() == theirs.state_dict().keys()
