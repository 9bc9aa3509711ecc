"""The factory: options, roles, module paths, places without an activation, foreign layers."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gbn import risk
from gbn.methods import CONTROLS, Option
from gbn.nn import (
    METHODS,
    ROLES,
    Activation,
    BatchNormAct2d,
    GeneralizedBatchNorm1d,
    GeneralizedBatchNorm2d,
    GeneralizedBatchNorm3d,
    GroupNormAct,
    InstanceNormAct2d,
    LayerNormAct,
    MatchedBatchNorm2d,
    Method,
    NormFactory,
    ReparametrizedBatchNorm2d,
    norm_layer,
)

CVAR = {"quadrangle": "cvar", "alpha": 0.75}


class Block(nn.Module):
    """A residual block as the models build it."""

    def __init__(self, norm: NormFactory, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=norm.needs_bias)
        self.norm1 = norm(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=norm.needs_bias)
        self.norm2 = norm(width, act=None, role="branch_end")
        self.shortcut = norm(width, act=None, role="shortcut")

    def forward(self, x: Tensor) -> Tensor:
        return (self.norm2(self.conv2(self.norm1(self.conv1(x)))) + self.shortcut(x)).relu()


def network(norm: NormFactory) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=norm.needs_bias), norm(4, role="stem"), Block(norm, 4), Block(norm, 4)
    )


def types(model: nn.Module) -> dict[str, str]:
    return {path: type(m).__name__ for path, m in model.named_modules() if hasattr(m, "norm_site")}


@pytest.mark.parametrize(
    ("method", "options", "kind"),
    [
        ("bn", {}, BatchNormAct2d),
        ("gbn", CVAR, GeneralizedBatchNorm2d),
        ("bn_matched", {"matched_to": CVAR}, MatchedBatchNorm2d),
        ("bn_reparam", {"matched_to": CVAR}, ReparametrizedBatchNorm2d),
        ("layer", {}, LayerNormAct),
        ("group", {"groups": 2}, GroupNormAct),
        ("instance", {}, InstanceNormAct2d),
        ("none", {}, Activation),
    ],
)
def test_each_method_makes_its_layer(method: str, options: dict[str, Any], kind: type) -> None:
    layer = norm_layer(method, **options)(8)
    assert type(layer) is kind
    assert layer.act == "relu"


def test_plain_batchnorm_where_no_activation_follows() -> None:
    assert type(norm_layer("bn")(8, act=None)) is nn.BatchNorm2d
    assert type(norm_layer("bn")(8, act=None, dim=1)) is nn.BatchNorm1d


def test_parameter_names_are_those_of_the_plain_layer_in_every_arm() -> None:
    """So that a tensor's initial value, drawn by name, is the same in every arm."""
    names = {name for name, _ in network(norm_layer("bn")).named_parameters()}
    for arm in (
        norm_layer("gbn", **CVAR),
        norm_layer("bn_matched", matched_to=CVAR),
        norm_layer("bn_reparam", matched_to=CVAR),
        norm_layer("layer"),
        norm_layer("group", groups=2),
        norm_layer("instance"),
    ):
        assert {name for name, _ in network(arm).named_parameters()} == names


@pytest.mark.parametrize(
    ("dim", "kind"), [(1, GeneralizedBatchNorm1d), (2, GeneralizedBatchNorm2d), (3, GeneralizedBatchNorm3d)]
)
def test_dimensions(dim: int, kind: type) -> None:
    assert type(norm_layer("gbn")(8, dim=dim)) is kind


def test_options_reach_the_layer() -> None:
    layer = norm_layer("gbn", **CVAR, eps=1e-3, momentum=None, affine=False, track_running_stats=False)(8)
    assert (layer.eps, layer.momentum, layer.weight, layer.running()) == (1e-3, None, None, (None, None))
    assert layer.pair.deviation == risk.deviation("cvar", alpha=0.75)
    halved = norm_layer("bn")(8, device="cpu", dtype=torch.float64)
    assert halved.weight.dtype == halved.running_var.dtype == torch.float64


def test_gradient_mode_reaches_the_parts_of_a_composition() -> None:
    options = {
        "statistic": {"name": "quantile", "alpha": 0.6},
        "deviation": {"name": "range"},
        "window": 0.05,
    }
    pair = norm_layer("gbn", **options, quantile_gradient="window")(8).pair
    assert pair.statistic == risk.statistic("quantile", alpha=0.6, quantile_gradient="window", window=0.05)
    assert pair.deviation == risk.deviation("range", quantile_gradient="window", window=0.05)
    own = {**options, "statistic": {"name": "median", "quantile_gradient": "exact"}}
    assert norm_layer("gbn", **own)(8).pair.statistic.quantile_gradient == "exact"


