"""The terminal is closed, a pipe's reader ends, the log's disk is full: no run fails for what nobody reads."""

import contextlib
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gbn.store.records import RunStore

ROOT = Path(__file__).resolve().parents[1]
FAST = (
    *("model=mlp", "model.width=0.125", "model.depth=2", "trainer.device=cpu"),
    *("trainer.threads=1", "tracker.mode=disabled", "results_dir=results"),
)
SWEEP = ("-m", "seed=0,1")
PARALLEL = (*SWEEP, "launcher=parallel", "launcher.jobs=2")


def start(folder, *arguments, **streams):
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *FAST, *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        **streams,
    )


@contextlib.contextmanager
def terminal(folder, *arguments):
    """(process, the terminal's other end) of a command that a terminal of its own controls."""
    pid, end = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        os.execv(sys.executable, [sys.executable, str(ROOT / "train.py"), *FAST, *arguments])
    try:
        yield pid, end
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("more", "count"),
    [
        pytest.param((), 1, marks=pytest.mark.slow, id="single"),
        pytest.param(SWEEP, 1, marks=pytest.mark.long, id="local"),
        pytest.param(PARALLEL, 2, marks=pytest.mark.long, id="parallel"),
    ],
)
def test_runs_checkpoint_when_their_terminal_is_closed(tmp_path, more, count):
    """Its signal comes, and every line and every move of the bar fails from then on."""
    with terminal(tmp_path, *more, "trainer.epochs=100000") as (pid, end):
        while sum(path.stat().st_size > 0 for path in tmp_path.glob("results/runs/*/metrics.jsonl")) < count:
            assert os.waitpid(pid, os.WNOHANG) == (0, 0)
            time.sleep(0.1)
        os.close(end)
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 130
    store = RunStore(tmp_path / "results")
    assert [store.status(name) for name in store.run_ids()] == ["interrupted"] * count
    assert all((store.path(name) / "checkpoint.pt").exists() for name in store.run_ids())


@pytest.mark.parametrize(
    "stream", [pytest.param("stdout", marks=pytest.mark.slow), pytest.param("stderr", marks=pytest.mark.long)]
)
def test_a_sweep_is_trained_though_nobody_reads_it(tmp_path, stream):
    ours, theirs = os.pipe()
    os.close(ours)
    failing = ("dataset=digits,mnist", "dataset.root=nowhere", "dataset.download=false")
    other = "stderr" if stream == "stdout" else "stdout"
    process = start(
        tmp_path, "-m", "seed=0,1", *failing, "trainer.epochs=1", **{stream: theirs, other: subprocess.PIPE}
    )
    os.close(theirs)
    said = b"".join(part for part in process.communicate(timeout=300) if part)
    assert process.returncode == 1
    assert b"Traceback" not in said
    assert (b"4 runs: 2 finished, 2 failed" in said) == (stream == "stderr")
    statuses = [record.status for record in RunStore(tmp_path / "results")]
    assert sorted(statuses) == ["failed", "failed", "finished", "finished"]


@pytest.mark.long
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a system without /dev/full")
def test_a_run_is_trained_though_the_disk_of_its_log_is_full(tmp_path):
    with open("/dev/full", "w") as full:
        process = start(tmp_path, "trainer.epochs=1", "trainer.progress=plain", stdout=full, stderr=full)
        assert process.wait(300) == 0
    assert [record.status for record in RunStore(tmp_path / "results")] == ["finished"]
