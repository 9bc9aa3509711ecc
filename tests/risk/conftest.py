"""Every registered quadrangle, statistic and deviation goes through the property tests.

A test that takes ``pair``, ``statistic`` or ``deviation`` is run on each registered one, with the parameters
below or, for a name that is not listed, with its defaults: what is registered is tested.
"""

from __future__ import annotations

from typing import Any

import pytest

from gbn.risk import DEVIATIONS, QUADRANGLES, STATISTICS, deviation, quadrangle, statistic
from gbn.risk.parameters import DEVIATION_PARAMETERS, QUADRANGLE_PARAMETERS, STATISTIC_PARAMETERS

MIXED = {"weights": (0.2, 0.3, 0.5), "alphas": (0.1, 0.5, 0.9)}
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "quantile": [{"alpha": 0.75}, {"alpha": 0.2}],
    "mixed_quantile": [{}, MIXED],
    "quantile_midpoint": [{"alpha": 0.75}, {"alpha": 0.5}],
    "cvar": [{"alpha": 0.75}, {"alpha": 0.2}],
    "mixed_cvar": [{}, MIXED],
    "quantile_radius": [{"alpha": 0.75}, {"alpha": 0.5}],
    "expectile": [{"tau": 0.75}, {"tau": 0.1}],
    "huber": [{}, {"b": 0.3}, {"scaled": False}, {"b": 0.3, "scaled": False}],
}
#: modes whose value has the gradient that they give
TRUE_MODES = ("exact", "smoothed")


def _variants(name: str, known: dict[str, Any], modes: tuple[str, ...]) -> list[dict[str, Any]]:
    variants = VARIANTS.get(name, [{}])
    if "quantile_gradient" in known:
        variants = [{**variant, "quantile_gradient": mode} for variant in variants for mode in modes]
    return variants


def _label(name: str, parameters: dict[str, Any]) -> str:
    return "-".join([name, *(f"{key}={value}" for key, value in parameters.items())]).replace(" ", "")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    for argument, registry, make, tables in (
        ("pair", QUADRANGLES, quadrangle, QUADRANGLE_PARAMETERS),
        ("statistic", STATISTICS, statistic, STATISTIC_PARAMETERS),
        ("deviation", DEVIATIONS, deviation, DEVIATION_PARAMETERS),
    ):
        if argument in metafunc.fixturenames:
            marker = metafunc.definition.get_closest_marker("modes")
            modes = marker.args if marker else TRUE_MODES
            cases = [
                (_label(name, variant), make(name, **variant))
                for name in registry
                for variant in _variants(name, tables[name], modes)
            ]
            metafunc.parametrize(argument, [case for _, case in cases], ids=[label for label, _ in cases])


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "modes(*names): the quantile_gradient modes that a risk test runs on")
