"""Mixture normalization as a layer: what its paper's transform must do, and what stands around it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gbn.models.initialize import initialize
from gbn.nn import (
    MixtureMatchedBatchNorm1d,
    MixtureMatchedBatchNorm2d,
    MixtureNorm1d,
    MixtureNorm2d,
    MixtureReparametrizedBatchNorm2d,
    calibrate,
    norm_layer,
    precise_statistics,
)

C = 6
FORMS = ("joint", "per_channel")


def clusters(n: int = 16, apart: float = 2.0, seed: int = 0) -> Tensor:
    """(n, C, 4, 4): every position of every image belongs to one of three clusters, all channels together."""
    make = torch.Generator().manual_seed(seed)
    kind = torch.randint(3, (n, 4, 4), generator=make)
    place = torch.tensor([-1.0, 0.3, 1.0])[kind].unsqueeze(1) * apart
    return place + torch.randn(n, C, 4, 4, generator=make)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("momentum", [0.1, None])
def test_one_component_is_batch_normalization(form: str, momentum: float | None) -> None:
    theirs = nn.BatchNorm2d(C, momentum=momentum).double()
    ours = MixtureNorm2d(C, components=1, mixture=form, momentum=momentum).double()
    for seed in range(3):
        x = clusters(seed=seed).double()
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        ya, yb = ours(a), theirs(b)
        torch.testing.assert_close(ya, yb)
        cotangent = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed), dtype=x.dtype)
        ya.backward(cotangent), yb.backward(cotangent)
        torch.testing.assert_close(a.grad, b.grad)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
    torch.testing.assert_close(ours.bias.grad, theirs.bias.grad)
    torch.testing.assert_close(ours.running_mean[0], theirs.running_mean)
    torch.testing.assert_close(ours.running_var[0], theirs.running_var)
    torch.testing.assert_close(ours.running()[1], theirs.running_var)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("components", [2, 3, 5])
@pytest.mark.parametrize("apart", [0.0, 2.0, 20.0])
def test_the_batch_mean_is_zero_and_its_variance_at_most_k(form: str, components: int, apart: float) -> None:
    y = MixtureNorm2d(C, components=components, mixture=form, affine=False)(clusters(64, apart).double())
    torch.testing.assert_close(y.mean((0, 2, 3)), torch.zeros(C, dtype=y.dtype), atol=1e-9, rtol=0)
    variance = y.var((0, 2, 3), correction=0)
    assert (variance <= components).all()
    assert (variance > 0.5).all()


def test_the_variance_is_k_where_posteriors_are_hard() -> None:
    y = MixtureNorm2d(C, components=3, affine=False, eps=1e-12)(clusters(64, apart=100.0).double())
    torch.testing.assert_close(y.var((0, 2, 3), correction=0), torch.full((C,), 3.0, dtype=y.dtype))


def test_modes_are_separated() -> None:
    """Within a cluster the result has mean 0: where the cluster was is gone."""
    x = clusters(64, apart=100.0)
    y = MixtureNorm2d(C, components=3, affine=False)(x)
    for low, high in ((-200, -50), (0, 60), (60, 200)):
        inside = (x > low) & (x <= high)
        assert inside.sum() > 500
        assert y[inside].mean().abs() < 0.05


@pytest.mark.parametrize("form", FORMS)
def test_components_keep_their_identity_and_evaluation_follows_training(form: str) -> None:
    layer = MixtureNorm2d(C, components=3, mixture=form)
    for seed in range(40):
        y = layer(clusters(32, apart=20.0, seed=seed))
    places = layer.running_mean.sort(0).values
    expected = torch.tensor([-20.0, 6.0, 20.0])[:, None].expand(-1, C)
    torch.testing.assert_close(places, expected, atol=0.5, rtol=0)
    x = clusters(32, apart=20.0, seed=39)
    difference = (layer.eval()(x) - y).abs()
    assert difference.quantile(0.99) < 0.8  # two estimates of what about 170 samples each tell
    assert difference.median() < 0.2


def test_nothing_but_the_stream_and_the_count_is_drawn_from() -> None:
    state = torch.get_rng_state()
    layers = [MixtureNorm2d(C, subset=64, warm_start=False) for _ in range(3)]
    layers[2].seed_stream(11)
    results = [[layer(clusters(seed=seed)).detach() for seed in (0, 0)] for layer in layers]
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(results[0], results[1], strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(results[0][0], results[0][1])  # another batch draws anew
    assert not torch.equal(results[0][0], results[2][0])  # and so does another stream


def test_streams_come_from_the_seed_and_the_path() -> None:
    def streams(method: str, seed: int, **options: Any) -> dict[str, int]:
        norm = norm_layer(method, **options)
        model = initialize(nn.Sequential(nn.Conv2d(3, C, 1), norm(C), nn.Conv2d(C, C, 1), norm(C)), seed)
        return {name: int(value) for name, value in model.named_buffers() if name.endswith("stream")}

    ours = streams("mixture", 1)
    assert len(set(ours.values())) == 2
    assert streams("mixture", 2) != ours
    assert streams("bn_matched", 1, matched_to={"method": "mixture"}) == ours


def test_exact_statistics_leave_training_as_it_was() -> None:
    batches = [clusters(seed=seed) for seed in range(4)]
    results = []
    for looks in (False, True):
        model = nn.Sequential(MixtureNorm2d(C))
        if looks:  # an untrained layer must still begin at seeds afterwards
            with precise_statistics(model, batches):
                pass
        for x in batches:
            y = model(x)
            if looks:
                with precise_statistics(model, batches[:2]):
                    model.eval()(x)
                model.train()
        results.append((y, *model.state_dict().values()))
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_calibration_averages_the_components_where_they_are() -> None:
    model = nn.Sequential(MixtureNorm2d(C, components=3))
    for seed in range(5):
        model(clusters(32, apart=20.0, seed=seed))
    order = model[0].running_mean[:, 0].argsort()
    calibrate(model, [clusters(32, apart=20.0, seed=seed) for seed in (7, 8)])
    assert torch.equal(model[0].running_mean[:, 0].argsort(), order)
    x = clusters(32, apart=20.0, seed=7)
    y = model.eval()(x)
    assert y.mean().abs() < 0.02
    torch.testing.assert_close(y.var(), torch.tensor(3.0), atol=0.15, rtol=0)


def test_a_cold_start_keeps_the_last_mixture_and_calibrates_anew() -> None:
    layer = MixtureNorm2d(C, components=3, warm_start=False)
    first, second = clusters(32, apart=20.0, seed=0), clusters(32, apart=20.0, seed=1) + 100
    layer(first), layer(second)
    assert layer.running_mean.min() > 50
    calibrate(layer, [first, clusters(32, apart=20.0, seed=2)])
    expected = torch.tensor([-20.0, 6.0, 20.0])[:, None].expand(-1, C)
    torch.testing.assert_close(layer.running_mean.sort(0).values, expected, atol=0.5, rtol=0)


@pytest.mark.parametrize("form", FORMS)
def test_constant_channels_are_finite_in_training_and_evaluation(form: str) -> None:
    layer = MixtureNorm2d(C, mixture=form)
    for seed in range(3):
        x = clusters(seed=seed)
        x[:, 2] = 7.0
        assert layer(x).isfinite().all()
    assert layer.running_var[:, 2].max() < 1e-6
    y = layer.eval()(x)
    assert y.isfinite().all()
    assert y[:, 2].abs().max() < 0.1


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("layer_dtype", [torch.float64, torch.bfloat16])
def test_parameters_of_another_dtype_than_the_input(form: str, layer_dtype: torch.dtype) -> None:
    layer = MixtureNorm2d(C, mixture=form).to(layer_dtype)
    for training in (True, False):
        x = clusters().requires_grad_()
        y = layer.train(training)(x)
        y.square().sum().backward()
        assert (y.dtype, x.grad.dtype) == (torch.float32, torch.float32)
        assert layer.weight.grad.dtype == layer_dtype
    assert all(value.dtype in (layer_dtype, torch.int64) for value in layer.buffers())


@pytest.mark.parametrize("options", [{}, {"posterior_gradient": True}], ids=["fused", "eager"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scale", [2.0**60, 2.0**66, 2.0**100, 2.0**120])
def test_batches_whose_squares_overflow(form: str, scale: float, options: dict[str, Any]) -> None:
    """Result and gradients are those of the same batch where float64 holds the squares; BatchNorm's are 0 by then."""
    cotangent = torch.randn(clusters().shape, generator=torch.Generator().manual_seed(3))
    results = []
    for factor, dtype in ((2.0**20, torch.float64), (scale, torch.float32)):
        layer = MixtureNorm2d(C, mixture=form, **options).to(dtype)
        x = (clusters().to(dtype) * factor).requires_grad_()
        y = layer(x)
        y.backward(cotangent.to(dtype))
        # A gradient is one over the scale; float32 holds it to 2 ** -149, so with fewer digits near 2 ** -120.
        results.append((y.double(), x.grad.double() * factor, layer.weight.grad.double()))
    for found, expected in zip(*reversed(results), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    # The averages are beyond float32 by now: what follows starts from the largest variance, and stays finite.
    assert all(value.isfinite().all() for value in layer.buffers())
    for training in (True, False):
        assert layer.train(training)(clusters(seed=1) * scale).isfinite().all()
        assert layer.train(training)(clusters(seed=2)).isfinite().all()


@pytest.mark.parametrize("form", FORMS)
def test_evaluation_of_values_whose_squares_overflow(form: str) -> None:
    layer = MixtureNorm2d(C, mixture=form)
    layer(clusters())
    x = clusters(seed=1)
    x[0] *= 1e20
    expected = copy.deepcopy(layer).double().eval()(x.double())
    torch.testing.assert_close(layer.eval()(x), expected.float(), rtol=1e-4, atol=1e-4)


def test_controls_measure_batches_whose_squares_overflow() -> None:
    controls = [MixtureMatchedBatchNorm2d(C) for _ in range(2)]
    for control, factor in zip(controls, (2.0**20, 2.0**90), strict=True):
        control(clusters() * factor)
    torch.testing.assert_close(controls[1].weight, controls[0].weight, rtol=1e-4, atol=1e-4)


def test_a_batch_that_is_not_finite_stays_so() -> None:
    x = clusters()
    x[0, 0, 0, 0] = torch.inf
    assert MixtureNorm2d(C)(x).isnan().any()


def test_autocast_does_not_reach_the_posteriors() -> None:
    x = clusters()
    plain, cast = MixtureNorm2d(C), MixtureNorm2d(C)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    expected = plain(a)
    with torch.autocast("cpu", torch.bfloat16):
        y = cast(b)
        y.square().sum().backward()
    expected.square().sum().backward()
    assert torch.equal(y, expected)
    assert torch.equal(b.grad, a.grad)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "layer", [MixtureMatchedBatchNorm2d, MixtureReparametrizedBatchNorm2d], ids=["matched", "reparam"]
)
def test_controls_have_the_gain_of_the_first_batch(layer: Any, form: str) -> None:
    first, second = clusters(seed=0), clusters(seed=1)
    gain = MixtureNorm2d(C, mixture=form, affine=False)(first).std((0, 2, 3), correction=0)
    control = layer(C, mixture=form)
    calibrate(nn.Sequential(control), [second])  # is no first batch
    assert (control.matched_gain == 1).all()
    for x in (first, second):
        expected = nn.BatchNorm2d(C, affine=False)(x) * gain.view(1, C, 1, 1)
        torch.testing.assert_close(control(x), expected, atol=1e-5, rtol=1e-5)
    assert (gain > 1.05).any()
    resumed = layer(C, mixture=form)
    resumed.load_state_dict(copy.deepcopy(control.state_dict()))
    torch.testing.assert_close(resumed(clusters(seed=2)), control(clusters(seed=2)))


