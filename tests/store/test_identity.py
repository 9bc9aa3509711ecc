"""Run ids: stable under new keys with defaults, sensitive to whatever can change a number."""

import copy
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gbn.store.identity import (
    NOT_IDENTITY,
    canonical,
    digest,
    group_of,
    identity,
    norm_label,
    run_id,
    run_id_of,
)

CONFIG = {
    "dataset": {"name": "cifar10", "revision": 1, "root": "/d", "download": True, "augment": "none"},
    "model": {"name": "cnn", "revision": 1, "width": 0.25},
    "norm": {
        "method": "gbn",
        "revision": 2,
        "quadrangle": "cvar",
        "alpha": 0.9,
        "statistic": None,
        "deviation": None,
        "matched_to": None,
        "placement": {"roles": None, "otherwise": "bn"},
    },
    "optimizer": {"name": "sgd", "revision": 1, "lr": 0.05, "milestones": [0.5, 0.75]},
    "trainer": {"revision": 1, "epochs": 3.0, "device": "cpu", "threads": 2, "evaluation": {"points": 40}},
    "tracker": {"mode": "offline"},
    "launcher": {"jobs": 2},
    "seed": 0,
    "results_dir": "results",
    "experiment": "quick",
}
DEFAULTS = {
    "dataset": {"root": None, "download": True, "augment": "none"},
    "model": {"width": 1.0},
    "norm": {
        "quadrangle": None,
        "alpha": 0.75,
        "statistic": None,
        "deviation": None,
        "matched_to": None,
        "placement": {"roles": None, "otherwise": "bn"},
    },
    "optimizer": {"milestones": [0.5, 0.75]},
    "trainer": {"device": "auto", "threads": "auto", "evaluation": {"points": 40}},
    "tracker": {"mode": "auto"},
    "seed": 0,
    "results_dir": "results",
    "experiment": None,
}


def changed(path, value):
    config = copy.deepcopy(CONFIG)
    *sections, key = path.split(".")
    inner = config
    for section in sections:
        inner = inner.setdefault(section, {})
    inner[key] = value
    return config


def test_identity_holds_what_differs_from_the_defaults_and_nothing_else():
    assert identity(CONFIG, DEFAULTS) == {
        "dataset": {"name": "cifar10", "revision": 1},
        "model": {"name": "cnn", "revision": 1, "width": 0.25},
        "norm": {"method": "gbn", "revision": 2, "quadrangle": "cvar", "alpha": 0.9},
        "optimizer": {"name": "sgd", "revision": 1, "lr": 0.05},
        "trainer": {"revision": 1, "epochs": 3},
        "seed": 0,
    }


def test_the_id_is_a_golden_value():
    # A change here renames every run on every disk: only with a reason as strong as that.
    assert run_id(CONFIG, DEFAULTS) == "cifar10-cnn-gbn_cvar_0.9-s0-5e9a8bd5cb"


@pytest.mark.parametrize("path", sorted(NOT_IDENTITY))
def test_keys_that_change_no_number_change_no_id(path):
    assert run_id(changed(path, "another"), DEFAULTS) == run_id(CONFIG, DEFAULTS)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("seed", 1),
        ("norm.alpha", 0.8),
        ("norm.revision", 3),
        ("dataset.revision", 2),
        ("dataset.augment", "flip"),
        ("model.width", 0.5),
        ("optimizer.milestones", [0.5]),
        ("optimizer.milestones", [0.75, 0.5]),
        ("trainer.evaluation.points", 41),
        ("norm.placement.otherwise", "none"),
        ("norm.matched_to", {"quadrangle": "cvar"}),
        ("model.new_key", None),
    ],
)
def test_keys_that_can_change_a_number_change_the_id(path, value):
    assert run_id(changed(path, value), DEFAULTS) != run_id(CONFIG, DEFAULTS)


@pytest.mark.parametrize("section", ["dataset", "norm", "trainer"])
def test_a_key_added_later_with_its_default_changes_no_old_id(section):
    later = copy.deepcopy(DEFAULTS)
    later[section]["added"] = {"deep": [1, 2], "flag": False}
    config = changed(f"{section}.added", {"deep": [1, 2], "flag": False})
    assert run_id(config, later) == run_id(CONFIG, DEFAULTS)
    assert run_id(changed(f"{section}.added", {"deep": [1, 2], "flag": True}), later) != run_id(
        CONFIG, DEFAULTS
    )


