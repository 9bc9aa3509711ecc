"""Layer, group and instance normalization are torch's, with an activation."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gbn.nn import (
    Activation,
    GroupNormAct,
    InstanceNormAct1d,
    InstanceNormAct2d,
    InstanceNormAct3d,
    LayerNormAct,
)
from gbn.nn.simple import largest_divisor

X = torch.randn(5, 12, 4, 3, generator=torch.Generator().manual_seed(0))


def test_layer_norm_is_one_group_and_torchs_layer_norm_on_vectors() -> None:
    torch.testing.assert_close(LayerNormAct(12, act="relu")(X), F.layer_norm(X, X.shape[1:]).relu())
    vectors = X[:, :, 0, 0]
    torch.testing.assert_close(LayerNormAct(12)(vectors), nn.LayerNorm(12)(vectors))


@pytest.mark.parametrize(("groups", "taken"), [(32, 12), (12, 12), (5, 4), (1, 1), (7, 6)])
def test_groups_divide_the_channels(groups: int, taken: int) -> None:
    layer = GroupNormAct(12, groups, act="silu")
    assert layer.num_groups == taken
    torch.testing.assert_close(layer(X), F.silu(F.group_norm(X, taken)))


def test_largest_divisor() -> None:
    for number in range(1, 40):
        for limit in range(1, 45):
            found = largest_divisor(number, limit)
            assert number % found == 0
            assert found <= limit
            assert all(number % larger for larger in range(found + 1, min(number, limit) + 1))


def test_instance_norm_is_torchs_with_gain_and_bias() -> None:
    layer = InstanceNormAct2d(12, act="relu")
    assert layer.weight.shape == (12,)
    torch.testing.assert_close(layer(X), F.instance_norm(X).relu())
    torch.testing.assert_close(InstanceNormAct1d(12)(X.flatten(2)), F.instance_norm(X.flatten(2)))
    torch.testing.assert_close(InstanceNormAct3d(12)(X[:, :, None]), F.instance_norm(X[:, :, None]))


def test_instance_norm_refuses_an_input_without_batch_dimension() -> None:
    """torch would take (N, C) for (C, L) without its batch dimension, and normalize across channels."""
    with pytest.raises(ValueError, match=r"expects 3D input .* got 2D \(12, 12\)"):
        InstanceNormAct1d(12)(torch.randn(12, 12))


def test_activation_leaves_its_input() -> None:
    x = X.clone()
    torch.testing.assert_close(Activation("relu")(x), X.relu())
    assert torch.equal(x, X)
    assert Activation(None)(x) is x
