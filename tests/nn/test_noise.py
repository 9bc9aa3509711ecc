"""Constant noise on x_hat: what each layer makes of it, where it is off, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gbn.nn import add_constant_noise, calibrate, norm_layer

C, SCALE, SHIFT = 4, 0.5, 0.2
METHODS: dict[str, dict[str, Any]] = {
    "bn": {},
    "gbn": {"quadrangle": "cvar"},
    "iebn": {},
    "bn_matched": {"matched_to": {"quadrangle": "std", "instance_enhancement": True}},
    "bn_reparam": {"matched_to": {"quadrangle": "std", "instance_enhancement": True}},
}


def images(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).exp()


def layers(method: str, act: str | None, **options: Any) -> tuple[Any, Any]:
    """The same layer twice, its parameters away from their start, one of them attacked."""
    pair = []
    for _ in range(2):
        layer = norm_layer(method, **METHODS[method], **options)(C, act=act, dtype=torch.float64)
        make = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.add_(torch.randn(C, generator=make, dtype=torch.float64))
        pair.append(layer)
    return pair[0], add_constant_noise(pair[1], SCALE, SHIFT)


def gains(layer: Any, x: Tensor, method: str) -> Tensor:
    """What each layer multiplies x_hat with, (N or 1, C, 1, 1)."""
    weight = layer.weight if layer.affine else torch.ones(C, dtype=torch.float64)
    if method == "iebn":
        m = x.mean((2, 3))
        return (weight * torch.sigmoid(layer.gate_weight * m + layer.gate_bias))[..., None, None]
    start = torch.sigmoid(torch.tensor(-1.0, dtype=torch.float64)) if method == "bn_reparam" else 1.0
    return (weight * start).view(1, -1, 1, 1)


@pytest.mark.parametrize("act", [None, "relu"])
@pytest.mark.parametrize("method", METHODS)
def test_is_noise_on_x_hat(method: str, act: str | None) -> None:
    x = images(8, C, 3, 3)
    plain, noisy = layers(method, None)
    bias = plain.bias.view(1, -1, 1, 1)
    gain = gains(plain, x, method)
    x_hat = (plain(x) - bias) / gain
    expected = gain * (SCALE * x_hat + SHIFT) + bias
    _, noisy = layers(method, act)
    torch.testing.assert_close(noisy(x), expected if act is None else expected.relu())


@pytest.mark.parametrize("method", ["bn", "gbn", "iebn"])
def test_without_gain_and_bias(method: str) -> None:
    x = images(8, C, 3, 3)
    plain, noisy = layers(method, None, affine=False)
    gain = gains(plain, x, method)
    torch.testing.assert_close(noisy(x), gain * (SCALE * plain(x) / gain + SHIFT))


@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_derivatives(method: str) -> None:
    options = {"quantile_gradient": "exact"} if method == "gbn" else {}
    _, noisy = layers(method, None, **options)
    x = images(4, C, 2, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: noisy(x), (x,), atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_evaluation_calibration_and_running_statistics_are_clean(method: str) -> None:
    plain, noisy = layers(method, "relu")
    for seed in range(2):
        plain(images(8, C, 3, 3, seed=seed)), noisy(images(8, C, 3, 3, seed=seed))
    for a, b in zip(plain.buffers(), noisy.buffers(), strict=True):
        assert torch.equal(a, b)
    x = images(8, C, 3, 3, seed=5)
    assert torch.equal(plain.eval()(x), noisy.eval()(x))
    models = [nn.Sequential(layer, norm_layer("bn")(C, dtype=torch.float64)) for layer in (plain, noisy)]
    for model in models:
        calibrate(model, [x])
    assert torch.equal(models[0].eval()(x), models[1].eval()(x))


def test_keeps_names_and_tensors_of_torchs_layers() -> None:
    model = nn.Sequential(nn.Conv2d(3, C, 3), nn.BatchNorm2d(C, momentum=0.3), nn.ReLU())
    before = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    model.eval()
    assert add_constant_noise(model, SCALE, SHIFT) is model
    assert {name: tensor.data_ptr() for name, tensor in model.state_dict().items()} == before
    assert model[1].momentum == 0.3
    assert not model[1].training
    x = torch.randn(4, 3, 5, 5)
    expected = F.batch_norm(model[0](x), None, None, training=True) * SCALE + SHIFT
    torch.testing.assert_close(model.train()(x), expected.relu())


def test_torchs_layer_without_bias() -> None:
    layer = nn.BatchNorm2d(C)
    layer.register_parameter("bias", None)  # as bias=False makes it, from torch 2.13 on
    x = torch.randn(4, C, 5, 5)
    expected = F.batch_norm(x, None, None, training=True) * SCALE + SHIFT
    noisy = add_constant_noise(layer, SCALE, SHIFT)
    assert [name for name, _ in noisy.named_parameters()] == ["weight"]
    torch.testing.assert_close(noisy(x), expected)


def test_refuses_a_model_without_such_a_norm() -> None:
    with pytest.raises(ValueError, match="this model has none"):
        add_constant_noise(nn.Sequential(nn.Conv2d(3, C, 3), nn.GroupNorm(2, C)), SCALE, SHIFT)
