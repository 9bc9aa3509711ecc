"""Networks and data sets of other packages, from the command line to a finished run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from gbn.config.compose import compose
from gbn.data import DataError
from gbn.engine.build import build_model, task_of
from gbn.engine.run import run
from gbn.store.identity import run_id
from gbn.store.records import RunStore
from gbn.tasks.base import Task

#: A package that nothing here knows.
THEIRS = '''
import hashlib

import torch
from torch import nn

from gbn.data import ImageSet, image_set


class Net(nn.Module):
    """A convolution, a norm, a linear layer."""

    def __init__(self, norm_layer, in_channels, num_classes, image_size, width=8):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.norm = norm_layer(width, act="relu", dim=2, role="stem")
        self.head = nn.Linear(width * image_size**2, num_classes)

    def forward(self, x):
        return self.head(self.norm(self.conv(x)).flatten(1))


class LooksAtNeighbors(Net):
    """A mistake that the shared suite must find: in evaluation images see each other."""

    def forward(self, x):
        return super().forward(x - x.mean(0, keepdim=True))


def without_norm(in_channels, num_classes, image_size):
    return nn.Flatten()


def features(norm_layer, in_channels, image_size):
    return nn.Flatten()


def at_least_16(norm_layer, image_size, **sizes):
    if image_size < 16:
        raise ValueError(f"images of at least 16x16 are needed, {image_size} was given")
    return Net(norm_layer, image_size=image_size, **sizes)


def nothing(norm_layer, **sizes):
    return None


def load(root, images=96, side=6, classes=3):
    """Bright stripes, one row per class."""
    make = torch.Generator().manual_seed(0)
    labels = torch.arange(images) % classes
    pixels = torch.randint(0, 99, (images, 1, side, side), generator=make, dtype=torch.uint8)
    pixels[torch.arange(images), 0, labels] += 100
    folder = root / "stripes.bin"
    folder.write_bytes(pixels.numpy().tobytes())
    half = images // 2
    names = tuple(f"row {row}" for row in range(classes))
    found = hashlib.sha256(folder.read_bytes()).hexdigest()
    return image_set("stripes", (pixels[:half], labels[:half]), (pixels[half:], labels[half:]), names, found)


def unsteady():
    """A mistake that the shared suite must find: other bytes every time."""
    pixels = torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8)
    labels = torch.arange(40) % 2
    return image_set("unsteady", (pixels, labels), (pixels, labels), ("a", "b"), "always the same")


def pair():
    return [], []


def without_digest():
    made = unsteady()
    return ImageSet(**{**made.__dict__, "digest": ""})


def two_shapes():
    made = unsteady()
    return ImageSet(**{**made.__dict__, "test_images": made.test_images[:, :, :4, :4]})


constant = 3
'''
NET, LOAD = ("model=custom", "model._target_=theirs:Net"), ("dataset=custom", "dataset._target_=theirs.load")


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "theirs.py").write_text(THEIRS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "theirs", raising=False)
    monkeypatch.setenv("GBN_DATA", str(tmp_path))
    return tmp_path


@pytest.fixture
def theirs(tmp_path: Path) -> Callable[..., Any]:
    """A maker of configurations of short runs without the options of our networks."""
    from tests.small_run import SMALL

    common = [one for one in SMALL if not one.startswith("model")]
    return lambda *more: compose(
        [*common, f"results_dir={tmp_path}", "trainer.batch_size=16", "dataset.validation=12", *more]
    )


def test_a_run_of_both(theirs: Callable[..., Any], package: Path) -> None:
    config = theirs(*NET, "model.kwargs.width=4", *LOAD, "+dataset.kwargs.side=7", "trainer.epochs=8")
    outcome = run(config)
    assert outcome.status == "finished", outcome.message
    assert outcome.run_id.startswith("custom_load-custom_Net-bn-s0-")
    record = RunStore(package).load(outcome.run_id)
    assert record.summary is not None
    assert record.summary["final"]["test_accuracy"] > 0.6  # a third is chance
    assert record.summary["parameters"] == 9 * 4 + 2 * 4 + (4 * 49 + 1) * 3
    assert record.provenance[0]["data_digest"] == task_of(config).load(config).digest


def test_target_and_options_name_the_run_and_the_folder_does_not(theirs: Callable[..., Any]) -> None:
    def id_of(*overrides: str) -> str:
        config = theirs(*overrides)
        return run_id(config.as_dict(), config.defaults())

    plain = id_of(*NET, *LOAD)
    assert id_of(*NET, *LOAD, "dataset.root=elsewhere", "dataset.download=false") == plain
    different = [
        id_of(*NET, *LOAD, "model._target_=theirs:Other"),
        id_of(*NET, *LOAD, "model.kwargs.width=4"),
        id_of(*NET, *LOAD, "dataset._target_=theirs:other"),
        id_of(*NET, *LOAD, "dataset.kwargs.side=7"),
        id_of(*NET, *LOAD, "dataset.validation=13"),
    ]
    assert len({plain, *different}) == 6


def test_an_entry_point_is_a_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    points = {"gbn.models": "theirs:Net", "gbn.datasets": "theirs:load"}
    monkeypatch.setattr(
        "gbn.targets.entry_points",
        lambda group: metadata.EntryPoints(
            metadata.EntryPoint("stripy", value, name) for name, value in points.items() if name == group
        ),
    )
    assert compose(["model=stripy", "dataset=stripy"]) == compose(
        [*NET, "dataset=custom", "dataset._target_='theirs:load'"]
    )
    with pytest.raises(ValueError, match=r"unknown choice of model: 'stripey' \(did you mean 'stripy'\?\)"):
        compose(["model=stripey"])
    with pytest.raises(ValueError, match="model=stripy is another package's and cannot be swept"):
        compose(["model=cnn,stripy"])


def test_composing_imports_neither_torch_nor_the_package() -> None:
    code = (
        f"import sys; from gbn.config.compose import compose; compose({[*NET, *LOAD]}); "
        "sys.exit('torch' in sys.modules or 'theirs' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=600)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere:Net", "'nowhere:Net' cannot be loaded (No module named 'nowhere'): give their.module:Net"),
        ("theirs:Nett", "has no attribute 'Nett'"),
        ("theirs:constant", "'theirs:constant' is of type int, not a network class or a function"),
        ("theirs:without_norm", "'theirs:without_norm' does not take norm_layer"),
        ("theirs:nothing", "'theirs:nothing' made a NoneType, not a torch.nn.Module"),
        ("theirs:features", "to logits of 10 classes: for 2 of them it returns (2, 64)"),
        ("theirs:at_least_16", "images of at least 16x16 are needed, 8 was given"),
        ("torch.nn.Identity", "for 2 of them it returns (2, 1, 8, 8)"),  # it takes everything
    ],
)
def test_what_cannot_be_a_network(theirs: Callable[..., Any], target: str, message: str) -> None:
    config = theirs("model=custom", f"model._target_='{target}'")
    with pytest.raises(ValueError) as caught:
        build_model(config, task_of(config).load(config))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("nowhere:load", "an entry point of group gbn.datasets (none installed)"),
        ("theirs.loud", "has no attribute 'loud'"),
        ("theirs:constant", "'theirs:constant' is of type int, not a function"),
        ("theirs:pair", "'theirs:pair' returned a tuple, not a gbn.data.ImageSet"),
        ("theirs:without_digest", "unsteady: the digest is ''"),
        ("theirs:two_shapes", "unsteady: train images are (1, 8, 8), test images (1, 4, 4)"),
    ],
)
def test_what_cannot_be_a_data_set(theirs: Callable[..., Any], target: str, message: str) -> None:
    with pytest.raises((ValueError, DataError)) as caught:
        Task.load(theirs("dataset=custom", f"dataset._target_='{target}'"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ((*NET, "model.kwargs.wdth=3"), "no option 'wdth' (did you mean 'width'?); allowed in kwargs: width"),
        ((*NET, "model.kwargs.image_size=3"), "no option 'image_size'; allowed in kwargs: width"),
        (
            (*LOAD, "dataset.kwargs.sides=3"),
            "no option 'sides' (did you mean 'side'?); allowed in kwargs: images",
        ),
        ((*LOAD, "dataset.kwargs.root=a"), "no option 'root'"),
        ((*LOAD, "model=lenet"), "LeNet needs images of at least 16x16, 6x6 was given"),
        ((*LOAD, "model=mlp", "norm=instance"), "needs several values per image and channel"),
        ((*LOAD, "dataset.validation=48"), "validation=48 images cannot be cut from 48"),
    ],
)
def test_what_the_schema_cannot_know_fails_in_one_line(
    theirs: Callable[..., Any], overrides: tuple[str, ...], message: str
) -> None:
    outcome = run(theirs(*overrides))
    assert outcome.status == "failed"
    assert message in outcome.message
    assert "\n" not in outcome.message


def shared_suite(package: Path, *options: str) -> tuple[list[str], list[str]]:
    """Return what passed and what failed of the shared tests that these options of pytest run."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "pytest", *options, "-q", "--tb=no", "-rA", "-p", "no:cacheprovider"]
    environment = {**os.environ, "PYTHONPATH": f"{package}{os.pathsep}{root}"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment, timeout=900)
    lines = [line for line in done.stdout.splitlines() if line.startswith(("PASSED", "FAILED"))]
    assert lines, done.stdout[-3000:] + done.stderr[-2000:]
    assert all("custom[" in line for line in lines)
    passed, failed = ([line for line in lines if line.startswith(word)] for word in ("PASSED", "FAILED"))
    return passed, failed


@pytest.mark.slow
def test_shared_suites_run_on_theirs_alone(package: Path) -> None:
    """The sound ones pass every shared test, the others fail the one that their mistake concerns."""
    models = ("--gbn-model", "theirs:Net", "--gbn-model", "theirs:LooksAtNeighbors")
    sets = ("--gbn-dataset", "theirs:load", "--gbn-dataset", "theirs:unsteady")
    passed, failed = shared_suite(package, *models, *sets)
    assert not [line for line in failed if "theirs:Net" in line or "theirs:load" in line]
    assert len([line for line in passed if "theirs:Net" in line]) >= 20
    assert len([line for line in passed if "theirs:load" in line]) == 3
    for name in (
        "test_evaluation_of_an_image_does_not_depend_on_the_others[custom[theirs:LooksAtNeighbors]]",
        "test_a_second_look_finds_the_same_bytes_and_the_same_digest[custom[theirs:unsteady]]",
    ):
        assert name in "".join(failed)
