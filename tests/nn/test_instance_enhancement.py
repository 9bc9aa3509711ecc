"""IEBN against the formulas of its authors' code, its identities, placement, composition and controls."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gbn.methods import CONTROLS
from gbn.nn import (
    InstanceEnhancementBatchNorm1d,
    InstanceEnhancementBatchNorm2d,
    InstanceEnhancementBatchNorm3d,
    norm_layer,
)
from gbn.nn.instance_enhancement import initial_gate

START = 0.26894142136999512  # sigmoid(-1)


def images(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    make = torch.Generator().manual_seed(seed)
    return (torch.randn(shape, generator=make, dtype=torch.float64).exp() - 1.0).to(dtype)


def randomised(layer: nn.Module, seed: int = 1) -> Any:
    make = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(
                torch.randn(parameter.shape, generator=make, dtype=torch.float64).to(parameter.dtype)
            )
    return layer


def written_out(layer: Any, x: Tensor) -> Tensor:
    """The transform of the notes, from torch's own operations, in training mode."""
    over = tuple(range(2, x.dim()))
    shape = (1, -1, *[1] * len(over))
    mean = x.mean(over, keepdim=True) if over else x
    delta = torch.sigmoid(layer.gate_weight.view(shape) * mean + layer.gate_bias.view(shape))
    x_hat = F.batch_norm(x, None, None, training=True, eps=layer.eps)
    return x_hat * (layer.weight.view(shape) * delta) + layer.bias.view(shape)