def test_the_controls_differ_in_the_parameter_alone() -> None:
    x = clusters()
    matched, reparam = MixtureMatchedBatchNorm2d(C), MixtureReparametrizedBatchNorm2d(C)
    matched(x).sum().backward()
    reparam(x).square().sum().backward()
    torch.testing.assert_close(matched.weight.detach(), reparam.matched_gain)
    assert (reparam.weight == 1).all()
    reparam.zero_grad(), matched.zero_grad()
    for layer in (matched, reparam):
        layer(x).square().sum().backward()
    torch.testing.assert_close(reparam.weight.grad, matched.weight.grad * reparam.matched_gain)


def test_a_checkpoint_of_batchnorm_gives_gain_and_bias() -> None:
    bn, layer = nn.BatchNorm2d(C), MixtureNorm2d(C)
    nn.init.uniform_(bn.weight, 1, 2)
    before = layer.running_mean.clone()
    with pytest.warns(UserWarning, match="its checkpoint holds none: gain and bias are loaded"):
        layer.load_state_dict(bn.state_dict())
    assert torch.equal(layer.weight, bn.weight)
    assert torch.equal(layer.running_mean, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"components": 0}, "components=0: a mixture has at least 1"),
        (
            {"mixture": "joined"},
            r"unknown mixture 'joined' \(did you mean 'joint'\?\): allowed are joint, per_channel",
        ),
        ({"em_steps": -1}, "em_steps=-1: it must be at least 0"),
        ({"components": 5, "subset": 4}, "subset=4: components=5 need at least as many samples"),
        ({"variance_floor": 0.0}, "variance_floor=0.0 is a fraction of a variance"),
        ({"component": 3}, "component"),
    ],
)
def test_bad_options_are_one_clear_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        norm_layer("mixture", **options)


def test_fewer_samples_than_components_are_refused() -> None:
    for layer in (MixtureNorm1d(C, components=5), MixtureMatchedBatchNorm1d(C, components=5)):
        with pytest.raises(ValueError, match="components=5 and got a batch of 4 samples"):
            layer(torch.randn(4, C))


def test_controls_refuse_what_belongs_to_pairs() -> None:
    with pytest.raises(ValueError, match="rescaled belongs to the controls of a pair"):
        norm_layer("bn_reparam", matched_to={"method": "mixture"}, rescaled=True)
    with pytest.raises(ValueError, match="unknown key 'warm_start'"):
        norm_layer("bn_reparam", matched_to={"method": "mixture", "warm_start": True})
    with pytest.raises(ValueError, match="needs affine=True"):
        norm_layer("bn_matched", matched_to={"method": "mixture"}, affine=False)
