"""Layers of other packages."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gbn.nn import norm_layer
from gbn.nn.custom import NormThenActivation
from gbn.targets import NORM

FOREIGN = '''
import torch
from torch import nn


class Center(nn.Module):
    """Subtracts the batch mean; no scale."""

    def __init__(self, num_features, shift=0.0):
        super().__init__()
        self.bias = nn.Parameter(torch.full((num_features,), float(shift)))
        self.register_buffer("mean", torch.zeros(num_features))

    def forward(self, x):
        if self.training:
            mean = x.to(self.mean.dtype).mean([0, *range(2, x.dim())])
            self.mean.lerp_(mean.detach(), 0.1)
        else:
            mean = self.mean
        shape = [1, -1] + [1] * (x.dim() - 2)
        return (x - mean.view(shape) + self.bias.view(shape)).to(x.dtype)


class Knows(Center):
    """Takes what the factory knows about the place, and applies the activation itself."""

    def __init__(self, num_features, act=None, dim=2, role="body"):
        super().__init__(num_features)
        self.place = (act, dim, role)

    def forward(self, x):
        y = super().forward(x)
        return y.relu() if self.place[0] == "relu" else y


class LooksAtNeighbors(Center):
    """A mistake that the shared suite must find: the mean of the batch in evaluation mode too."""

    def forward(self, x):
        return x - x.mean((0, 2, 3), keepdim=True) if x.dim() == 4 else x


constant = 3
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "their_norms.py").write_text(FOREIGN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "their_norms", raising=False)
    return tmp_path


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("target", ["their_norms:Center", "their_norms.Center"])
def test_a_path_in_either_form(target: str) -> None:
    layer = norm_layer("custom", target=target, kwargs={"shift": 2})(4)
    assert isinstance(layer, NormThenActivation)
    assert (layer.norm.bias == 2).all()
    assert (layer(torch.randn(8, 4, 3, 3)) >= 0).all()
    plain = norm_layer("custom", target=target)(4, act=None)
    assert type(plain).__name__ == "Center"


@pytest.mark.usefixtures("package")
def test_a_layer_that_asks_is_told_its_place() -> None:
    layer = norm_layer("custom", target="their_norms:Knows")(4, act="relu", dim=1, role="stem")
    assert layer.place == ("relu", 1, "stem")


def test_a_class_or_function_itself() -> None:
    assert isinstance(norm_layer("custom", target=nn.BatchNorm2d)(4, act=None), nn.BatchNorm2d)
    layer = norm_layer("custom", target=lambda n, device=None: nn.GroupNorm(2, n, device=device))(
        4, act=None, device="meta"
    )
    assert layer.weight.is_meta


def test_foreign_layer_that_saves_its_output_is_not_overwritten_by_the_activation() -> None:
    class SavesOutput(nn.Module):
        def __init__(self, n: int) -> None:
            super().__init__()

        def forward(self, x: Tensor) -> Tensor:
            return x.exp()  # its backward reads its result

    x = torch.randn(4, 4, requires_grad=True)
    norm_layer("custom", target=SavesOutput)(4)(x - 1).sum().backward()
    torch.testing.assert_close(x.grad, (x - 1).exp().detach())


@pytest.mark.usefixtures("package")
def test_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    point = metadata.EntryPoint("center", "their_norms:Center", NORM.group)
    monkeypatch.setattr("gbn.targets.entry_points", lambda group: metadata.EntryPoints([point]))
    assert type(norm_layer("custom", target="center")(4, act=None)).__name__ == "Center"
    with pytest.raises(ValueError, match=r"an entry point of group gbn\.norms \(center\)"):
        norm_layer("custom", target="middle")(4)


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("their_norms:Middle", "cannot be loaded.*no attribute 'Middle'"),
        ("no_such_module:Layer", "No module named 'no_such_module'"),
        ("Layer", "cannot be loaded"),
        ("their_norms:constant", "is of type int, not a layer"),
    ],
)
def test_what_cannot_be_a_layer(target: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        norm_layer("custom", target=target)(4)


def test_a_function_that_makes_no_module() -> None:
    with pytest.raises(ValueError, match=r"made a list, not a torch\.nn\.Module"):
        norm_layer("custom", target=lambda n: [n])(4)


@pytest.mark.slow
def test_shared_suite_runs_on_foreign_layers(package: Path) -> None:
    """The sound layer passes every shared test, the other fails the one that its mistake concerns."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "pytest", "-q", "--tb=no", "-rA", "-p", "no:cacheprovider"]
    command += ["--gbn-norm", "their_norms:Center", "--gbn-norm", "their_norms:LooksAtNeighbors"]
    environment = {**os.environ, "PYTHONPATH": f"{package}{os.pathsep}{root}"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment, check=False)
    assert not [
        line for line in done.stdout.splitlines() if line.startswith("PASSED") and "custom[" not in line
    ]
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    passed = [line for line in done.stdout.splitlines() if line.startswith("PASSED")]
    assert done.returncode == 1, done.stdout[-3000:] + done.stderr[-2000:]
    assert not [line for line in failed if "Center" in line]
    assert len([line for line in passed if "Center" in line]) >= 20
    assert (
        "test_evaluation_of_an_image_does_not_depend_on_the_others[custom[their_norms:LooksAtNeighbors]"
        in "".join(failed)
    )