@pytest.mark.parametrize(
    ("kind", "shape"),
    [
        (InstanceEnhancementBatchNorm1d, (7, 5)),
        (InstanceEnhancementBatchNorm1d, (7, 5, 3)),
        (InstanceEnhancementBatchNorm2d, (6, 5, 3, 4)),
        (InstanceEnhancementBatchNorm3d, (4, 5, 3, 2, 2)),
    ],
)
def test_equals_the_transform_of_the_authors_code(kind: Any, shape: tuple[int, ...]) -> None:
    layer = randomised(kind(5, dtype=torch.float64))
    leaves = [images(*shape).requires_grad_(), images(*shape).requires_grad_()]
    y, expected = layer(leaves[0]), written_out(layer, leaves[1])
    torch.testing.assert_close(y, expected)
    cotangent = images(*shape, seed=3)
    parameters = [layer.weight, layer.bias, layer.gate_weight, layer.gate_bias]
    for a, b in zip(
        torch.autograd.grad(y, [leaves[0], *parameters], cotangent),
        torch.autograd.grad(expected, [leaves[1], *parameters], cotangent),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_starts_as_batch_normalization_times_a_number() -> None:
    x = images(8, 4, 5, 5)
    layer, plain = (
        InstanceEnhancementBatchNorm2d(4, dtype=torch.float64),
        nn.BatchNorm2d(4, dtype=torch.float64),
    )
    torch.testing.assert_close(layer(x), START * plain(x))
    torch.testing.assert_close(layer.eval()(x), START * plain.eval()(x))
    assert initial_gate(-1.0) == pytest.approx(START)


def test_an_open_gate_is_batch_normalization() -> None:
    x = images(8, 4, 5, 5).requires_grad_()
    layer = InstanceEnhancementBatchNorm2d(4, gate_bias=30.0, dtype=torch.float64)
    plain = nn.BatchNorm2d(4, dtype=torch.float64)
    torch.testing.assert_close(layer(x), plain(x))
    cotangent = images(8, 4, 5, 5, seed=2)
    torch.testing.assert_close(
        torch.autograd.grad(layer(x), x, cotangent), torch.autograd.grad(plain(x), x, cotangent)
    )


def test_running_statistics_are_those_of_batch_normalization() -> None:
    layer, plain = randomised(InstanceEnhancementBatchNorm2d(4)), nn.BatchNorm2d(4)
    for seed in range(3):
        x = images(8, 4, 5, 5, seed=seed, dtype=torch.float32)
        layer(x), plain(x)
    torch.testing.assert_close(layer.running_mean, plain.running_mean)
    torch.testing.assert_close(layer.running_var, plain.running_var)


@pytest.mark.parametrize("momentum", [0.1, 1.0, None])
def test_momentum_is_batch_normalizations(momentum: float | None) -> None:
    """The authors' layer fails for None."""
    layer, plain = InstanceEnhancementBatchNorm2d(4, momentum=momentum), nn.BatchNorm2d(4, momentum=momentum)
    for seed in range(3):
        x = images(8, 4, 5, 5, seed=seed, dtype=torch.float32)
        layer(x), plain(x)
    torch.testing.assert_close(layer.running_mean, plain.running_mean)


def test_evaluation_gates_each_image_by_itself() -> None:
    layer = randomised(InstanceEnhancementBatchNorm2d(4, dtype=torch.float64)).eval()
    x = images(3, 4, 5, 5)
    mean = x.mean((2, 3), keepdim=True)
    delta = torch.sigmoid(layer.gate_weight.view(1, -1, 1, 1) * mean + layer.gate_bias.view(1, -1, 1, 1))
    x_hat = F.batch_norm(x, layer.running_mean, layer.running_var, eps=layer.eps)
    expected = x_hat * delta * layer.weight.view(1, -1, 1, 1) + layer.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(layer(x), expected)


def test_the_gates_mean_is_taken_in_float32() -> None:
    """In bfloat16 a mean near 1000 would be wrong by whole numbers."""
    layer = InstanceEnhancementBatchNorm2d(2)
    with torch.no_grad():
        layer.gate_weight.fill_(1.0), layer.gate_bias.fill_(-1000.0)
    x = (1000.0 + images(4, 2, 16, 16, dtype=torch.float32)).to(torch.bfloat16)
    wide = InstanceEnhancementBatchNorm2d(2)
    wide.load_state_dict(layer.state_dict())
    expected = wide(x.float())
    torch.testing.assert_close(
        layer(x).float(), expected, atol=0.02 * expected.detach().abs().max().item(), rtol=0
    )


def test_enhances_any_pair() -> None:
    x = images(8, 4, 5, 5)
    layer = InstanceEnhancementBatchNorm2d(4, quadrangle="cvar", alpha=0.6, dtype=torch.float64)
    plain = norm_layer("gbn", quadrangle="cvar", alpha=0.6)(4, act=None, dtype=torch.float64)
    torch.testing.assert_close(layer(x), START * plain(x))


def test_reset_parameters_and_text() -> None:
    layer = randomised(InstanceEnhancementBatchNorm2d(4, gate_bias=-2.0))
    layer.reset_parameters()
    assert (layer.gate_weight == 0).all()
    assert (layer.gate_bias == -2.0).all()
    assert (layer.weight == 1).all()
    assert "gate_bias=-2.0" in repr(layer)


def test_without_gain_and_bias_the_gate_stays() -> None:
    layer = InstanceEnhancementBatchNorm2d(4, affine=False)
    assert [name for name, _ in layer.named_parameters()] == ["gate_weight", "gate_bias"]
    x = images(8, 4, 5, 5, dtype=torch.float32)
    torch.testing.assert_close(layer(x), START * F.batch_norm(x, None, None, training=True))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_refuses_a_gate_that_is_not_finite(value: float) -> None:
    with pytest.raises(ValueError, match=r"gate_bias=.*finite"):
        InstanceEnhancementBatchNorm2d(4, gate_bias=value)


@pytest.mark.parametrize("method", ["iebn", *CONTROLS])
def test_refuses_a_gate_that_can_never_open(method: str) -> None:
    gate = {"gate_bias": -1000.0, "instance_enhancement": True}
    options: dict[str, Any] = gate if method == "iebn" else {"matched_to": {"quadrangle": "std", **gate}}
    with pytest.raises(ValueError, match="starts at 0 and stays there"):
        norm_layer(method, **options)
    assert initial_gate(1000.0) == 1.0
    assert 0.0 < initial_gate(-700.0) < 1e-300


def test_refuses_a_batch_of_one_value_a_channel() -> None:
    with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
        InstanceEnhancementBatchNorm1d(4)(torch.zeros(1, 4))


@pytest.mark.parametrize("method", ["iebn", "gbn", *CONTROLS])
def test_no_gate_in_the_shortcut(method: str) -> None:
    pair = {"quadrangle": "std", "instance_enhancement": True}
    options: dict[str, Any] = {"iebn": {}, "gbn": pair}.get(method, {"matched_to": pair})
    norm = norm_layer(method, **options)
    x = images(8, 4, 5, 5, dtype=torch.float32)
    plain = F.batch_norm(x, None, None, training=True)
    for role in ("stem", "body", "branch_end"):
        torch.testing.assert_close(norm(4, act=None, role=role)(x), START * plain)
    torch.testing.assert_close(norm(4, act=None, role="shortcut")(x), plain)


def test_gates_where_it_is_told() -> None:
    norm = norm_layer("iebn", instance_enhancement=["shortcut"])
    assert hasattr(norm(4, role="shortcut"), "gate_weight")
    assert not hasattr(norm(4, role="body"), "gate_weight")
    with pytest.raises(ValueError, match="unknown role 'shortcuts': allowed are stem"):
        norm_layer("iebn", instance_enhancement=["shortcuts"])
    with pytest.raises(ValueError, match="gate_bias belongs to the gate"):
        norm_layer("gbn", gate_bias=1.0)


def test_controls_have_its_function_at_the_start_and_the_gain_where_they_say() -> None:
    matched_to = {"quadrangle": "cvar", "alpha": 0.75, "instance_enhancement": True, "gate_bias": -2.0}
    matched = norm_layer("bn_matched", matched_to=matched_to)(4, act=None)
    reparam = norm_layer("bn_reparam", matched_to=matched_to)(4, act=None)
    x = torch.randn(64, 4, 40, 40, generator=torch.Generator().manual_seed(0))
    enhanced = norm_layer("gbn", **matched_to)(4, act=None)
    torch.testing.assert_close(matched(x), reparam(x))
    torch.testing.assert_close(
        matched(x), enhanced(x), atol=0.01, rtol=0.01
    )  # x is Gaussian to sampling noise
    assert (reparam.weight == 1).all()
    assert (matched.weight < initial_gate(-2.0) * 1.01 / 1.2).all()  # c of cvar 0.75 is 1.27