def test_a_flag_is_not_the_number_it_equals_in_python():
    assert run_id(changed("model.flag", True), DEFAULTS) != run_id(changed("model.flag", 1), DEFAULTS)
    assert run_id(changed("model.flag", 1.0), DEFAULTS) == run_id(changed("model.flag", 1), DEFAULTS)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(max_size=4), plain, max_size=5))
def test_the_hash_knows_no_order_of_keys(mapping):
    assert digest(dict(reversed(mapping.items()))) == digest(mapping)
    assert identity(mapping, mapping) == {k: v for k, v in identity(mapping, mapping).items() if k in mapping}


def test_an_identity_alone_gives_its_id_back():
    assert run_id_of(identity(CONFIG, DEFAULTS)) == run_id(CONFIG, DEFAULTS)


def test_the_id_is_a_portable_folder_name():
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", run_id(changed("norm.method", "a/b:c d"), DEFAULTS))


@pytest.mark.parametrize(
    ("norm", "label"),
    [
        ({"method": "bn"}, "bn"),
        ({"method": "gbn", "quadrangle": "cvar"}, "gbn_cvar"),
        (
            {"method": "bn_matched", "matched_to": {"quadrangle": "cvar", "alpha": 0.75}},
            "bn_matched_cvar_0.75",
        ),
        (
            {"method": "gbn", "statistic": {"name": "quantile", "alpha": 0.6}, "deviation": {"name": "std"}},
            "gbn_quantile_0.6_std",
        ),
        ({"name": "gbn_cvar", "method": "gbn", "quadrangle": "cvar", "alpha": 0.9}, "gbn_cvar_0.9"),
        ({"name": "gbn_mine", "method": "gbn", "quadrangle": "mad"}, "gbn_mine_mad"),
        (
            {"name": "bn_matched", "method": "bn_matched", "matched_to": "gbn_cvar", "quadrangle": "cvar"},
            "bn_matched_gbn_cvar",
        ),
        ({"name": "custom", "method": "custom", "_target_": "their.Layer"}, "custom_Layer"),
        ({"method": "custom", "target": "their.module:Layer"}, "custom_Layer"),
    ],
)
def test_labels_are_readable(norm, label):
    assert norm_label(norm) == label


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object()])
def test_what_has_no_canonical_form_is_refused_by_name(value):
    with pytest.raises(ValueError, match=r"model\.width"):
        identity(changed("model.width", value), DEFAULTS)


def test_an_identity_without_its_names_says_what_is_missing():
    with pytest.raises(ValueError, match=r"'model' is missing"):
        run_id_of({"dataset": {"name": "digits"}})


def test_canonical_json_is_compact_ascii():
    assert canonical({"b": [1.0, "é"], "a": None}) == '{"a":null,"b":[1,"\\u00e9"]}'


KEPT = {
    "dataset": {"name": "cifar10", "revision": 1},
    "model": {"name": "cnn", "revision": 1},
    "norm": {"name": "gbn_cvar", "method": "gbn", "alpha": 0.6, "revision": 1},
    "optimizer": {"lr": 0.05},
    "seed": 0,
}


def test_a_group_is_the_run_id_without_the_seed():
    group = group_of(KEPT)
    assert group.startswith("cifar10-cnn-gbn_cvar_0.6-")
    assert group.rsplit("-", 1)[0] == run_id_of(KEPT).rsplit("-", 2)[0]
    assert KEPT["seed"] == 0  # the identity is left as it was


@pytest.mark.parametrize("seed", [1, 17])
def test_seeds_share_a_group(seed):
    assert group_of(KEPT | {"seed": seed}) == group_of(KEPT)


@pytest.mark.parametrize(
    "other",
    [
        {"optimizer": {"lr": 0.1}},
        {"norm": KEPT["norm"] | {"revision": 2}},
        {"dataset": {"name": "cifar10", "revision": 1, "subset": 500}},
    ],
)
def test_whatever_else_differs_makes_another_group(other):
    assert group_of(KEPT | other) != group_of(KEPT)


def test_a_group_needs_the_parts_of_an_identity():
    with pytest.raises(ValueError, match="norm"):
        group_of({key: part for key, part in KEPT.items() if key != "norm"})
