"""Validation: what is allowed, and what the one line of an error says."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from gbn.risk import DEVIATIONS, GRADIENT_MODES, QUADRANGLES, STATISTICS, quadrangle, validate
from gbn.risk.parameters import DEVIATION_PARAMETERS, QUADRANGLE_PARAMETERS, STATISTIC_PARAMETERS
from gbn.risk.ranks import RankSum


def test_needs_no_torch() -> None:
    code = (
        "import sys, gbn.risk.parameters, gbn.risk.gaussian; from gbn.risk import validate; "
        "validate('quadrangle', 'cvar', {}); assert 'torch' not in sys.modules, 'torch was imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


@pytest.mark.parametrize(
    ("kind", "name", "given", "message"),
    [
        (
            "quadrangle",
            "cvarr",
            {},
            "unknown quadrangle 'cvarr' (did you mean 'cvar'?); known: std, mad, cvar",
        ),
        ("statistic", "zebra", {}, "unknown statistic 'zebra'; known: mean, quantile"),
        (
            "deviation",
            "cvar",
            {"alhpa": 0.5},
            "unknown parameter 'alhpa' of the deviation 'cvar' (did you mean 'alpha'?)",
        ),
        ("deviation", "std", {"alpha": 0.5}, "allowed: none, it has no parameters"),
        (
            "quadrangle",
            "cvar",
            {"alpha": 1.0},
            "alpha=1.0 of the quadrangle 'cvar' is not allowed: alpha must be",
        ),
        ("quadrangle", "cvar", {"alpha": 0}, "strictly between 0 and 1"),
        ("quadrangle", "cvar", {"alpha": float("nan")}, "strictly between 0 and 1"),
        ("quadrangle", "cvar", {"alpha": "0.5"}, "alpha='0.5'"),
        ("quadrangle", "cvar", {"alpha": True}, "alpha=True"),
        (
            "quadrangle",
            "cvar",
            {"quantile_gradient": "centered"},
            "one of exact, window, window_centred, smoothed",
        ),
        ("quadrangle", "cvar", {"window": 0.6}, "at most 0.5"),
        ("quadrangle", "cvar", {"window": 0.0}, "> 0"),
        ("quadrangle", "quantile_radius", {"alpha": 0.4}, "from 0.5 (included) to 1 (excluded)"),
        ("quadrangle", "expectile_risk", {"tau": 0.5}, "strictly between 0.5 and 1"),
        ("quadrangle", "expectile", {"tau": 1.5}, "strictly between 0 and 1"),
        ("quadrangle", "huber", {"b": 0.0}, "a finite number > 0"),
        ("quadrangle", "huber", {"b": float("inf")}, "a finite number > 0"),
        ("quadrangle", "huber", {"scaled": 1}, "true"),
        ("quadrangle", "mixed_cvar", {"weights": (0.5, 0.6)}, "sum to 1"),
        ("quadrangle", "mixed_cvar", {"weights": (1.5, -0.5)}, "positive numbers"),
        (
            "quadrangle",
            "mixed_cvar",
            {"weights": (1.0,)},
            "1 weights and 2 alphas; give as many weights as alphas",
        ),
        ("quadrangle", "mixed_cvar", {"weights": (), "alphas": ()}, "a list of positive numbers"),
        ("quadrangle", "mixed_cvar", {"alphas": 0.5}, "a list of numbers"),
        ("quadrangle", "mixed_cvar", {"alphas": "ab"}, "a list of numbers"),
        ("kind", "cvar", {}, "unknown kind 'kind'"),
    ],
)
def test_refusals(kind: Any, name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        validate(kind, name, given)
    text = str(caught.value)
    assert message in text
    assert "\n" not in text


def test_what_is_returned_is_complete_and_normal() -> None:
    assert validate("quadrangle", "cvar", {"alpha": 0.5}).keys() == {"alpha", "quantile_gradient", "window"}
    given = validate("deviation", "mixed_cvar", {"weights": [1, 1e-9], "alphas": [0.5, 0.75]})
    assert isinstance(given["weights"], tuple)
    assert sum(given["weights"]) == pytest.approx(1.0, abs=1e-15)
    assert validate("deviation", "huber", {"b": 2}) == {"b": 2.0, "scaled": True}
    assert validate("statistic", "mean") == {}


def test_tables_and_registries_name_the_same() -> None:
    assert list(QUADRANGLE_PARAMETERS) == list(QUADRANGLES)
    assert list(STATISTIC_PARAMETERS) == list(STATISTICS)
    assert list(DEVIATION_PARAMETERS) == list(DEVIATIONS)
    for name, cls in {**STATISTICS}.items():
        assert cls().parameters == validate("statistic", name)
    for name, cls in {**DEVIATIONS}.items():
        assert cls().parameters == validate("deviation", name)


def test_every_order_statistic_offers_every_gradient_mode() -> None:
    for name, build in QUADRANGLES.items():
        pair = build()
        ranked = isinstance(pair.S, RankSum) or isinstance(pair.D, RankSum)
        assert ("quantile_gradient" in QUADRANGLE_PARAMETERS[name]) == ranked
        for mode in GRADIENT_MODES if ranked else ():
            pair = build(quantile_gradient=mode, window=0.25)
            for functional in (pair.S, pair.D):
                if isinstance(functional, RankSum):
                    assert (functional.quantile_gradient, functional.window) == (mode, 0.25)


def test_a_quadrangles_parameters_are_its_parts(pair: Any) -> None:
    parts = {**pair.S.parameters, **pair.D.parameters}
    assert parts == dict(pair.parameters)


def test_functionals_check_themselves() -> None:
    with pytest.raises(ValueError, match="strictly between 0 and 1"):
        STATISTICS["quantile"](alpha=2.0)
    assert quadrangle("huber", b=2).S.b == 2.0
