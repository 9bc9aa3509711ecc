"""BNP against its derivation: batch normalization with frozen statistics, and affine changes of inputs."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gbn.optim import BatchNormPreconditioner
from tests.optim.preconditioned import BARE, close, train_once

pytestmark = pytest.mark.usefixtures("float64")


def test_a_step_is_gradient_descent_on_batch_normalization_with_frozen_statistics():
    layer, x, rate = nn.Linear(5, 3), torch.randn(40, 5) * torch.tensor([1, 3, 0.2, 8, 1]) + 4, 0.1
    mean, std = x.mean(0), x.std(0, correction=0)
    v = (layer.weight * std).detach().requires_grad_()
    c = (layer.bias + layer.weight @ mean).detach().requires_grad_()
    out = F.linear((x - mean) / std, v, c)
    close(out, layer(x))
    gv, gc = torch.autograd.grad(out.square().sum() + out.sin().sum(), (v, c))
    v, c = v - rate * gv, c - rate * gc
    train_once(layer, x, rate=rate)
    close(layer.weight, v / std)
    close(layer.bias, c - (v / std) @ mean)


@pytest.mark.parametrize("statistics", ["channel", "patch"])
@pytest.mark.parametrize("groups", [1, 2])
def test_the_same_for_a_convolution(statistics, groups):
    layer, rate = nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular", groups=groups), 0.1
    x = torch.randn(7, 4, 5, 6) * torch.tensor([1, 3, 0.2, 8]).view(4, 1, 1) + 2
    mean, std = x.mean((0, 2, 3)), x.std((0, 2, 3), correction=0)
    columns = [torch.arange(4).view(groups, -1)[i * groups // 6] for i in range(6)]  # each output's channels
    m, s = (torch.stack([part[c] for c in columns])[..., None, None] for part in (mean, std))
    v = (layer.weight * s).detach().requires_grad_()
    c = (layer.bias + (layer.weight * m).sum((1, 2, 3))).detach().requires_grad_()
    h = F.pad((x - mean.view(4, 1, 1)) / std.view(4, 1, 1), (1, 1, 1, 1), mode="circular")
    out = F.conv2d(h, v, c, groups=groups)
    close(out, layer(x))
    gv, gc = torch.autograd.grad(out.square().sum() + out.sin().sum(), (v, c))
    v, c = v - rate * gv, c - rate * gc
    train_once(layer, x, rate=rate, statistics=statistics)
    close(layer.weight, v / s)
    close(layer.bias, c - (v / s * m).sum((1, 2, 3)))


@pytest.mark.parametrize(
    ("kind", "size"), [(nn.Conv1d, (9,)), (nn.Conv2d, (7, 8)), (nn.Conv3d, (4, 5, 6))], ids=["1d", "2d", "3d"]
)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(
    "geometry",
    [
        {"kernel_size": 3, "padding": 1},
        {"kernel_size": 2, "stride": 2},
        {"kernel_size": 3, "padding": 2, "dilation": 2, "stride": 2, "padding_mode": "reflect"},
        {"kernel_size": 3, "padding": "same", "padding_mode": "replicate", "groups": 2},
        {"kernel_size": 4, "padding": "same"},
    ],
    ids=["zeros", "strided", "dilated", "grouped", "uneven"],
)
def test_patch_statistics_are_those_of_the_unfolded_input(kind, size, geometry):
    layer, x = kind(4, 6, **geometry), torch.randn(3, 4, *size) + 1
    # A convolution whose outputs are its own input columns.
    taps = layer.weight[0, 0].numel()
    unfolding = kind(4, 4 * taps, **{**geometry, "groups": 4}, bias=False)
    with torch.no_grad():
        unfolding.weight.copy_(
            torch.eye(taps)
            .view(1, taps, *layer.weight.shape[2:])
            .repeat(4, 1, 1, *[1] * (len(size) - 1))
            .view_as(unfolding.weight)
        )
    columns = unfolding(x).transpose(0, 1).flatten(1)
    preconditioner = BatchNormPreconditioner(layer, statistics="patch", **BARE)
    layer(x).sum().backward()
    preconditioner.precondition()
    ((mean, variance),) = preconditioner.moments().values()
    close(mean, columns.mean(1))
    close(variance, columns.var(1, correction=0))


@pytest.mark.parametrize("channels_last", [False, True])
def test_channel_statistics_are_those_of_batch_normalization(channels_last):
    layer, x = nn.Conv2d(4, 6, 3), torch.randn(3, 4, 5, 6) + 1
    if channels_last:
        layer, x = (part.to(memory_format=torch.channels_last) for part in (layer, x))
    preconditioner = BatchNormPreconditioner(layer, **BARE)
    layer(x).sum().backward()
    preconditioner.precondition()
    ((mean, variance),) = preconditioner.moments().values()
    close(mean, x.mean((0, 2, 3)))
    close(variance, x.var((0, 2, 3), correction=0))


def test_an_affine_change_of_the_inputs_changes_no_step():
    scale, shift = torch.tensor([0.1, 5, 1, 30]), torch.tensor([4.0, -2, 0, 100])
    one = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
    other = copy.deepcopy(one)
    with torch.no_grad():
        other[0].weight /= scale
        other[0].bias -= other[0].weight @ shift
    for step in range(5):
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        close(one(x), other(x * scale + shift), 1e-8)
        train_once(one, x, rate=0.01)
        train_once(other, x * scale + shift, rate=0.01)
    # And without preconditioning they part at once.
    for model, inputs in ((one, x), (other, x * scale + shift)):
        model.zero_grad()
        model(inputs).square().sum().backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.01 * p.grad
    assert (one(x) - other(x * scale + shift)).abs().max() > 0.1


def test_an_affine_change_of_an_image_s_channels_changes_no_step():
    one = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), nn.Tanh(), nn.Conv2d(4, 2, 3))
    other = copy.deepcopy(one)
    scale, shift = torch.tensor([0.1, 5, 1]).view(3, 1, 1), torch.tensor([4, -2, 50]).view(3, 1, 1)
    with torch.no_grad():
        other[0].weight /= scale
        other[0].bias -= (other[0].weight * shift).sum((1, 2, 3))
    for _ in range(3):
        x = torch.randn(6, 3, 8, 8)
        close(one(x), other(x * scale + shift), 1e-8)
        train_once(one, x, rate=1e-3)
        train_once(other, x * scale + shift, rate=1e-3)


def test_the_hessian_of_a_badly_scaled_regression_is_conditioned():
    """Columns of unequal means and deviations: 554 is brought under 2.5, the correlations of the columns."""
    columns = 6
    correlated = torch.randn(400, columns) @ (torch.eye(columns) + 0.1 * torch.randn(columns, columns))
    x = correlated / correlated.std(0) * torch.linspace(0.4, 2.0, columns) + torch.linspace(-2, 3, columns)
    layer = nn.Linear(columns, 1)
    layer(x)
    names = ["weight", "bias"]

    def loss(flat):
        values = dict(zip(names, (flat[:-1].view(1, columns), flat[-1:]), strict=True))
        return torch.func.functional_call(layer, values, (x,)).square().mean() / 2

    hessian = torch.autograd.functional.hessian(loss, torch.zeros(columns + 1))
    # Preconditioning is linear in the gradient: its matrix, column by column.
    preconditioner = BatchNormPreconditioner(layer, **BARE)
    rows = []
    for unit in torch.eye(columns + 1):
        layer(x)
        layer.weight.grad, layer.bias.grad = unit[:-1].clone().view(1, columns), unit[-1:].clone()
        preconditioner.precondition()
        rows.append(torch.cat((layer.weight.grad.flatten(), layer.bias.grad)))
    matrix = torch.stack(rows, dim=1)
    close(matrix, matrix.T)
    assert torch.linalg.eigvalsh(matrix).min() > 0
    before = torch.linalg.cond(hessian)
    values = torch.linalg.eigvals(matrix @ hessian).real
    after = values.max() / values.min()
    assert before > 200
    assert after < 2.5
    # A wrong mean or variance does not reach it: the diagonal alone leaves the means in.
    diagonal = hessian / hessian.diagonal()[:, None]
    assert torch.linalg.eigvals(diagonal).real.max() / torch.linalg.eigvals(diagonal).real.min() > 4 * after