def test_none_is_not_given_and_another_methods_option_is_refused() -> None:
    nothing = {"quadrangle": None, "matched_to": None, "groups": None, "samples": None, "target": None}
    for method in METHODS:
        needed = {"target": nn.BatchNorm2d} if method == "custom" else {}
        needed = {"matched_to": CVAR} if METHODS[method].control_of else needed
        assert isinstance(norm_layer(method, **{**nothing, **needed})(4, act=None), nn.Module)
    for method in ("layer", "none"):
        with pytest.raises(ValueError, match="unknown option 'momentum'"):
            norm_layer(method, momentum=0.1)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("gnb", {}, r"unknown method 'gnb' \(did you mean 'gbn'\?\)"),
        ("bn", {"alpha": 0.5}, "method 'bn': unknown option 'alpha'"),
        ("gbn", {"aplha": 0.5}, r"unknown option 'aplha' \(did you mean 'alpha'\?\)"),
        ("gbn", {"alpha": 2.0}, "between 0 and 1"),
        ("gbn", {"quadrangle": "std", "alpha": 0.5}, "alpha"),
        ("bn_matched", {}, "needs matched_to"),
        ("bn_matched", {"matched_to": {"quadrangle": "range"}}, "sample size"),
        ("bn_matched", {"matched_to": CVAR, "affine": False}, "needs affine=True"),
        ("custom", {}, "needs target"),
        ("bn", {"without_act": "none"}, "allowed are same, bn, mean"),
        ("layer", {"without_act": "mean"}, "has no pair"),
        ("gbn", {"placement": {"roles": ["stm"]}}, "unknown role 'stm'"),
        ("gbn", {"placement": {"role": ["stem"]}}, "unknown key 'role'"),
        ("gbn", {"placement": {"otherwise": "layer"}}, "allowed are bn, none"),
        ("group", {"groups": 0}, "at least 1"),
    ],
)
def test_bad_options_are_refused_before_any_network(
    method: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        norm_layer(method, **options)


def test_bad_places_are_refused() -> None:
    norm = norm_layer("bn")
    with pytest.raises(ValueError, match="allowed are 1, 2, 3"):
        norm(8, dim=4)
    with pytest.raises(ValueError, match=r"unknown role 'boddy' \(did you mean 'body'"):
        norm(8, role="boddy")
    with pytest.raises(ValueError, match="act='rellu' is unknown"):
        norm(8, act="rellu")


def test_without_act_same_is_the_pair() -> None:
    assert norm_layer("gbn", **CVAR)(8, act=None).pair == norm_layer("gbn", **CVAR)(8).pair


@pytest.mark.parametrize("method", ["gbn", "bn_matched", "bn_reparam", "bn", "layer"])
def test_without_act_bn_is_batchnorm_with_the_arms_eps(method: str) -> None:
    options = CVAR if method == "gbn" else {"matched_to": CVAR} if "_" in method else {}
    layer = norm_layer(method, **options, without_act="bn", eps=1e-3)(8, act=None)
    assert type(layer) is nn.BatchNorm2d
    assert layer.eps == 1e-3
    assert (layer.weight == 1).all()


@pytest.mark.parametrize("rescaled", [False, True])
def test_without_act_mean_keeps_the_deviation(rescaled: bool) -> None:
    norm = norm_layer("gbn", **CVAR, rescaled=rescaled, without_act="mean")
    layer = norm(8, act=None)
    assert (layer.pair.statistic, layer.pair.deviation) == (risk.statistic("mean"), norm(8).pair.deviation)
    assert layer.rescaled == rescaled
    control = norm_layer("bn_matched", matched_to=CVAR, rescaled=rescaled, without_act="mean")(8, act=None)
    assert (control.bias == 0).all()
    c = 1.0 if rescaled else risk.deviation("cvar", alpha=0.75).gaussian()
    torch.testing.assert_close(control.weight.detach(), torch.full((8,), 1 / c))
    assert type(norm_layer("bn", without_act="mean")(8, act=None)) is nn.BatchNorm2d


def test_without_act_mean_of_a_control_that_is_given_its_pair() -> None:
    pair = norm_layer("gbn", **CVAR)(8).pair
    control = norm_layer("bn_reparam", matched_to=pair, without_act="mean")(8, act=None)
    assert control.pair == pair.with_mean()


def test_placement_by_role() -> None:
    norm = norm_layer("gbn", **CVAR, placement={"roles": ["stem", "body"]})
    made = {role: type(norm(4, act=None, role=role)) for role in ROLES}
    gbn, bn = GeneralizedBatchNorm2d, nn.BatchNorm2d
    assert made == {"stem": gbn, "body": gbn, "branch_end": bn, "shortcut": bn}
    nothing = norm_layer("gbn", placement={"roles": "stem", "otherwise": "none"})
    assert isinstance(nothing(4, act=None), Activation)
    assert isinstance(nothing(4, act=None, role="stem"), gbn)


@pytest.mark.parametrize("method", ["layer", "none", "gbn", "bn_reparam"])
def test_placement_is_one_mechanism_for_all_methods(method: str) -> None:
    options = {"matched_to": CVAR} if method == "bn_reparam" else {}
    norm = norm_layer(method, **options, placement={"pattern": ["2.*"]})
    model = norm.place(network(norm))
    inside = type(norm(4)).__name__
    assert {path: kind for path, kind in types(model).items() if path in ("1", "2.norm1", "3.norm1")} == {
        "1": "BatchNormAct2d",
        "2.norm1": inside,
        "3.norm1": "BatchNormAct2d",
    }


def test_placement_by_module_path() -> None:
    norm = norm_layer("gbn", **CVAR, placement={"pattern": ["1", "*.norm1"]}, momentum=0.3)
    model = network(norm).double().eval()
    kept = model.get_submodule("2.norm1")
    placed = norm.place(model)
    assert placed is model
    gbn, bn = "GeneralizedBatchNorm2d", "BatchNorm2d"
    expected = {"1": gbn}
    for block in ("2", "3"):
        expected |= {f"{block}.norm1": gbn, f"{block}.norm2": bn, f"{block}.shortcut": bn}
    assert types(model) == expected
    assert model.get_submodule("2.norm1") is kept
    new = model.get_submodule("2.norm2")
    assert (new.momentum, new.weight.dtype, new.training) == (0.3, torch.float64, False)
    model.train()(torch.randn(2, 3, 6, 6, dtype=torch.float64)).sum().backward()


def test_role_and_path_must_both_agree() -> None:
    norm = norm_layer("gbn", placement={"roles": ["body"], "pattern": "2.*"})
    model = norm.place(network(norm))
    assert [path for path, kind in types(model).items() if kind.startswith("Gen")] == ["2.norm1"]


def test_pattern_that_matches_nothing_names_what_there_is() -> None:
    norm = norm_layer("gbn", placement={"pattern": ["layer9.*"]})
    with pytest.raises(ValueError, match=r"'layer9\.\*' matches no norm; they are 1, 2\.norm1, 2\.norm2"):
        norm.place(network(norm))


def test_placing_a_copied_model_and_a_single_layer() -> None:
    norm = norm_layer("gbn", placement={"pattern": ["2.*"]})
    model = norm.place(copy.deepcopy(network(norm)))
    assert types(model)["1"] == "BatchNormAct2d"
    single = norm_layer("gbn", placement={"pattern": ["*"]})
    layer = single(4)
    assert single.place(layer) is layer


def test_needs_bias_only_without_normalization() -> None:
    assert [name for name in METHODS if name not in ("custom", *CONTROLS)
            if norm_layer(name).needs_bias] == ["none"]  # fmt: skip


def test_factory_is_picklable_and_says_what_it_is() -> None:
    norm = norm_layer("gbn", **CVAR, without_act="bn", placement={"roles": ["body"]})
    twin = pickle.loads(pickle.dumps(norm))
    assert repr(twin) == repr(norm)
    for part in ("'gbn'", "alpha=0.75", "without_act='bn'", "roles=('body',)"):
        assert part in repr(norm)
    assert types(network(twin)) == types(network(norm))


def test_a_new_method_is_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        nn, "Twice", lambda method, site, options: nn.Softplus(options["factor"]), raising=False
    )
    row = Method("twice", "doubles", "torch.nn:Twice", {"factor": Option(float, 2.0)})
    monkeypatch.setitem(METHODS, "twice", row)
    assert norm_layer("twice", factor=3)(8).beta == 3
    with pytest.raises(ValueError, match="method 'twice': unknown option 'alpha': allowed are factor"):
        norm_layer("twice", alpha=3)
