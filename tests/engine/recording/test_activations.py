"""Recorded activations against independent computations, for every kind of normalizer."""

import math

import pytest
import scipy.integrate
import scipy.stats
import torch
from torch import nn

from gbn import risk
from gbn.engine.recording.activations import (
    TAIL,
    describe_input,
    describe_output,
    hill,
    norm_of,
    sample_rows,
)
from gbn.nn import norm_layer

CVAR = {"quadrangle": "cvar", "alpha": 0.75}
BATCH = [
    ("bn", {}),
    ("bn_matched", {"matched_to": CVAR}),
    ("bn_reparam", {"matched_to": CVAR}),
    ("bn_reparam", {"matched_to": {"quadrangle": "mad"}, "rescaled": True}),
    ("bn_measured_matched", {"matched_to": CVAR}),
    ("bn_measured_reparam", {"matched_to": CVAR}),
    ("bn_tracking", {"matched_to": CVAR}),
    ("gbn", {"quadrangle": "std"}),
    ("gbn", CVAR),
    ("gbn", {**CVAR, "rescaled": True}),
    ("gbn", {"quadrangle": "worst_case"}),
    ("gbn", {**CVAR, "affine": False}),
    ("gbn", {**CVAR, "track_running_stats": False}),
]


def inputs(n=32, channels=5, side=6):
    """Skewed values of several scales and places."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn((n, channels, side, side), generator=generator)
    x = x + 0.4 * x.square()
    return x * torch.tensor([0.1, 1, 3, 10, 0.5]).view(1, -1, 1, 1) + torch.arange(5.0).view(1, -1, 1, 1)


def layer_of(method, options, act=None):
    layer = norm_layer(method, **options)(5, act=act)
    with torch.no_grad():
        for name, low in (("weight", 0.5), ("bias", -1.0)):
            if (parameter := getattr(layer, name, None)) is not None:
                parameter.copy_(torch.linspace(low, low + 1.0, 5))
    return layer


def moments(x):
    rows = x.transpose(0, 1).flatten(1).double()
    return rows, rows.mean(1), rows.std(1, correction=0)


def near(values):
    return pytest.approx([float(value) for value in values], rel=2e-4, abs=2e-5)


@pytest.mark.parametrize(("method", "options"), BATCH)
def test_slope_and_level_are_the_layer_as_a_function_of_the_standardised_input(method, options):
    layer, x = layer_of(method, options), inputs()
    layer(x)  # some controls measure their first batch
    found = describe_input(layer, x)
    y = layer(x)
    _, mean, std = moments(x)
    view = (1, -1, 1, 1)
    z = (x - mean.float().view(view)) / std.float().view(view)
    expected = found["level"].view(view) + found["slope"].view(view) * z
    torch.testing.assert_close(y, expected, rtol=1e-3, atol=1e-3)


def test_statistic_and_deviation_are_those_of_the_pair():
    x = inputs()
    rows, mean, std = moments(x)
    pair = risk.quadrangle("cvar", alpha=0.75)
    s, d = (f(rows, 1) for f in (pair.statistic, pair.deviation))
    raw = describe_input(layer_of("gbn", CVAR), x)
    assert raw["statistic"].tolist() == near((s - mean) / std)
    assert raw["deviation"].tolist() == near(d / std)
    _, c = pair.gaussian()
    rescaled = describe_input(layer_of("gbn", {**CVAR, "rescaled": True}), x)
    assert rescaled["deviation"].tolist() == near(d / std / c)
    for method, k, c in (("bn", 0.0, 1.0), ("bn_matched", 0.0, 1.0), ("bn_reparam", *pair.gaussian())):
        control = describe_input(layer_of(method, {} if method == "bn" else {"matched_to": CVAR}), x)
        assert control["statistic"].tolist() == near([k] * 5)
        assert control["deviation"].tolist() == near([c] * 5)
    # These divide by the pair's own D on the batch that they measured, or on every batch.
    for method in ("bn_measured_reparam", "bn_tracking"):
        layer = layer_of(method, {"matched_to": CVAR})
        layer(x)
        control = describe_input(layer, x)
        assert control["statistic"].tolist() == near((s - mean) / std)
        assert control["deviation"].tolist() == near(d / std)


@pytest.mark.parametrize(
    ("method", "options"), [("bn", {}), ("gbn", CVAR), ("bn_reparam", {"matched_to": CVAR})]
)
def test_the_gap_closes_when_the_running_averages_are_the_batch(method, options):
    layer, x = layer_of(method, {**options, "momentum": 1.0}), inputs()
    rows, mean, std = moments(x)
    s, d = mean, std  # what BatchNorm keeps, under any parametrization
    if method == "gbn":
        s, d = layer.pair.statistic(rows, 1), layer.pair.deviation(rows, 1)
    before = describe_input(layer, x)
    assert before["gap_statistic"].tolist() == near(s.abs() / std)  # they start at 0 and 1
    assert before["gap_deviation"].tolist() == near(1 / d)
    layer(x)  # with momentum 1 the running averages are this batch's
    after = describe_input(layer, x)
    assert after["gap_statistic"].max() < 1e-4
    unbiased = 1.0 if method == "gbn" else math.sqrt(1152 / 1151)
    assert after["gap_deviation"].tolist() == near([unbiased] * 5)


@pytest.mark.parametrize("method", ["layer", "group", "instance", "none"])
def test_without_statistics_over_the_batch_only_the_shape_is_defined(method):
    options = {"groups": 5} if method == "group" else {}
    found = describe_input(layer_of(method, options), inputs())
    assert set(found) == {"skewness", "kurtosis", "tail_index"}


def test_the_shape_agrees_with_scipy():
    x = inputs()
    rows, *_ = moments(x)
    found = describe_input(layer_of("none", {}), x)
    assert found["skewness"].tolist() == near(scipy.stats.skew(rows.numpy(), axis=1))
    assert found["kurtosis"].tolist() == near(scipy.stats.kurtosis(rows.numpy(), axis=1))


def upper_tail_index(law):
    """What Hill's estimator tends to on a symmetric law, by integration."""
    edge = law.ppf(1 - TAIL)
    mean_log, _ = scipy.integrate.quad(lambda t: math.log(t / edge) * law.pdf(t), edge, math.inf)
    return TAIL / mean_log


