"""The one place where a kernel is chosen, and the table of activations."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from gbn import kernels
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
    assert kernels.selected() in set(kernels.KERNELS) - {"auto"}


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
