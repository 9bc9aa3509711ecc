"""Runs that cannot be: each is an outcome that names what is wrong, in every command, and the others are trained."""

import contextlib
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from gbn.config.compose import compose
from gbn.store.identity import run_id
from gbn.store.records import RunStore

ROOT = Path(__file__).resolve().parents[1]
FAST = (
    *("model=mlp", "model.width=0.125", "model.depth=2", "trainer.epochs=1", "trainer.device=cpu"),
    *("trainer.progress=quiet", "trainer.threads=1", "tracker.mode=disabled"),
)
SWEEP = f"""
title: "tiny: a test"
base: [{", ".join(FAST)}]
arms:
  bn: []
reference: bn
seeds: 7
targets: [0.2]
"""
SINGLE = ("train.py", *FAST)
LOCAL = ("train.py", "-m", *FAST, "seed=range(0,7)")
PARALLEL = (*LOCAL, "launcher=parallel", "launcher.jobs=2")
REPRODUCE = ("scripts/reproduce.py", "sweep.yaml", "--jobs", "2")


def call(folder, script, *arguments, **options):
    return subprocess.run(
        [sys.executable, str(ROOT / script), *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **options,
    )


def names():
    configs = [compose([*FAST, f"seed={seed}"]) for seed in range(7)]
    return [run_id(config.as_dict(), config.defaults()) for config in configs]


def garbage(folder):
    folder.mkdir()
    (folder / "metrics.jsonl").write_bytes(b"garbage\n\xff\xfe\n")


def line_of_zeros(folder):
    folder.mkdir()
    (folder / "metrics.jsonl").write_bytes(b"\0\0\0\n")


def empty_summary(folder):
    folder.mkdir()
    (folder / "summary.json").touch()


def unreadable(folder):
    folder.symlink_to(folder.name)  # a loop; permissions do not hold root back


def folder_named_lock(folder):
    (folder / "lock").mkdir(parents=True)


def folder_named_error(folder):
    (folder / "error.txt").mkdir(parents=True)


DAMAGES = (garbage, line_of_zeros, empty_summary, unreadable, folder_named_lock, folder_named_error)


@pytest.fixture
def damaged(tmp_path):
    """A folder with a grid, six of whose seven runs are damaged, each otherwise; the ids of its runs."""
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    (tmp_path / "results" / "runs").mkdir(parents=True)
    for name, damage in zip(names(), DAMAGES, strict=False):
        damage(tmp_path / "results" / "runs" / name)
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(LOCAL, marks=pytest.mark.slow, id="local"),
        pytest.param(PARALLEL, marks=pytest.mark.long, id="parallel"),
        pytest.param(REPRODUCE, marks=pytest.mark.long, id="reproduce"),
    ],
)
def test_damaged_runs_are_listed_at_the_end_and_the_others_are_trained(damaged, command):
    done = call(damaged, *command)
    assert done.returncode == 1
    assert "[7/7" in done.stdout
    *bad, good = names()
    lines = done.stderr.splitlines()
    listed = {line.split(": ")[1]: line for line in lines if line.startswith("failed: ")}
    assert listed.keys() == {*bad}
    assert all(
        name in re.sub(f"^failed: {name}", "", line) for name, line in listed.items()
    )  # the file that is bad
    rest = [line for line in lines if not line.startswith("failed: ")]
    # Half of the grid cannot be read, so there is no table.
    assert not rest if command is not REPRODUCE else rest[0].startswith("error: no table") and not rest[1:]
    assert RunStore(damaged / "results").status(good) == "finished"


@pytest.mark.slow
def test_a_damaged_run_alone_is_one_line(damaged):
    done = call(damaged, *SINGLE, "seed=1")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(
        rf"failed: {names()[1]}: StoreError: .*metrics.jsonl line 1 is damaged.*\n", done.stderr
    )


@pytest.fixture
def full(tmp_path):
    """Options of a process that can write nothing: its results are on a full file system, if one can be mounted."""
    folder = tmp_path / "results"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        yield {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))}
        return
    try:
        with contextlib.suppress(OSError):
            (folder / "fill").write_bytes(bytes(1 << 20))
        yield {}
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize(
    ("command", "count"),
    [
        pytest.param(SINGLE, 1, marks=pytest.mark.slow, id="single"),
        pytest.param(LOCAL, 7, marks=pytest.mark.slow, id="local"),
        pytest.param(PARALLEL, 7, marks=pytest.mark.long, id="parallel"),
        pytest.param(REPRODUCE, 7, marks=pytest.mark.long, id="reproduce"),
    ],
)
def test_on_a_full_disk_every_run_is_an_outcome(full, tmp_path, command, count):
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    done = call(tmp_path, *command, **full)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) == count
    assert {line.split(": ")[1] for line in lines} == {*names()[:count]}
    assert all(
        re.search(r"OSError: \[Errno \d+\] (No space left on device|File too large)", line) for line in lines
    )
