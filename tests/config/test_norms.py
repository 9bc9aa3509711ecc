"""Each method's section has its own keys, checked by the table of methods; sections of earlier versions read back."""

import pickle

import pytest
from pydantic import TypeAdapter, ValidationError

from gbn.config.compose import compose, resolve
from gbn.config.errors import ConfigError
from gbn.config.norms import NormConfig, section
from gbn.methods import (
    CHAIN,
    COMMON_CONTROLS,
    CONTROLLED,
    CONTROLS,
    METHODS,
    Method,
    Option,
    options_of,
    own_options,
)
from gbn.nn import norm_layer
from gbn.store.identity import run_id

NEEDED = {"custom": ("norm._target_=their.Layer",), "instance": ("model=resnet",)}
ALWAYS = {"name", "method", "revision", "without_act", "placement"}
#: What every section of earlier versions held.
EARLIER = {
    **dict.fromkeys(("quadrangle", "statistic", "deviation", "matched_to", "groups", "samples")),
    "target": None,
    "kwargs": None,
    "eps": 1e-5,
    "momentum": 0.1,
    "affine": True,
    "rescaled": False,
    "track_running_stats": True,
    "instance_enhancement": [],
    "gate_bias": -1.0,
    "components": 3,
    "mixture": "joint",
    "em_steps": 3,
    "subset": 1024,
    "variance_floor": 1e-3,
    "warm_start": True,
    "posterior_gradient": False,
}


CHOICES = [
    *((f"norm={name}", *NEEDED.get(name, ())) for name, row in METHODS.items() if not row.control_of),
    *((f"norm={name}", f"norm.matched_to={of}") for name in CONTROLS for of in ("gbn_cvar", "iebn")),
    *((f"norm={name}", "norm.matched_to=mixture") for name in COMMON_CONTROLS),
]


@pytest.mark.parametrize("overrides", CHOICES, ids=" ".join)
def test_a_section_has_the_keys_of_its_method_and_reads_back(overrides):
    config = compose(overrides)
    norm = config.as_dict()["norm"]
    own = options_of(norm["method"], norm.get("matched_to"))
    assert norm.keys() - config.norm.parameters.keys() <= ALWAYS | own.keys()
    assert own_options(EARLIER | norm) == norm
    read = type(config).model_validate(config.as_dict() | {"norm": EARLIER | norm})
    assert read == config
    assert run_id(read.as_dict(), read.defaults()) == run_id(config.as_dict(), config.defaults())
    assert pickle.loads(pickle.dumps(config)) == config  # as it goes to a worker of a sweep


def test_the_options_of_a_new_method_are_checked_like_the_others():
    row = Method("own", "a new one", "gbn.nn.simple:LayerNormAct", {"power": Option(float, 2.0, {"gt": 0})})
    schema, given = section(row), {"name": "own", "method": "own", "revision": 1}
    assert schema(**given, power=3.0).options()["power"] == 3.0
    for value in ("banana", -1.0, True):
        with pytest.raises(ValidationError, match="power"):
            schema(**given, power=value)
    with pytest.raises(
        ValidationError, match=r"unknown key 'norm.pwer' \(did you mean 'power'\?\); allowed for own"
    ):
        schema(**given, pwer=2.0)


def test_a_new_control_is_a_row(monkeypatch):
    of = {"gbn": "gbn.nn.controls:MatchedBatchNorm{dim}d"}
    row = Method(
        "bn_other", "a control", "gbn.nn.methods:control", METHODS["bn_matched"].options, control_of=of
    )
    monkeypatch.setitem(METHODS, "bn_other", row)
    with pytest.raises(ConfigError, match=r"unknown norm\.matched_to 'mixture'; allowed: gbn, gbn_cvar"):
        resolve({"norm": {"name": "bn_other", "method": "bn_other", "matched_to": "mixture"}})
    schema = section(row, METHODS["gbn"])
    given = {"name": "bn_other", "method": "bn_other", "revision": 1, "matched_to": "gbn_cvar", "alpha": 0.6}
    options = schema(**given, quadrangle="cvar").options()
    assert options["matched_to"] == {"quadrangle": "cvar", "alpha": 0.6}
    expected = norm_layer("bn_matched", **options)(4)
    assert repr(norm_layer("bn_other", **options)(4)) == repr(expected)


def test_a_method_without_a_row_is_named():
    with pytest.raises(ValidationError, match=r"unknown norm.method 'mixtur' \(did you mean 'mixture'\?\)"):
        TypeAdapter(NormConfig).validate_python({"name": "mine", "method": "mixtur", "revision": 1})


def test_the_chain_and_what_has_controls():
    assert [*CHAIN.items()] == [
        ("bn_matched", "initialization"),
        ("bn_reparam", "parametrization"),
        ("bn_measured_reparam", "calibration"),
    ]
    assert COMMON_CONTROLS == ("bn_matched", "bn_reparam")
    assert CONTROLLED == ("gbn", "iebn", "mixture")
