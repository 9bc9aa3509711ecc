"""The one place where a kernel is chosen, and the table of activations."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from gbn import kernels, risk
from gbn.kernels.activation import activate, check_activation


def test_environment_variable_is_checked_at_import() -> None:
    code = "import os; os.environ['GBN_KERNELS'] = 'trition'; import gbn.kernels"
    failed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert failed.returncode != 0
    assert "GBN_KERNELS='trition': allowed are auto, reference" in failed.stderr


@pytest.mark.parametrize("choice", kernels.KERNELS)
def test_allowed_choices(choice: str) -> None:
    assert kernels._read_choice(choice) == choice


def test_selected_names_an_implementation() -> None:
    assert kernels.selected("cpu") == "numba"  # the tests' environment has numba
    assert kernels.selected("mps") == "reference"
    with kernels.using("reference"):
        assert kernels.selected("cpu") == "reference"
    with pytest.raises(ValueError, match="choice='fast': allowed are auto, reference"), kernels.using("fast"):
        pass


def test_implementation_depends_on_tensor_and_pair() -> None:
    class Mine(risk.deviation("mad").__class__):  # type: ignore[misc]
        pass

    x, pair = torch.randn(4, 3, 2, 2), risk.quadrangle("mad")
    assert kernels.implementation(x, pair.S, pair.D) == "numba"
    assert kernels.implementation(x.bfloat16(), pair.S, pair.D) == "numba"
    assert kernels.implementation(x.double(), pair.S, pair.D) == "reference"
    assert kernels.implementation(x[:0], pair.S, pair.D) == "reference"
    assert kernels.implementation(x, pair.S, Mine()) == "reference"  # a subclass may mean something else
    with kernels.using("reference"):
        assert kernels.implementation(x, pair.S, pair.D) == "reference"


_WITHOUT = """
import logging, sys, torch
logging.basicConfig(format="%(message)s")
{before}
from gbn import kernels, risk
pair = risk.quadrangle("cvar")
for _ in range(2):
    x = torch.randn(8, 3, 4, 4, requires_grad=True)
    kernels.normalize(x, None, None, pair.S, pair.D, 1e-5)[0].sum().backward()
print(kernels.selected("cpu"))
"""


@pytest.mark.parametrize(
    ("before", "message"),
    [
        # as if it were not there
        (
            "import importlib.util as u; find = u.find_spec\n"
            "u.find_spec = lambda name, *rest: None if name == 'numba' else find(name, *rest)",
            "numba is not installed: gbn's norms on cpu use their eager reference kernels",
        ),
        (
            "sys.modules['numba.core'] = None",
            "numba does not work here (ModuleNotFoundError: ",
        ),
    ],
    ids=["missing", "broken"],
)
def test_without_numba_the_reference_serves_and_says_so_once(before: str, message: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT.format(before=before)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "reference\n"
    assert done.stderr.count("pip install numba") == 1
    assert message in done.stderr


def test_unknown_activation_names_the_allowed_ones() -> None:
    with pytest.raises(
        ValueError, match=r"act='reul' is unknown \(did you mean 'relu'\?\): allowed are None, relu, "
    ):
        check_activation("reul")


@pytest.mark.parametrize("act", list(kernels.ACTIVATIONS))
def test_activate_equals_the_table(act: str) -> None:
    x = torch.linspace(-3, 3, 13)
    expected = kernels.ACTIVATIONS[act](x)
    torch.testing.assert_close(activate(x.clone(), act), expected)


def test_activate_without_activation_is_the_identity() -> None:
    x = torch.linspace(-3, 3, 13)
    assert activate(x, None) is x
