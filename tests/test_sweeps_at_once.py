"""Several commands on one results folder: each run is trained once, each command ends when all runs are done."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gbn.config.compose import compose
from gbn.engine.sweep import train_all
from gbn.store.identity import run_id
from gbn.store.records import RunStore

ROOT = Path(__file__).resolve().parents[1]
FAST = (
    *("model=mlp", "model.width=0.125", "model.depth=2", "trainer.epochs=3", "trainer.device=cpu"),
    *("trainer.progress=quiet", "trainer.threads=1", "tracker.mode=disabled"),
)
SWEEP = f"""
title: "tiny: a test"
base: [{", ".join(FAST)}]
arms:
  bn: [norm=bn]
  layer: [norm=layer]
reference: bn
seeds: 6
targets: [0.2]
"""


def start(folder, script, *arguments):
    return subprocess.Popen(
        [sys.executable, str(ROOT / script), *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.long
def test_four_commands_race_and_every_run_is_trained_once(tmp_path):
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    sweep = ("train.py", "-m", *FAST, "norm=bn,layer", "seed=range(0,6)", "results_dir=results")
    processes = [
        start(tmp_path, *sweep),
        start(tmp_path, *sweep),
        start(tmp_path, *sweep, "launcher=parallel", "launcher.jobs=2"),
        start(tmp_path, "scripts/reproduce.py", "sweep.yaml", "--jobs", "2"),
    ]
    said = [process.communicate(timeout=600) for process in processes]
    for process, (out, err) in zip(processes, said, strict=True):
        assert process.returncode == 0, out + err
        assert "Traceback" not in out + err
        assert "failed" not in out + err
    store = RunStore(tmp_path / "results")
    assert len(store) == 12
    for record in store:
        assert record.status == "finished"
        assert [segment["start_update"] for segment in record.provenance] == [0]
        assert not (store.path(record.run_id) / "stderr.txt").exists()


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["finished", "died"])
def test_a_run_of_another_process_is_waited_for_at_the_end(tmp_path, capfd, ending):
    configs = [compose([*FAST, f"seed={seed}", f"results_dir={tmp_path}"]) for seed in (0, 1)]
    runs = [(run_id(config.as_dict(), config.defaults()), config) for config in configs]
    store, reported, go_on = RunStore(tmp_path), [], threading.Event()

    def other_process():
        with store.writer(runs[0][0]) as writer:
            held.set()
            go_on.wait()
            time.sleep(1.0)  # so that it is looked at, and still found locked
            if ending == "finished":
                writer.write_summary(
                    {
                        "run_id": runs[0][0],
                        "status": "diverged",
                        "diverged_at": 3,
                        "updates": 3,
                        "seconds": 1.0,
                    }
                )

    def report(outcome, done, total):
        reported.append((outcome.run_id, outcome.status, outcome.skipped))
        go_on.set()

    held = threading.Event()
    other = threading.Thread(target=other_process)
    other.start()
    held.wait()
    try:
        train_all(runs, jobs=1, report=report)
    finally:
        go_on.set()
        other.join()
    last = ("diverged", True) if ending == "finished" else ("finished", False)
    assert reported == [(runs[1][0], "finished", False), (runs[0][0], *last)]
    assert f"waiting for {runs[0][0]}, which other processes train" in capfd.readouterr().err


@pytest.mark.slow
def test_a_sweep_in_one_process_comes_back_to_what_another_was_at(tmp_path):
    config = compose([*FAST, "seed=0"])
    name = run_id(config.as_dict(), config.defaults())
    with RunStore(tmp_path / "results").writer(name):
        single = start(tmp_path, "train.py", *FAST, "seed=0", "results_dir=results")
        out, err = single.communicate(timeout=300)
        assert single.returncode == 1
        assert "is being written by process" in out
        assert err == f"locked: {out}"
        sweep = start(tmp_path, "train.py", "-m", *FAST, "seed=0,1", "results_dir=results")
        assert sweep.stderr.readline() == f"waiting for {name}, which other processes train\n"
    out, err = sweep.communicate(timeout=300)
    assert (sweep.returncode, err) == (0, "")
    assert "2 runs: 2 finished" in out


@pytest.mark.slow
def test_ctrl_c_ends_the_waiting(tmp_path):
    config = compose([*FAST, "seed=0"])
    name = run_id(config.as_dict(), config.defaults())
    with RunStore(tmp_path / "results").writer(name):
        for more in ((), ("launcher=parallel", "launcher.jobs=1")):
            sweep = start(tmp_path, "train.py", "-m", *FAST, "seed=0,1", "results_dir=results", *more)
            assert sweep.stderr.readline().startswith(f"waiting for {name}")
            sweep.send_signal(signal.SIGINT)
            _, err = sweep.communicate(timeout=300)
            assert sweep.returncode == 130
            assert err == "stopped; the same command goes on from here\n"
