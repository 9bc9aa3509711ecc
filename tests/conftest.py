"""What all tests share: one thread, a small hypothesis profile, and parts of other packages by command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before torch is imported: OpenMP's busy waiting makes parallel test processes tenfold slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
from hypothesis import settings

from tests.small_run import SMALL

if not torch.cuda.is_available():
    # Before anything imports triton: its interpreter runs the GPU's kernels on CPU tensors.
    os.environ.setdefault("TRITON_INTERPRET", "1")

settings.register_profile("ci", max_examples=25, deadline=None)
settings.register_profile("thorough", max_examples=500, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
torch.set_num_threads(1)


#: The shared tests of each part that another package can bring.
SHARED = {
    "--gbn-norm": ("norm layer", "LAYER", "nn/test_shared.py"),
    "--gbn-model": ("network", "NET", "models/test_shared.py"),
    "--gbn-dataset": ("data set", "LOADER", "data/test_shared.py"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    for option, (what, name, file) in SHARED.items():
        parser.addoption(
            option,
            action="append",
            default=[],
            metavar=f"MODULE:{name}",
            help=f"put this {what} through tests/{file}, and run nothing else; may be repeated",
        )
    parser.addoption("--long", action="store_true", help="run the tests that take minutes as well")


def pytest_configure(config: pytest.Config) -> None:
    files = [str(Path(__file__).parent / SHARED[option][2]) for option in SHARED if config.getoption(option)]
    if files and config.args_source is not pytest.Config.ArgsSource.ARGS:
        config.args = files


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if any(config.getoption(option) for option in SHARED):
        ours = [item for item in items if "foreign" not in item.keywords]
        config.hook.pytest_deselected(items=ours)
        items[:] = [item for item in items if "foreign" in item.keywords]
    if not config.getoption("--long"):
        longer = pytest.mark.skip(reason="takes minutes: --long runs it, as `make slow` does")
        for item in items:
            if "long" in item.keywords:
                item.add_marker(longer)
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(skip)


@pytest.fixture
def small_overrides() -> list[str]:
    """The same as command-line overrides, for other processes."""
    return list(SMALL)


@pytest.fixture
def small(tmp_path: Path) -> Callable[..., Any]:
    """A maker of configurations of runs that take a tenth of a second (19 updates of an MLP on digits)."""

    from gbn.config.compose import compose  # not on a machine that only has the layers

    def make(*overrides: str) -> Any:
        return compose([*SMALL, f"results_dir={tmp_path}", *overrides])

    return make


@pytest.fixture
def offline_records() -> Callable[..., Any]:
    """Reads the folder of a run that W&B recorded offline, through W&B's own reader: a list of (type, content)."""

    def read(folder: Path) -> list[tuple[str, Any]]:
        wandb = Path(sys.executable).with_name("wandb")
        done = subprocess.run(
            [str(wandb), "leet", "inspect", "--json", str(folder)],
            capture_output=True,
            text=True,
            check=True,
            timeout=600,
        )
        records = [json.loads(line) for line in done.stdout.splitlines() if line.strip()]
        return [(record["type"], record.get(record["type"], {})) for record in records]

    return read