def test_hill_tends_to_the_index_of_the_law():
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn((4, 1 << 15), generator=generator)
    chi = torch.randn((3, 4, 1 << 15), generator=generator).square().mean(0)
    assert hill(normal).mean() == pytest.approx(upper_tail_index(scipy.stats.norm), rel=0.03)
    assert upper_tail_index(scipy.stats.norm) == pytest.approx(
        4.7, abs=0.05
    )  # what docstring and figures say
    assert hill(normal / chi.sqrt()).mean() == pytest.approx(upper_tail_index(scipy.stats.t(3)), rel=0.03)
    # P(z > t) = t^-3 / 2 above 1, and mean 0
    uniform = torch.rand((4, 1 << 15), generator=generator)
    sign = torch.where(torch.rand(uniform.shape, generator=generator) < 0.5, -1.0, 1.0)
    assert hill(sign * uniform.pow(-1 / 3)).mean() == pytest.approx(3.0, rel=0.05)


def test_hill_is_undefined_without_a_tail():
    assert hill(torch.randn(2, 100)).isnan().all()  # too few values
    mostly_high = torch.cat([torch.full((1, 10), -100.0), torch.full((1, 990), 1.0)], 1)
    assert not hill(mostly_high).isfinite().any()  # the tail is one value
    assert hill(torch.ones(1, 1000)).isnan().all()


def test_rows_are_few_values_from_everywhere():
    x = torch.arange(32 * 32).float().view(1, 1, 32, 32).expand(256, 2, 32, 32)
    rows = sample_rows(x, most=1 << 14)
    assert rows.shape[0] == 2
    assert (1 << 13) < rows.shape[1] <= 1 << 14
    assert len((rows % 32).unique()) == 32  # every column of the image
    assert sample_rows(torch.randn(7, 3), most=100).shape == (3, 7)
    everything = sample_rows(inputs(), most=1 << 14)
    assert torch.equal(everything, inputs().transpose(0, 1).flatten(1))


def test_active_shares_count_what_a_relu_lets_through():
    layer, x = layer_of("bn", {}, act="relu"), inputs()
    with torch.no_grad():
        layer.bias[0] = -100.0
        y = layer(x)
    found = describe_output("relu", y)
    assert found["active"].tolist() == near((y > 0).double().mean((0, 2, 3)))
    assert found["active"][0] == 0
    assert 0.1 < found["active"][1] < 0.9
    assert describe_output(None, y) == describe_output("gelu", y) == {}


def test_a_foreign_layer_is_described_behind_its_activation():
    layer = norm_layer("custom", target=nn.BatchNorm2d)(5, act="relu")
    assert isinstance(norm_of(layer), nn.BatchNorm2d)
    found = describe_input(layer, inputs())
    assert found["deviation"].tolist() == near([1.0] * 5)
    assert "gap_deviation" in found
