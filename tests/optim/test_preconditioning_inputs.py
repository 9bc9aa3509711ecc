"""What BNP collects of a layer's inputs, the safeguards, and precision."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gbn.optim import BatchNormPreconditioner
from tests.optim.preconditioned import BARE, close, network, train_once

pytestmark = pytest.mark.usefixtures("float64")


# --- what is collected ---


@pytest.mark.parametrize("statistics", ["channel", "patch"])
def test_micro_batches_that_are_accumulated_equal_one_batch(statistics):
    one, x = network(), torch.randn(12, 3, 8, 8)
    other = copy.deepcopy(one)
    whole = train_once(one, x, statistics=statistics, fan_in_scale="rows")
    with BatchNormPreconditioner(other, **{**BARE, "fan_in_scale": "rows"}, statistics=statistics) as parts:
        for part in x.split([5, 4, 2, 1]):
            out = other(part)
            (out.square().sum() + out.sin().sum()).backward()
        parts.precondition()
    for a, p in zip(whole, other.parameters(), strict=True):
        close(a, p.grad)


def test_groups_equal_separate_convolutions():
    grouped, x = nn.Conv2d(4, 6, 3, groups=2), torch.randn(5, 4, 6, 6) + torch.arange(4.0).view(4, 1, 1)
    halves = [nn.Conv2d(2, 3, 3) for _ in range(2)]
    for half, weight, bias in zip(halves, grouped.weight.split(3), grouped.bias.split(3), strict=True):
        half.load_state_dict({"weight": weight.detach(), "bias": bias.detach()})
    weight, bias = train_once(grouped, x)
    separate = [train_once(half, part) for half, part in zip(halves, x.split(2, dim=1), strict=True)]
    close(weight, torch.cat([w for w, _ in separate]))
    close(bias, torch.cat([b for _, b in separate]))


def test_a_module_that_is_called_twice_and_modules_with_tied_parameters_are_one_layer():
    x, y = torch.randn(8, 4) + 2, torch.randn(3, 4) * 5

    class Twice(nn.Module):
        def __init__(self, tied):
            super().__init__()
            self.first = nn.Linear(4, 2)
            self.second = nn.Linear(4, 2) if tied else self.first
            if tied:
                self.second.weight, self.second.bias = self.first.weight, self.first.bias

        def forward(self, both):
            return torch.cat((self.first(both[0]), self.second(both[1])))

    for tied in (False, True):
        model, plain = Twice(tied), nn.Linear(4, 2)
        plain.load_state_dict(model.first.state_dict())
        expected = train_once(plain, torch.cat((x, y)))
        for a, b in zip(expected, train_once(model, (x, y)), strict=True):
            close(a, b)


def test_only_training_with_gradients_is_collected():
    model, x = network(), torch.randn(4, 3, 8, 8)
    with BatchNormPreconditioner(model) as preconditioner:
        model.eval()(x).sum().backward()
        model.train()
        with torch.no_grad():
            model(x)
        before = [p.grad.clone() for p in model.parameters()]
        preconditioner.precondition()  # nothing was seen: gradients stay
        for a, p in zip(before, model.parameters(), strict=True):
            assert torch.equal(a, p.grad)
        assert all(not mean.any() for mean, _ in preconditioner.moments().values())


def test_running_moments_are_debiased_averages_of_raw_moments():
    layer, rho = nn.Linear(3, 2), 0.9
    batches = [torch.randn(2, 3) + step for step in range(6)]
    with BatchNormPreconditioner(layer, rho=rho) as preconditioner:
        for x in batches:
            layer(x).sum().backward()
            preconditioner.precondition()
        ((mean, variance),) = preconditioner.moments().values()
    weights = torch.tensor([rho**k for k in reversed(range(6))])
    weights /= weights.sum()
    first = sum(w * x.mean(0) for w, x in zip(weights, batches, strict=True))
    second = sum(w * x.square().mean(0) for w, x in zip(weights, batches, strict=True))
    close(mean, first)
    close(variance, second - first.square())


@pytest.mark.parametrize("batch", [1, 2])
def test_at_batch_one_and_two_the_variance_is_that_of_the_data(batch):
    # Averages of variances within a batch would be 0 and half of it.
    layer, deviations = nn.Linear(3, 2), torch.tensor([0.5, 1.0, 4.0])
    with BatchNormPreconditioner(layer, rho=0.99) as preconditioner:
        for _ in range(600):
            layer(torch.randn(batch, 3) * deviations + 3).sum().backward()
            preconditioner.precondition()
        ((mean, variance),) = preconditioner.moments().values()
    # 199 effective samples or more: a variance deviates by a tenth of itself, a mean by a 14th of the deviation.
    torch.testing.assert_close(variance, deviations.square(), rtol=0.4, atol=0)
    torch.testing.assert_close(mean, torch.full((3,), 3.0), rtol=0, atol=4 * 4 / 14)


def test_the_safeguards_are_what_they_are_said_to_be():
    layer, x = nn.Linear(6, 2), torch.randn(4, 6) * torch.arange(1, 7)
    x[:, 0] = 1.5  # a constant input
    options = {"rho": 0.0, "eps": 1e-3, "eps_relative": 0.02, "fan_in_scale": "rows"}
    other = copy.deepcopy(layer)
    other(x).square().sum().backward()
    mean, variance = x.mean(0), x.var(0, correction=0)
    gw, gb = other.weight.grad, other.bias.grad
    floored = variance + 0.02 * variance.max() + 1e-3
    w = (gw - torch.outer(gb, mean)) / floored
    b = gb - w @ mean
    weight, bias = train_once(layer, x, loss=lambda out: out.square().sum(), **options)
    close(weight, w / (6 / 4))
    close(bias, b / (6 / 4))


def test_the_fan_in_scale_counts_rows_or_images():
    x = torch.randn(2, 4, 5, 5)
    found = {
        scale: train_once(copy.deepcopy(conv), x, fan_in_scale=scale)[0]
        for conv in [nn.Conv2d(4, 3, 3)]
        for scale in ("none", "rows", "images")
    }
    close(found["rows"], found["none"])  # 36 inputs, 2 x 25 terms
    close(found["images"], found["none"] / (36 / 2))


def test_a_constant_input_without_a_floor_gets_no_gradient():
    layer, x = nn.Linear(2, 1), torch.stack((torch.ones(8), torch.randn(8)), dim=1)
    weight, bias = train_once(layer, x)
    assert weight[0, 0] == 0
    assert weight.isfinite().all()
    assert bias.isfinite().all()


# --- precision ---


def test_moments_in_single_precision_survive_a_mean_far_from_zero():
    x = torch.randn(64, 3) + 100
    layer = nn.Linear(3, 2).float()
    with BatchNormPreconditioner(layer, **BARE) as preconditioner:
        layer(x.float()).sum().backward()
        preconditioner.precondition()
        ((_, variance),) = preconditioner.moments().values()
    # Squares of 1e4 are rounded at 6e-8 of themselves: 6e-4 of a variance of 1, and sums of 64 round a little more.
    torch.testing.assert_close(variance, x.float().double().var(0, correction=0), rtol=5e-3, atol=0)


@pytest.mark.parametrize("layer", [nn.Linear(16, 4), nn.Conv2d(16, 4, 3)], ids=["linear", "conv"])
def test_autocast_collects_in_float32(layer):
    layer = layer.float()
    x = torch.rand(64, 16).float() + 3
    x = x if layer.weight.dim() == 2 else torch.rand(8, 16, 6, 6).float() + 3
    with BatchNormPreconditioner(layer, **BARE) as preconditioner, torch.autocast("cpu", torch.bfloat16):
        out = layer(x.bfloat16()).float()
        (out.square().sum() + out.sin().sum()).backward()
        preconditioner.precondition()
        ((mean, variance),) = preconditioner.moments().values()
    rounded = x.bfloat16().double().movedim(1, -1).flatten(0, -2)
    torch.testing.assert_close(mean, rounded.mean(0), rtol=1e-5, atol=0)
    # bfloat16 sums would have an error of 9 % here (mean^2 / variance is 150, 8 bits).
    torch.testing.assert_close(variance, rounded.var(0, correction=0), rtol=1e-3, atol=0)
    assert layer.weight.grad.dtype == torch.float32


def test_under_autocast_the_result_is_near_that_of_float32():
    layer, x = nn.Linear(16, 4).float(), torch.randn(64, 16).float() + 0.5
    exact = train_once(copy.deepcopy(layer), x)
    with BatchNormPreconditioner(layer, **BARE) as preconditioner:
        with torch.autocast("cpu", torch.bfloat16):
            out = layer(x)
        (out.float().square().sum() + out.float().sin().sum()).backward()
        preconditioner.precondition()
    for a, b in zip(exact, (layer.weight.grad, layer.bias.grad), strict=True):
        assert F.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.99


def test_parameters_in_half_precision_are_rewritten_in_float32():
    half, x = nn.Linear(5, 3).bfloat16(), (torch.randn(16, 5) + 1).bfloat16()
    full = copy.deepcopy(half).float()
    full(x.float()).sum().backward()
    half.weight.grad, half.bias.grad = full.weight.grad.bfloat16(), full.bias.grad.bfloat16()
    full.weight.grad, full.bias.grad = half.weight.grad.float(), half.bias.grad.float()
    for layer in (half, full):
        with BatchNormPreconditioner(layer, **BARE) as preconditioner:
            layer(x.to(layer.weight.dtype))
            preconditioner.precondition()
    assert half.weight.grad.dtype == torch.bfloat16
    assert torch.equal(half.weight.grad, full.weight.grad.bfloat16())
    assert torch.equal(half.bias.grad, full.bias.grad.bfloat16())


def test_a_scaled_loss_scales_the_result_and_an_overflow_leaves_the_moments_alone():
    layer, x = nn.Linear(5, 3), torch.randn(16, 5) + 1
    other = copy.deepcopy(layer)
    plain = train_once(layer, x)
    scaled = train_once(other, x, loss=lambda out: 1024 * (out.square().sum() + out.sin().sum()))
    for a, b in zip(plain, scaled, strict=True):
        close(1024 * a, b)
    with BatchNormPreconditioner(layer) as preconditioner:
        layer(x).sum().backward()
        preconditioner.precondition()
        before = preconditioner.state_dict()
        layer(x / 0).sum().backward()
        preconditioner.precondition()
        assert torch.equal(before["running"], preconditioner.state_dict()["running"])


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("statistics", ["channel", "patch"])
def test_memory_formats_give_the_same_gradients(channels_last, statistics):
    model, x = network(), torch.randn(4, 3, 8, 8)
    expected = train_once(copy.deepcopy(model), x, statistics=statistics)
    if channels_last:
        model, x = (part.to(memory_format=torch.channels_last) for part in (model, x))
    for a, b in zip(expected, train_once(model, x, statistics=statistics), strict=True):
        close(a, b)


def test_inputs_of_other_shapes():
    linear, conv = nn.Linear(4, 3), nn.Conv2d(4, 3, 3)
    x, image = torch.randn(2, 5, 4), torch.randn(4, 6, 6)
    for layer, given, equal in (
        (linear, x, x.flatten(0, 1)),
        (linear, x[0, 0], x[0, :1]),
        (conv, image, image[None]),
    ):
        a, b = (train_once(copy.deepcopy(layer), one, eps=1.0) for one in (given, equal))
        close(a[0], b[0])
        close(a[1], b[1])


def test_arguments_by_name_are_seen():
    layer, x = nn.Linear(4, 3), torch.randn(6, 4)
    with BatchNormPreconditioner(layer) as preconditioner:
        layer(input=x).sum().backward()
        preconditioner.precondition()
        ((mean, _),) = preconditioner.moments().values()
    close(mean, x.mean(0))
