"""`gbn reproduce`: trains what is missing, within a budget, and ends with table and figures."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SWEEP = """
title: "tiny: a test"
base:
  - model=mlp
  - model.width=0.125
  - model.depth=2
  - trainer.epochs=1
  - trainer.device=cpu
  - trainer.evaluation.points=4
  - trainer.evaluation.calibration_images=64
arms:
  bn: [norm=bn]
  gbn_cvar: [norm=gbn_cvar]
controls: [gbn_cvar]
reference: bn
seeds: 2
targets: [0.2]
scales:
  one: {seeds: [5]}
"""


def reproduce(folder, *arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "gbn", "reproduce", "experiments/tiny", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


@pytest.fixture
def tiny(tmp_path):
    (tmp_path / "experiments" / "tiny").mkdir(parents=True)
    (tmp_path / "experiments" / "tiny" / "sweep.yaml").write_text(SWEEP)
    return tmp_path


@pytest.mark.slow
def test_it_trains_what_is_missing_and_ends_with_table_and_figures(tiny):
    # A name that Hydra's grammar would not take.
    where = ("--results", "odd, (é) = name #1")
    results = tiny / where[1]
    plan = reproduce(tiny, "--dry-run", *where)
    assert plan.returncode == 0, plan.stderr
    assert "8 runs, 0 done" in plan.stdout
    assert plan.stdout.count("digits-mlp-") == 8
    assert not list(results.glob("runs/*"))

    done = reproduce(tiny, "--jobs", "2", *where)
    assert done.returncode == 0, done.stderr
    assert "[8/8" in done.stdout
    for arm in ("bn", "gbn_cvar", "bn_matched[gbn_cvar]", "bn_reparam[gbn_cvar]"):
        assert arm in done.stdout
    written = {path.name for path in results.rglob("*") if path.is_file()}
    assert {".md", ".csv", ".png"} <= {Path(name).suffix for name in written}

    again = reproduce(tiny, "--dry-run", *where)
    assert "8 runs, 8 done" in again.stdout
    scaled = reproduce(tiny, "--scale", "one", "--dry-run", *where)
    assert "4 runs, 0 done" in scaled.stdout
    assert "estimate" in scaled.stdout


def test_a_damaged_run_is_one_that_is_missing(tiny):
    names = re.findall("digits-mlp-\\S+", reproduce(tiny, "--dry-run").stdout)
    damaged = tiny / "results" / "runs" / names[0] / "summary.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("")
    plan = reproduce(tiny, "--dry-run")
    assert plan.returncode == 0, plan.stderr
    assert "8 runs, 0 done" in plan.stdout


@pytest.mark.slow
def test_a_budget_ends_cleanly_and_says_what_is_left(tiny):
    done = reproduce(tiny, "--budget", "0.01s", "--jobs", "1")
    assert done.returncode == 3, done.stderr
    assert "8 runs are left" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--budget", "soon"), "use 90s, 20m or 2h"),
        (("--scale", "huge"), "huge"),
        (("optimizer.lrr=1",), "did you mean 'lr'"),
    ],
)
def test_a_wrong_command_is_one_line_and_status_2(tiny, arguments, words):
    done = reproduce(tiny, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
