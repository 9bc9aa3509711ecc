"""Gives every test with an argument ``case`` all normalizers, those of the command line included."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

# With importmode=importlib a test's folder is not importable; cases.py is shared by several test files.
_spec = importlib.util.spec_from_file_location("gbn_norm_cases", Path(__file__).with_name("cases.py"))
assert _spec is not None
assert _spec.loader is not None
cases = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = cases
_spec.loader.exec_module(cases)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        foreign = cases.foreign(metafunc.config.getoption("--gbn-norm"))
        marked = [pytest.param(case, marks=pytest.mark.foreign) for case in foreign]
        metafunc.parametrize("case", [*cases.registered(), *marked], ids=lambda case: case.name)
