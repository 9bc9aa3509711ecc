"""Whose numbers a state dict holds: it says so in every kind of file, and what does not fit is said at loading."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from gbn.nn import norm_layer

C = 5


def by_torch(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def by_safetensors(state: Any) -> Any:
    return safetensors.torch.load(safetensors.torch.save(dict(state)))


def in_half_precision(state: Any) -> Any:
    return {key: value.half() for key, value in state.items()}


WAYS: list[Callable[[Any], Any]] = [by_torch, by_safetensors, dict, in_half_precision]

#: Layers whose state dicts have the same parameters; those of one function share a number.
LAYERS: dict[str, tuple[int, str, dict[str, Any]]] = {
    "bn": (0, "bn", {}),
    "matched": (0, "bn_matched", {"matched_to": "gbn_cvar"}),
    "std": (0, "gbn_std", {}),
    "std by another name": (0, "gbn", {"statistic": "mean", "deviation": "std", "rescaled": True}),
    "reparametrized as it is": (0, "bn_reparam", {"matched_to": "gbn_std"}),
    "cvar": (1, "gbn_cvar", {}),
    "cvar, other gradient": (1, "gbn_cvar", {"quantile_gradient": "exact"}),
    "cvar rescaled": (2, "gbn_cvar_rescaled", {}),
    "cvar at 0.9": (3, "gbn_cvar", {"alpha": 0.9}),
    "cvar smoothed": (4, "gbn_cvar", {"quantile_gradient": "smoothed"}),
    "mad": (5, "gbn_mad", {}),
    "range at 64": (6, "gbn_range", {"rescaled": True, "samples": 64}),
    "range at 256": (7, "gbn_range", {"rescaled": True, "samples": 256}),
    "reparametrized": (8, "bn_reparam", {"matched_to": "gbn_cvar"}),
    "reparametrized mad": (9, "bn_reparam", {"matched_to": "gbn_mad"}),
    "reparametrized rescaled": (10, "bn_reparam", {"matched_to": "gbn_cvar_rescaled"}),
}


def layer(name: str, **more: Any) -> nn.Module:
    _, method, options = LAYERS[name]
    return norm_layer(method, **options, **more)(C)


def trained(module: nn.Module) -> nn.Module:
    make = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.rand(parameter.shape, generator=make))
    module(2 * torch.randn(8, C, 4, 4, generator=make) + 1)
    return module


def test_safetensors_of_each_layer_load_without_a_word(case: Any) -> None:
    if case.foreign:
        pytest.skip("a foreign layer's own affair")
    source, target = trained(case.layer(C)), case.layer(C)
    target.load_state_dict(by_safetensors(source.state_dict()))
    x = torch.randn(4, C, 3, 3, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(target.eval()(x), source.eval()(x), rtol=0, atol=0)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("origin", LAYERS)
def test_another_function_is_said_and_the_same_is_not(origin: str, way: Callable[[Any], Any]) -> None:
    state = way(trained(layer(origin)).state_dict())
    for name in LAYERS:
        target = layer(name)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            target.load_state_dict(state)
        assert len(said) == (LAYERS[name][0] != LAYERS[origin][0]), (origin, name)
        torch.testing.assert_close(target.weight.detach(), state["weight"].float())
        if said:
            assert "\n" not in str(said[0].message)


@pytest.mark.parametrize("name", LAYERS)
def test_batchnorm_loads_what_is_its_own_and_refuses_the_rest(name: str) -> None:
    state = trained(layer(name)).state_dict()
    if LAYERS[name][0] == 0:
        assert list(state) == list(nn.BatchNorm2d(C).state_dict())
        nn.BatchNorm2d(C).load_state_dict(state)
        return
    with pytest.raises(RuntimeError, match=r"Unexpected key\(s\) in state_dict: .*_extra_state"):
        nn.BatchNorm2d(C).load_state_dict(state)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("way", [by_torch, by_safetensors])
def test_checkpoint_of_batchnorm_loads_strictly(name: str, way: Callable[[Any], Any]) -> None:
    theirs, ours = trained(nn.BatchNorm2d(C)), layer(name)
    if LAYERS[name][0] == 0:
        ours.load_state_dict(way(theirs.state_dict()))
        assert torch.equal(ours.running_var, theirs.running_var)
    else:
        with pytest.warns(UserWarning, match="BatchNorm"):
            ours.load_state_dict(way(theirs.state_dict()))
    assert torch.equal(ours.weight, theirs.weight)


def test_rescaling_keeps_statistics_and_names_both_factors() -> None:
    source, target = trained(layer("cvar")), layer("cvar rescaled")
    with pytest.warns(
        UserWarning, match=r"this layer computes 1\.271 \(x - S\) / D .*trained for 1 \(x - S\)"
    ):
        target.load_state_dict(dict(source.state_dict()))
    x = torch.randn(4, C, 3, 3, generator=torch.Generator().manual_seed(1))
    bias = source.bias.view(1, -1, 1, 1)
    target.act = source.act = None
    # phi(z) / (1 - alpha) at z = Phi^-1(0.75)
    torch.testing.assert_close(target.eval()(x) - bias, 1.2711066 * (source.eval()(x) - bias))
    nested = nn.Sequential(nn.Identity(), layer("cvar rescaled"))
    with pytest.warns(UserWarning, match="layer '1' computes"):
        nested.load_state_dict(nn.Sequential(nn.Identity(), source).state_dict())


def test_statistics_of_another_pair_stay_out_of_a_plain_dict() -> None:
    source, target = trained(layer("cvar")), layer("mad")
    with pytest.warns(
        UserWarning, match=r"is \(median, mad\), .* running statistics of .*cvar.* need calibration"
    ):
        target.load_state_dict(by_safetensors(source.state_dict()))
    assert (target.running_deviation == 1).all()


def of_an_earlier_version(name: str, module: nn.Module) -> Any:
    """No entry of its own; the pair in torch's metadata, which a file of torch keeps."""
    state = module.state_dict()
    del state["_extra_state"]
    if name == "cvar":
        state._metadata[""]["pair"] = "quantile(alpha=0.75)/cvar(alpha=0.75)"
    return state


