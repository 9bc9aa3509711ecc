"""What is installed works without the repository: the command, its configuration, its experiments."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MINE = """
title: mine
base: [dataset=digits, dataset.subset=128, model=mlp, model.width=0.125, trainer.epochs=1]
arms: {bn: [norm=bn], mine: [norm=mine]}
reference: bn
seeds: 2
targets: [0.2]
"""


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    """A folder with the installed wheel."""
    pytest.importorskip("hatchling", reason="builds the wheel; `make install` brings it")
    folder = tmp_path_factory.mktemp("wheel")
    build = f"import hatchling.build; hatchling.build.build_wheel({str(folder)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=ROOT, check=True)
    (wheel,) = folder.glob("*.whl")
    install = [
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
        "--target",
        str(folder / "target"),
        str(wheel),
    ]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True)
    return folder / "target"


@pytest.fixture
def gbn(target, tmp_path):
    """Run an installed command in a folder of its own; what it printed."""

    def run(*words):
        # Without site, no .pth file brings the repository.
        path = f"{target}{os.pathsep}{sysconfig.get_path('purelib')}"
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "GBN_KERNELS": "reference"}
        done = subprocess.run(
            [sys.executable, "-S", *words], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert run("-c", "import gbn; print(gbn.__file__)").startswith(str(target))
    return lambda *words: run("-m", "gbn", *words)


@pytest.mark.long
def test_an_installed_command_trains_and_reproduces_in_an_empty_folder(gbn, tmp_path):
    short = ("trainer.epochs=1", "dataset.subset=128", "model.width=0.125", "tracker.mode=disabled")
    assert "test accuracy" in gbn("train", "norm=gbn_cvar", "dataset=digits", *short)
    assert "digits-cnn-gbn_cvar_0.75-s0-" in gbn("runs")
    said = gbn("reproduce", "quick", "--seeds", "0", "--jobs", "1", *short[:3])
    assert "Report: results/scratch/reports/quick.html" in said
    assert {path.name for path in tmp_path.iterdir()} == {"results"}
    assert "gbn-mnist" in gbn("claims")


@pytest.mark.long
def test_the_working_folder_s_own_parts_come_first(gbn, tmp_path):
    for file, text in {
        "conf/norm/mine.yaml": "name: mine\nmethod: gbn\nrevision: 1\nquadrangle: cvar\nalpha: 0.6\n",
        "conf/model/mlp.yaml": "name: mlp\nrevision: 1\nwidth: 1.0\ndepth: 2\n",
        "experiments/quick/sweep.yaml": MINE,
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    assert "mine: 4 runs, 0 done" in gbn("sweep", "quick", "--jobs", "1")
    assert gbn("sweep", "experiments/quick", "--dry-run").startswith("mine: 4 runs, 4 done")
    config = (next((tmp_path / "results/runs").glob("*-mine*-s0-*")) / "config.yaml").read_text()
    assert "depth: 2" in config
    assert "alpha: 0.6" in config
