"""The function is the layer."""

from __future__ import annotations

import pytest
import torch

from gbn.nn import GeneralizedBatchNorm2d, generalized_batch_norm

X = torch.randn(6, 4, 5, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("quadrangle", ["cvar", "mad", "range"])
def test_function_equals_layer(quadrangle: str) -> None:
    layer = GeneralizedBatchNorm2d(4, quadrangle=quadrangle, act="relu", momentum=0.3, eps=1e-3)
    with torch.no_grad():
        layer.weight.uniform_(0.5, 2), layer.bias.uniform_(-1, 1)
    buffers = torch.zeros(4), torch.ones(4)
    arguments = (*buffers, layer.weight, layer.bias)
    for training in (True, True, False):
        y = generalized_batch_norm(X, *arguments, training, 0.3, 1e-3, quadrangle=quadrangle, act="relu")
        assert torch.equal(y, layer.train(training)(X))
    assert torch.equal(buffers[0], layer.running_statistic)
    assert torch.equal(buffers[1], layer.running_deviation)


def test_function_without_buffers_and_parameters() -> None:
    y = generalized_batch_norm(
        X, training=True, quadrangle=None, statistic="median", deviation="mad", eps=0.0
    )
    torch.testing.assert_close(y, GeneralizedBatchNorm2d(4, quadrangle="mad", eps=0.0)(X))


def test_function_refuses() -> None:
    with pytest.raises(ValueError, match="needs running_statistic and running_deviation"):
        generalized_batch_norm(X)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        generalized_batch_norm(X[:1, :, :1, :1], training=True)
    with pytest.raises(ValueError, match="act='rulu' is unknown"):
        generalized_batch_norm(X, training=True, act="rulu")


@pytest.mark.parametrize("quadrangle", ["cvar", "std"])
def test_training_before_the_backward_pass_of_an_evaluation_changes_no_gradient(quadrangle: str) -> None:
    gradients = []
    for between in (False, True):
        running, x = [torch.ones(4), torch.full((4,), 2.0)], X.clone().requires_grad_()
        weight, bias = torch.linspace(1, 2, 4).requires_grad_(), torch.zeros(4, requires_grad=True)
        y = generalized_batch_norm(x, *running, weight, bias, quadrangle=quadrangle)
        if between:
            generalized_batch_norm(5 * X, *running, weight, bias, training=True, quadrangle=quadrangle)
        g = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
        gradients.append(torch.autograd.grad(y, [x, weight, bias], g))
    for a, b in zip(*gradients, strict=True):
        assert torch.equal(a, b)
