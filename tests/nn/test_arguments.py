"""BatchNorm's arguments, those of torch 2.13 included, in every layer; what is said of values that none may have."""

from __future__ import annotations

import inspect
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gbn.nn
from gbn.nn import (
    METHODS,
    BatchNormAct2d,
    GeneralizedBatchNorm2d,
    GroupNormAct,
    InstanceEnhancementBatchNorm2d,
    InstanceNormAct2d,
    LayerNormAct,
    MixtureMatchedBatchNorm2d,
    MixtureNorm2d,
    ReparametrizedBatchNorm2d,
    generalized_batch_norm,
    norm_layer,
)
from gbn.nn.base import BatchStatisticsNorm
from gbn.nn.methods import accepted

C = 6
LAYERS = {
    name: layer
    for name in gbn.nn.__all__
    if inspect.isclass(layer := getattr(gbn.nn, name)) and issubclass(layer, BatchStatisticsNorm)
}
OTHERS = {"GroupNormAct": GroupNormAct, "LayerNormAct": LayerNormAct, "InstanceNormAct2d": InstanceNormAct2d}


PAIRS = ("GeneralizedBatchNorm2d", "TrackingBatchNorm2d")


def needed(name: str) -> dict[str, Any]:
    """A control's one argument that has no default; at this pair its bias starts at 0."""
    control = name.startswith(("Matched", "Reparametrized", "Measured"))
    return {"matched_to": {"quadrangle": "std"}} if control else {}


def images(seed: int = 0) -> Tensor:
    return torch.randn(8, C, 4, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", LAYERS)
def test_arguments_of_batchnorm_in_its_order(name: str) -> None:
    theirs = list(inspect.signature(nn.BatchNorm2d).parameters)[:7]
    given = dict(zip(theirs, (C, 1e-3, 0.01, True, True, "cpu", torch.float64), strict=True))
    layer = LAYERS[name](*given.values(), bias=False, **needed(name))
    assert (layer.num_features, layer.eps, layer.momentum) == (C, 1e-3, 0.01)
    assert layer.weight.shape == (C,)
    assert layer.bias is None
    assert {t.dtype for t in (*layer.parameters(), *layer.buffers())} <= {torch.float64, torch.int64}
    assert "bias=False" in repr(layer)
    bare = LAYERS[name](C, affine=False, **needed(name)) if "Matched" not in name else layer
    assert bare.bias is None


@pytest.mark.parametrize("name", LAYERS)
def test_unaffine_and_untracked_arguments_by_place(name: str) -> None:
    if "Matched" in name:
        with pytest.raises(ValueError, match="needs affine=True"):
            LAYERS[name](C, 1e-5, None, False, **needed(name))
        return
    layer = LAYERS[name](C, 1e-5, None, False, False, None, torch.float64, **needed(name))
    assert layer.momentum is None
    assert list(layer.parameters()) == [p for p in layer.parameters() if p.shape == (C,) and p.ndim == 1]
    assert layer.weight is layer.bias is layer.num_batches_tracked is None


def test_without_bias_is_a_bias_of_zero(case: Any) -> None:
    """Forward and backward, in training and in evaluation, with activation."""
    method, options = case.factory.method, case.factory.options
    if "bias" not in accepted(METHODS[method]):
        pytest.skip("no gain and bias of its own")
    starts_at = getattr(case.layer(C), "initial_affine", lambda: (1.0, 0.0))()[1]
    starts_elsewhere = method == "bn_matched" and starts_at
    if starts_elsewhere or (method == "bn_measured_matched" and "std" not in case.name) or "start" in options:
        with pytest.raises(ValueError, match="it needs bias=True"):
            norm_layer(method, **options, bias=False)
        return
    layers = [
        norm_layer(method, **options, bias=bias)(C, act="tanh", dtype=torch.float64) for bias in (False, True)
    ]
    bare, whole = layers
    assert "bias" not in dict(bare.named_parameters())
    with torch.no_grad():
        for layer in layers:
            if getattr(layer, "weight", None) is not None:
                layer.weight.copy_(torch.linspace(0.5, 2, C))
        if getattr(whole, "bias", None) is not None:
            whole.bias.zero_()
    for training in (True, False):
        results = []
        for layer in layers:
            x = images().requires_grad_()
            y = layer.train(training)(x)
            wanted = [x, *(p for name, p in layer.named_parameters() if name != "bias")]
            results.append([y, *torch.autograd.grad(y, wanted, images(1))])
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b)
    for layer in layers:
        layer.reset_parameters()
    assert getattr(bare, "weight", None) is None or torch.equal(bare.weight, whole.weight)


