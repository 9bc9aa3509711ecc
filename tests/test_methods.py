"""Names of conf/norm mean in Python what they mean on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from gbn.config.compose import compose
from gbn.config.errors import ConfigError
from gbn.config.norms import NormConfig, NormSection
from gbn.methods import COMMON_CONTROLS, CONTROLS, NAMED
from gbn.nn import METHODS, ROLES, norm_layer

FOLDER = Path(__file__).parents[1] / "conf" / "norm"
FILES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
# These need to be told what they are matched to, or what to build.
INCOMPLETE = {control: {"matched_to": "gbn_cvar"} for control in CONTROLS}


def layers(method: str, options: dict[str, Any]) -> list[str]:
    """Every layer that a network could ask for, as text."""
    norm = norm_layer(method, **options)
    return [
        repr(norm(8, act=act, dim=dim, role=role))
        for act in (None, "silu")
        for dim in (1, 2, 3)
        for role in ROLES
    ]


def section(name: str) -> NormSection:
    """What ``norm=name`` configures; Hydra is asked only where a file alone does not say it."""
    content = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    if "defaults" in content or "matched_to" in content:
        return compose([f"norm={name}"]).norm
    return TypeAdapter(NormConfig).validate_python(content)


def test_each_file_is_a_name_and_each_name_has_a_file() -> None:
    assert {*NAMED, *METHODS} == set(FILES)


@pytest.mark.parametrize("name", [name for name in FILES if name != "custom"])
def test_a_name_builds_the_layers_of_its_file(name: str) -> None:
    norm = section(name)
    assert layers(name, INCOMPLETE.get(name, {})) == layers(norm.method, norm.options())


@pytest.mark.parametrize("control", INCOMPLETE)
@pytest.mark.parametrize("name", ["gbn_cvar_rescaled", "iebn", "mixture"])
def test_a_control_is_matched_to_a_name(control: str, name: str) -> None:
    if name == "mixture" and control not in COMMON_CONTROLS:
        with pytest.raises(ConfigError, match=r"unknown norm\.matched_to 'mixture'; allowed: gbn, gbn_cvar"):
            compose([f"norm={control}", f"norm.matched_to={name}"])
        with pytest.raises(ValueError, match="unknown method 'mixture'; allowed are gbn, iebn"):
            norm_layer(control, matched_to=name)
        return
    norm = compose([f"norm={control}", f"norm.matched_to={name}"]).norm
    assert layers(control, {"matched_to": name}) == layers(norm.method, norm.options())


def test_options_stand_over_those_of_the_name() -> None:
    norm = norm_layer(
        "gbn_cvar_rescaled", alpha=0.9, rescaled=False, quadrangle=None, samples=None, momentum=None
    )
    assert norm.method == "gbn"
    assert norm.options == {"quadrangle": "cvar", "alpha": 0.9, "rescaled": False, "momentum": None}
    assert repr(norm) == "norm_layer('gbn', quadrangle='cvar', rescaled=False, alpha=0.9, momentum=None)"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: norm_layer("gbn_cvr"),
            r"unknown method 'gbn_cvr' \(did you mean 'gbn_cvar'\?\).*bn_reparam.*gbn_mad",
        ),
        (
            lambda: norm_layer("bn_matched", matched_to="gbn_md"),
            r"unknown matched_to 'gbn_md' \(did you mean 'gbn_mad'",
        ),
        (lambda: norm_layer("bn_matched", matched_to="group"), "unknown matched_to 'group'"),
        (lambda: norm_layer("gbn_mad", alpha=0.5), "alpha"),
    ],
)
def test_unknown_names_are_refused_with_those_that_there_are(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
