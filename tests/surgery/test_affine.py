"""The affine map of a layer in evaluation mode."""

import pytest
import torch
from torch import nn

from gbn.nn import norm_layer
from gbn.surgery import NotAffine, evaluation_affine
from tests.surgery.networks import randomize


def test_batch_normalization_by_its_formula() -> None:
    layer = randomize(nn.BatchNorm2d(5, eps=1e-3))
    scale, shift = evaluation_affine(layer)
    weight, bias, mean, var = (
        t.double() for t in (layer.weight, layer.bias, layer.running_mean, layer.running_var)
    )
    torch.testing.assert_close(scale, weight / (var + 1e-3).sqrt())
    torch.testing.assert_close(shift, bias - weight * mean / (var + 1e-3).sqrt())


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_a_pair_by_its_formula(dim: int) -> None:
    layer = norm_layer("gbn_cvar")(3, act="relu", dim=dim)
    layer.running_statistic.copy_(torch.tensor([1.0, -2.0, 1e3]))
    layer.running_deviation.copy_(torch.tensor([0.5, 2.0, 1e-2]))
    scale, shift = evaluation_affine(layer)
    location, spread = layer.running_statistic.double(), layer.running_deviation.double()
    torch.testing.assert_close(scale, 1 / (spread + layer.eps), rtol=1e-9, atol=0)
    torch.testing.assert_close(shift, -location / (spread + layer.eps), rtol=1e-9, atol=0)
    assert layer.training  # a copy was asked
    assert layer.act == "relu"


@pytest.mark.parametrize("method", ["mixture", "layer", "group", "instance"])
def test_other_functions_are_refused(method: str) -> None:
    layer = norm_layer(method)(4, act=None)
    layer(
        torch.randn(16, 4, 6, 6, generator=torch.Generator().manual_seed(0))
    )  # a mixture begins as one component
    with pytest.raises(NotAffine, match="not one affine map per channel"):
        evaluation_affine(layer)


@pytest.mark.parametrize(
    "layer",
    [nn.BatchNorm2d(4, track_running_stats=False), norm_layer("gbn_mad", track_running_stats=False)(4)],
)
def test_without_running_statistics_there_is_no_fixed_map(layer: nn.Module) -> None:
    with pytest.raises(NotAffine, match="no running statistics"):
        evaluation_affine(layer)


def test_no_norm_at_all() -> None:
    with pytest.raises(NotAffine):
        evaluation_affine(nn.ReLU())
