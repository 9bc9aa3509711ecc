"""BNP against its derivation (batch normalization with frozen statistics, affine inputs), and its mechanics."""

import copy
import io
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gbn.optim import BatchNormPreconditioner

BARE = {"rho": 0.0, "eps": 0.0, "eps_relative": 0.0, "fan_in_scale": "none"}


@pytest.fixture(autouse=True)
def float64():
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def train_once(model, x, loss=None, rate=0.1, **options):
    """One step of gradient descent on a nonlinear loss; the gradients that it took."""
    with BatchNormPreconditioner(model, **{**BARE, **options}) as preconditioner:
        model.zero_grad()
        (loss or (lambda out: out.square().sum() + out.sin().sum()))(model(x)).backward()
        preconditioner.precondition()
    gradients = [p.grad.clone() for p in model.parameters()]
    with torch.no_grad():
        for p in model.parameters():
            p -= rate * p.grad
    return gradients


def close(a, b, tolerance=1e-10):
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# --- the definition ---


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


# --- what is collected ---


def network():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(64, 5)
    )


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


# --- life cycle ---


def test_removal_leaves_nothing_behind():
    model, x = network(), torch.randn(4, 3, 8, 8)
    untouched = {name: list(vars(module)) for name, module in model.named_modules()}
    preconditioner = BatchNormPreconditioner(model)
    with pytest.raises(ValueError, match=r"0 \(Conv2d\) has a preconditioner already"):
        BatchNormPreconditioner(model)
    preconditioner.remove()
    preconditioner.remove()
    assert untouched == {name: list(vars(module)) for name, module in model.named_modules()}
    assert not any(module._forward_pre_hooks for module in model.modules())
    torch.save(model, buffer := io.BytesIO())
    model(x).sum().backward()
    preconditioner.precondition()
    BatchNormPreconditioner(model).remove()
    assert buffer.tell()


def test_copies_of_a_hooked_model_collect_nothing():
    model, x = network(), torch.randn(4, 3, 8, 8)
    preconditioner = BatchNormPreconditioner(model)
    torch.save(model, buffer := io.BytesIO())
    buffer.seek(0)
    for twin in (copy.deepcopy(model), torch.load(buffer, weights_only=False)):
        twin(x).sum().backward()
        assert all(layer.rows == 0 for layer in preconditioner._layers)
        BatchNormPreconditioner(twin).remove()
    model(x)
    assert all(layer.rows for layer in preconditioner._layers)