def test_checkpoint_of_an_earlier_version() -> None:
    source = trained(layer("cvar"))
    state = of_an_earlier_version("cvar", source)
    for name in ("cvar", "cvar rescaled"):
        target = layer(name)
        with pytest.warns(UserWarning, match="does not say whether D was rescaled"):
            target.load_state_dict(by_torch(state))
        assert torch.equal(target.running_deviation, source.running_deviation)
    with pytest.warns(UserWarning, match="need calibration"):
        layer("mad").load_state_dict(by_torch(state))
    for name in ("cvar", "mad"):  # nothing says which it is
        target = layer(name)
        with pytest.warns(UserWarning, match="does not say what it was trained for"):
            target.load_state_dict(by_safetensors(state))
        assert torch.equal(target.running_deviation, source.running_deviation)
    with pytest.warns(UserWarning, match="running statistics of another pair"):
        layer("std").load_state_dict(by_safetensors(state))
    control = trained(layer("reparametrized"))
    with pytest.warns(UserWarning, match="BatchNorm, or a control of an earlier version"):
        layer("reparametrized").load_state_dict(of_an_earlier_version("reparametrized", control))


def test_mean_and_standard_deviation_of_an_earlier_version_loads_without_a_word() -> None:
    state = trained(layer("std")).state_dict()
    state._metadata[""]["pair"] = "mean/std"
    layer("std").load_state_dict(by_torch(state))
    layer("bn").load_state_dict(by_torch(state))


def test_layers_without_running_statistics_are_told_apart_too() -> None:
    options: dict[str, Any] = {"track_running_stats": False}
    source = layer("cvar", **options)
    layer("cvar", **options).load_state_dict(by_safetensors(source.state_dict()))
    with pytest.warns(UserWarning, match=r"this layer computes .*mad.* was trained for .*cvar"):
        layer("mad", **options).load_state_dict(by_safetensors(source.state_dict()))
    with pytest.warns(UserWarning, match="does not say what it was trained for"):
        layer("mad", **options).load_state_dict(nn.BatchNorm2d(C, **options).state_dict())
    layer("std", **options).load_state_dict(nn.BatchNorm2d(C, **options).state_dict())
    bare = layer("mad", affine=False, **options)
    assert list(bare.state_dict()) == ["_extra_state"]
    bare.load_state_dict(bare.state_dict())


def test_nothing_to_load_is_no_difference() -> None:
    """As where a part of a network is loaded."""
    model = nn.Sequential(nn.Conv2d(3, C, 1), layer("cvar"))
    found = model.load_state_dict(nn.Sequential(nn.Conv2d(3, C, 1)).state_dict(), strict=False)
    assert "1.weight" in found.missing_keys
    assert not found.unexpected_keys


@pytest.mark.parametrize(
    "entry",
    [torch.zeros(3, dtype=torch.uint8), torch.tensor(list(b"[1]"), dtype=torch.uint8), "text", {"a": 1}],
)
def test_an_entry_that_cannot_be_read_counts_as_none(entry: Any) -> None:
    state = {**trained(layer("cvar")).state_dict(), "_extra_state": entry}
    with pytest.warns(UserWarning, match="does not say what it was trained for"):
        layer("cvar").load_state_dict(state)


def test_the_entry_is_no_buffer_and_no_obstacle() -> None:
    module = trained(layer("cvar"))
    assert {b.dtype for b in module.buffers()} == {torch.float32, torch.int64}
    with torch.device("meta"):
        assert layer("cvar").state_dict()["_extra_state"].device.type == "cpu"
    x = torch.randn(4, C, 3, 3)
    assert torch.equal(torch.func.functional_call(module.eval(), module.state_dict(), (x,)), module(x))
    empty = layer("cvar").to("meta")
    empty.load_state_dict(module.state_dict(), assign=True)
    assert torch.equal(empty.running_deviation, module.running_deviation)


@pytest.mark.parametrize("method", ["iebn", "gbn"])
def test_a_gate_keeps_its_values_where_the_checkpoint_has_none(method: str) -> None:
    options = {} if method == "iebn" else {"quadrangle": "cvar", "instance_enhancement": True}
    gated = norm_layer(method, **options)(C)
    with torch.no_grad():
        gated.gate_weight.fill_(0.5)
    plain = trained(layer("std" if method == "iebn" else "cvar"))
    with pytest.warns(UserWarning, match=r"its checkpoint has no gate.*0\.2689"):
        gated.load_state_dict(by_safetensors(plain.state_dict()))
    assert (gated.gate_weight == 0.5).all()
    for name, value in plain.state_dict().items():
        assert torch.equal(gated.state_dict()[name], value)
    with pytest.raises(RuntimeError, match="gate_weight"):
        plain.load_state_dict(gated.state_dict())
