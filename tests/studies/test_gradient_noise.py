"""Gradients of several arms at equal weights: right in closed form, and nothing is touched."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gbn.models.interface import ConvNorm
from gbn.nn import norm_layer
from gbn.seeding import derive
from gbn.studies.gradient_variance.moments import NETWORK, readings
from gbn.studies.gradient_variance.noise import measure, weights_of

WAYS = {
    "exact": {"quantile_gradient": "exact"},
    "window": {"quantile_gradient": "window"},
    "centered": {"quantile_gradient": "window_centred"},
    "smoothed": {"quantile_gradient": "smoothed"},
    "detached": {"quantile_gradient": "detached"},
}


class Tiny(nn.Module):
    def __init__(self, norm, dropout=0.0):
        super().__init__()
        self.layer1 = ConvNorm(norm, 3, 8, 3, bias=False)
        self.layer2 = ConvNorm(norm, 8, 8, 3, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.dropout(self.layer2(self.layer1(x)).mean((2, 3))))


def tiny(dropout=0.0):
    """The same weights under each way of the quantile's gradient."""
    torch.manual_seed(5)
    first = Tiny(norm_layer("gbn", quadrangle="cvar", alpha=0.75), dropout)
    vector = nn.utils.parameters_to_vector(first.parameters()).detach()
    models = {}
    for way, options in WAYS.items():
        models[way] = Tiny(norm_layer("gbn", quadrangle="cvar", alpha=0.75, **options), dropout)
        nn.utils.vector_to_parameters(vector.clone(), models[way].parameters())
    return models


def batches(count, size=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        yield (
            torch.randn(size, 3, 8, 8, generator=generator),
            torch.randint(4, (size,), generator=generator),
        )


def found(sums, against=()):
    return {
        (row.arm, row.quantity, row.against): row for row in readings(sums, against) if row.layer == NETWORK
    }


def test_linear_regression_in_closed_form():
    """Loss mean (x.w - y)^2 / 2, x ~ N(0, I), y = x.w* + sigma e, delta = w - w*.

    The gradient's mean is delta, the trace of an example's covariance d (|delta|^2 + sigma^2) + |delta|^2.
    """
    d, size, sigma = 5, 20, 0.7
    delta = torch.tensor([0.6, -0.3, 0.0, 0.5, 0.2])
    model = nn.Sequential(nn.Linear(d, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(delta[None])  # w* = 0
    generator = torch.Generator().manual_seed(2)

    def stream():
        for _ in range(800):
            x = torch.randn(size, d, generator=generator)
            yield x, sigma * torch.randn(size, generator=generator)

    rows = found(measure({"only": model}, stream(), lambda out, y: 0.5 * (out[:, 0] - y).square().mean()))
    length = float(delta.square().sum())
    example = d * (length + sigma**2) + length
    for quantity, truth in {
        "variance": example / size,
        "mean_square": length,
        "noise_scale": example / length,
    }.items():
        row = rows["only", quantity, ""]
        assert abs(row.value - truth) < 4 * row.error, quantity
        assert row.error < 0.08 * truth


def test_the_gradient_is_the_models_own():
    models = tiny()
    (images, labels), *_ = batches(1)
    sums = measure({"exact": models["exact"]}, [(images, labels)], F.cross_entropy)
    model = copy.deepcopy(models["exact"]).train()
    F.cross_entropy(model(images), labels).backward()
    expected = torch.cat([weight.grad.flatten() for weight in weights_of(model).values()])
    torch.testing.assert_close(sums.sums.sum(0)[0], expected.double(), rtol=0, atol=0)


def test_nothing_is_touched():
    models = tiny(dropout=0.5)
    models["window"].eval()
    models["exact"].layer1.eval()
    before = {way: copy.deepcopy(model.state_dict()) for way, model in models.items()}
    modes = {way: [module.training for module in model.modules()] for way, model in models.items()}
    torch.manual_seed(9)
    state = torch.get_rng_state()
    measure(models, batches(3), F.cross_entropy)
    assert torch.equal(torch.get_rng_state(), state)
    for way, model in models.items():
        assert [module.training for module in model.modules()] == modes[way]
        assert all(parameter.grad is None for parameter in model.parameters())
        for name, value in model.state_dict().items():
            assert torch.equal(value, before[way][name]), (way, name)


def test_arms_share_dropout_and_repeat():
    models = tiny(dropout=0.5)
    pair = {"one": models["exact"], "same": copy.deepcopy(models["exact"])}
    sums = measure(pair, batches(4), F.cross_entropy, seed=7)
    assert torch.equal(sums.sums[:, 0], sums.sums[:, 1])
    torch.manual_seed(derive(1, "elsewhere"))
    again = measure(pair, batches(4), F.cross_entropy, seed=7)
    assert torch.equal(sums.sums, again.sums)
    other = measure(pair, batches(4), F.cross_entropy, seed=8)
    assert not torch.equal(sums.sums, other.sums)


def test_one_sample_is_noisier_than_a_window():
    rows = found(measure(tiny(), batches(48), F.cross_entropy), ["centered"])
    exact = rows["exact", "variance_ratio", "centered"]
    assert exact.value - 5 * exact.error > 1.5
    for way in ("window", "smoothed"):
        assert rows[way, "variance_ratio", "centered"].value == pytest.approx(1, abs=0.1)


def test_ways_that_keep_the_scale_identity_have_no_part_along_the_weight():
    rows = found(measure(tiny(), batches(8), F.cross_entropy))
    for way in ("exact", "centered", "smoothed"):
        assert rows[way, "along_rms", ""].value < 2e-5, way  # rounding and eps
    for way in ("window", "detached"):
        assert rows[way, "along_rms", ""].value > 2e-4, way


def test_unequal_weights_and_batches_are_refused():
    models = tiny()
    with torch.no_grad():
        models["window"].layer2.conv.weight[0, 0, 0, 0] += 1e-3
    with pytest.raises(ValueError, match=r"'window' differ in layer2\.conv\.weight"):
        measure(models, batches(2), F.cross_entropy)
    both = [*batches(1, 32), *batches(1, 16)]
    with pytest.raises(ValueError, match="give batches of one size"):
        measure({"exact": models["exact"]}, both, F.cross_entropy)
    with pytest.raises(ValueError, match="no batch"):
        measure({"exact": models["exact"]}, [], F.cross_entropy)
    with pytest.raises(ValueError, match="no model"):
        measure({}, both, F.cross_entropy)
