"""The gradient of a statistic by itself: what goes through it, and its variance against the batch size."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from gbn.studies.gradient_variance.moments import GradientSums
from gbn.studies.gradient_variance.statistic_noise import measure_statistic, normalized_layers, statistics_at
from tests.studies.test_gradient_noise import batches, tiny


def doubled(count, size=32, seed=0):
    return [(images.double(), labels) for images, labels in batches(count, size, seed)]


def test_through_s_is_the_gradient_less_the_detached_one():
    """Only the layer in question changes its way, so that the gradient from above is one for all."""
    models = {way: model.double().train() for way, model in tiny().items()}
    given = doubled(4)
    statistics = statistics_at(models, "layer2")
    assert set(statistics) == {"exact", "window", "centered", "smoothed"}
    statistics.pop("smoothed")  # another forward pass
    rows = measure_statistic(models["centered"], "layer2", statistics, given, F.cross_entropy)
    for way in statistics:
        mixed = []
        for one in (way, "detached"):
            model = copy.deepcopy(models["centered"])
            model.layer2 = copy.deepcopy(models[one].layer2)
            mixed.append(model)
        sums = GradientSums(["part"], {"layer2": mixed[0].layer2.conv.weight.numel()})
        for images, labels in given:
            own, without = (
                torch.autograd.grad(F.cross_entropy(model(images), labels), model.layer2.conv.weight)[0]
                for model in mixed
            )
            sums.add((own - without).reshape(1, -1))
        expected = float(sums.replicas().covariances[0, 0, 0, 0])
        (row,) = (row for row in rows if row.arm == way and row.quantity == "through_variance")
        assert row.value == pytest.approx(expected, rel=1e-8)


def test_one_sample_stays_one_sample():
    models = tiny()
    statistics = {way: statistics_at(models, "layer2")[way] for way in ("exact", "centered")}
    variance = {}
    for size in (8, 64):
        given = batches(64, size, seed=size)
        for row in measure_statistic(models["centered"], "layer2", statistics, given, F.cross_entropy):
            variance[row.arm, row.quantity, size] = row.value
    power = {
        way: math.log(variance[way, "statistic_variance", 64] / variance[way, "statistic_variance", 8])
        / math.log(8)
        for way in statistics
    }
    assert abs(power["exact"]) < 0.15
    assert power["centered"] == pytest.approx(-1, abs=0.2)
    for size in (8, 64):
        assert variance["exact", "through_variance", size] > variance["centered", "through_variance", size]


def test_nothing_is_touched():
    models = tiny()
    model = models["centered"].eval()
    before = copy.deepcopy(model.state_dict())
    measure_statistic(model, "layer1", statistics_at(models, "layer1"), batches(4), F.cross_entropy)
    assert not any(module.training for module in model.modules())
    assert not model.layer1.norm._forward_pre_hooks
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_layers_by_name():
    models = tiny()
    assert normalized_layers(models["exact"]) == ["layer1", "layer2"]
    with pytest.raises(ValueError, match="at 'head'; there are layer1, layer2"):
        statistics_at(models, "head")
    with pytest.raises(ValueError, match="at 'head'; there are layer1, layer2"):
        measure_statistic(models["exact"], "head", {}, batches(2), F.cross_entropy)