def test_a_restored_state_goes_on_bit_for_bit():
    batches = [torch.randn(3, 3, 8, 8) for _ in range(6)]

    def run(model, preconditioner, optimizer, batches):
        for x in batches:
            optimizer.zero_grad()
            model(x).square().mean().backward()
            preconditioner.precondition()
            optimizer.step()

    def parts(model):
        return model, BatchNormPreconditioner(model), torch.optim.SGD(model.parameters(), 0.01, 0.9)

    whole = parts(network())
    start = copy.deepcopy(whole[0])
    run(*whole, batches)
    first = parts(start)
    run(*first, batches[:3])
    torch.save([part.state_dict() for part in first], buffer := io.BytesIO())
    buffer.seek(0)
    second = parts(network())
    for part, state in zip(second, torch.load(buffer, weights_only=True), strict=True):
        part.load_state_dict(state)
    run(*first, batches[3:4])  # the state is a copy
    run(*second, batches[3:])
    for a, b in zip(whole[0].parameters(), second[0].parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(ValueError, match="0, 2 differ"):
        BatchNormPreconditioner(network(), statistics="patch").load_state_dict(first[1].state_dict())


def test_frozen_layers_and_those_without_a_gradient_are_left_alone():
    model, x = network(), torch.randn(4, 3, 8, 8)
    for p in model[0].parameters():
        p.requires_grad_(False)
    with BatchNormPreconditioner(model) as preconditioner:
        model(x).sum().backward()
        model[2].weight.grad = None
        bias = model[2].bias.grad.clone()
        preconditioner.precondition()
        assert model[0].weight.grad is None
        assert torch.equal(bias, model[2].bias.grad)
        assert not preconditioner.moments()["0"][0].any()
        model[0].requires_grad_(True)  # thawed
        model(x).sum().backward()
        preconditioner.precondition()
        close(preconditioner.moments()["0"][0], x.mean((0, 2, 3)))


# --- errors ---


def tied_weight_only():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    return model


def tied_embedding():
    model = nn.Sequential(nn.Embedding(5, 3), nn.Linear(3, 5))
    model[1].weight = model[0].weight
    return model


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (nn.BatchNorm2d, {}, "nothing to precondition: the model has no nn.Linear"),
        (network, {"exclude": ["*"]}, "nothing to precondition.*outside exclude"),
        (lambda: nn.Sequential(nn.Linear(4, 4, bias=False)), {}, r"^0 \(Linear\) has no bias.*bias=True.*skip"),
        (lambda: nn.Linear(4, 4, bias=False), {"missing_bias": "skip"}, "nothing to precondition"),
        (network, {"missing_bias": "ignore"}, "missing_bias='ignore'.*allowed are error, skip"),
        (network, {"statistics": "patches"}, "did you mean 'patch'"),
        (network, {"fan_in_scale": "row"}, "did you mean 'rows'"),
        (network, {"rho": 1.0}, "rho=1.0 is the weight of the past"),
        (network, {"eps": -1.0}, "must not be negative"),
        (network, {"exclude": ["head"]}, "'head' matches no linear layer or convolution; they are 0, 2, 4"),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)), {}, "computes its weight"),
        (lambda: nn.LazyLinear(4), {}, "is lazy: pass a batch"),
        (tied_weight_only, {}, "0 and 1 share a weight and not the bias"),
        (tied_embedding, {}, r"1 shares its weight with 0 \(Embedding\)"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_what_cannot_be_preconditioned_is_one_clear_line(model, options, message):
    build = (lambda: nn.BatchNorm2d(3)) if model is nn.BatchNorm2d else model
    with pytest.raises(ValueError, match=message) as error:
        BatchNormPreconditioner(build(), **options)
    assert "\n" not in str(error.value)


def test_layers_without_a_bias_and_excluded_ones_keep_their_gradients():
    model, x = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4), nn.Linear(4, 4)), torch.randn(6, 4)
    plain = copy.deepcopy(model)
    plain(x).square().sum().backward()
    with BatchNormPreconditioner(model, missing_bias="skip", exclude=["2"]) as preconditioner:
        model(x).square().sum().backward()
        preconditioner.precondition()
    changed = [
        not torch.equal(a.grad, b.grad) for a, b in zip(plain.parameters(), model.parameters(), strict=True)
    ]
    assert changed == [False, True, True, False, False]


# --- compiled, in parallel ---


@pytest.mark.slow
def test_a_compiled_model_has_the_same_gradients():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).float()
    batches = [torch.randn(4, 3, 8, 8).float() for _ in range(3)]
    found = []
    for compiled in (False, True):
        one = copy.deepcopy(model)
        with BatchNormPreconditioner(one) as preconditioner:
            forward = torch.compile(one, backend="aot_eager", fullgraph=True) if compiled else one
            for x in itertools.chain(batches, batches):
                one.zero_grad()
                forward(x).square().mean().backward()
                preconditioner.precondition()
            with torch.no_grad():
                forward(batches[0])
        found.append([p.grad for p in one.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def _one_process(rank, file, x, results):
    import torch.distributed as dist

    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    torch.manual_seed(0)
    model = nn.Linear(4, 3)
    with BatchNormPreconditioner(model, rho=0.9) as preconditioner:
        out = model(x[:5] if rank == 0 else x[5:])
        (out.square().sum() + out.sin().sum()).backward()
        for p in model.parameters():
            dist.all_reduce(p.grad)
        preconditioner.precondition()
    results.put((rank, [p.grad.tolist() for p in model.parameters()]))
    dist.destroy_process_group()


@pytest.mark.slow
def test_processes_add_up_their_moments(tmp_path):
    x = torch.randn(8, 4) + torch.arange(8.0)[:, None]  # unequal parts of unequal means
    torch.manual_seed(0)
    expected = train_once(
        nn.Linear(4, 3), x, **{**BARE, "eps": 1e-4, "eps_relative": 1e-2, "fan_in_scale": "rows"}
    )
    context = torch.multiprocessing.get_context("spawn")
    results = context.SimpleQueue()
    processes = [
        context.Process(target=_one_process, args=(rank, tmp_path / "store", x, results)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    found = dict(results.get() for _ in processes)
    for process in processes:
        process.join()
        assert process.exitcode == 0
    for gradients in found.values():
        for a, b in zip(expected, gradients, strict=True):
            close(a, torch.tensor(b))
