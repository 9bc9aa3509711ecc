"""Gives every test with an argument ``network`` all classifiers, those of the command line included."""

import pytest

from gbn.models import MODELS
from tests.models.networks import Network


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "network" in metafunc.fixturenames:
        targets = metafunc.config.getoption("--gbn-model")
        foreign = [Network(f"custom[{target}]", target) for target in targets]
        marked = [pytest.param(one, marks=pytest.mark.foreign) for one in foreign]
        metafunc.parametrize("network", [*map(Network, MODELS), *marked], ids=lambda one: one.name)