def test_checkpoint_of_batchnorm_without_bias_loads_strictly() -> None:
    theirs = nn.BatchNorm2d(C).double()
    theirs.register_parameter("bias", None)  # as bias=False makes it, from torch 2.13 on
    theirs(3 * images() + 1)
    for name, layer in LAYERS.items():
        if not name.endswith("2d") or name.startswith(("Mixture", "InstanceEnhancement", "Measured")):
            continue  # those hold more than BatchNorm's state
        options = {"quadrangle": "std"} if name in PAIRS else needed(name)
        ours = layer(C, bias=False, dtype=torch.float64, **options)
        ours.load_state_dict(theirs.state_dict())
        torch.testing.assert_close(ours.eval()(images(1)), theirs.eval()(images(1)), msg=name)


def test_place_of_torchs_own_batchnorm_without_bias() -> None:
    """torch before 2.13 has no such argument, so this is ours, and behaves the same."""
    layer = norm_layer("bn", bias=False)(C, act=None)
    assert type(layer) is BatchNormAct2d
    assert layer.bias is None
    arm = norm_layer("gbn", bias=False, without_act="bn")
    assert arm(C, act=None).bias is None
    assert type(norm_layer("bn")(C, act=None)) is nn.BatchNorm2d


BAD: list[tuple[str, Any, str]] = [
    *(("num_features", value, "an integer, at least 1") for value in (0, -1, 2.0, True, "6", None)),
    *(("eps", value, "finite number, at least 0") for value in (-1e-5, math.nan, math.inf, "x", None, True)),
    *(("affine", value, "True or False") for value in ("no", None, 2, "cpu")),
    *(("bias", value, "True or False") for value in ("no", None)),
]
TRACKING: list[tuple[str, Any, str]] = [
    *(("momentum", value, "a number from 0 to 1, or None") for value in ("x", 1.5, -0.1, math.nan, True)),
    *(("track_running_stats", value, "True or False") for value in ("no", None)),
]


@pytest.mark.parametrize(("argument", "value", "allowed"), [*BAD, *TRACKING])
def test_values_that_no_layer_may_have(argument: str, value: Any, allowed: str) -> None:
    message = rf"{argument}={value!r} is not allowed: it must be .*{allowed}"
    layers = {name: layer for name, layer in LAYERS.items() if name.endswith("2d")}
    if argument in ("momentum", "track_running_stats"):
        layers["InstanceNormAct2d"] = InstanceNormAct2d
    else:
        layers |= OTHERS
    for name, layer in layers.items():
        with pytest.raises(ValueError, match=message.replace("+", r"\+")):
            layer(**{"num_features": C, **needed(name), argument: value})
    if argument not in ("num_features", "track_running_stats"):
        for method in ("bn", "gbn"):
            with pytest.raises(ValueError, match=message.replace("+", r"\+")):
                norm_layer(method, **{argument: value})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: GeneralizedBatchNorm2d(C, "cvar"), "by keyword, as quadrangle='cvar'"),
        (lambda: InstanceEnhancementBatchNorm2d(C, "cvar"), "by keyword, as quadrangle='cvar'"),
        (lambda: ReparametrizedBatchNorm2d(C, matched_to="cvar"), "must be a mapping"),
        (lambda: MixtureNorm2d(C, 3), "by keyword, as components=3"),
        (lambda: MixtureMatchedBatchNorm2d(C, 3), "by keyword, as components=3"),
        (lambda: GeneralizedBatchNorm2d(C, samples=1), "samples=1 is not allowed"),
        (lambda: GeneralizedBatchNorm2d(C, rescaled="no"), "rescaled='no' is not allowed"),
        (lambda: InstanceEnhancementBatchNorm2d(C, gate_bias="x"), "gate_bias='x' is not allowed"),
        (lambda: InstanceEnhancementBatchNorm2d(C, gate_bias=None), "gate_bias=None is not allowed"),
        (lambda: GroupNormAct(C, groups=0), "groups=0 is not allowed: it must be an integer, at least 1"),
        (lambda: GroupNormAct(C, groups="x"), "groups='x' is not allowed"),
        (lambda: generalized_batch_norm(torch.ones(2, 3), training=True, momentum="x"), "momentum='x'"),
        (
            lambda: generalized_batch_norm(torch.ones(2, 3), training=True, momentum=None),
            "momentum=None needs a count of batches",
        ),
        (
            lambda: generalized_batch_norm(torch.ones(2, 3), training=True, eps=-1.0),
            r"eps=-1\.0 is not allowed",
        ),
    ],
)
def test_arguments_of_single_layers(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
