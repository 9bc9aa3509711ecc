"""Several commands on one results folder: each run is trained once, each command ends when all runs are done."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gbn.config.compose import compose
from gbn.store.identity import run_id
from gbn.store.records import RunStore
from gbn.sweep import train_all as sweep
from gbn.sweep.train_all import train_all

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
    swept = ("train.py", "-m", *FAST, "norm=bn,layer", "seed=range(0,6)", "results_dir=results")
    processes = [
        start(tmp_path, *swept),
        start(tmp_path, *swept),
        start(tmp_path, *swept, "launcher=parallel", "launcher.jobs=2"),
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


@pytest.mark.parametrize(
    "ending", [pytest.param("finished", marks=pytest.mark.slow), pytest.param("died", marks=pytest.mark.long)]
)
def test_a_run_of_another_process_is_waited_for_at_the_end(tmp_path, monkeypatch, ending):
    configs = [compose([*FAST, f"seed={seed}", f"results_dir={tmp_path}"]) for seed in (0, 1)]
    runs = [(run_id(config.as_dict(), config.defaults()), config) for config in configs]
    (name, _), (other_name, _) = runs
    store, said, reported, held, waited_for = RunStore(tmp_path), [], [], threading.Event(), threading.Event()

    def other_process():
        summary = {"run_id": name, "status": "not_applicable", "updates": 0, "seconds": 1.0}
        with store.writer(name) as writer:
            held.set()
            waited_for.wait()
            if ending == "finished":
                writer.write_summary(summary)

    monkeypatch.setattr(sweep, "_say", lambda text: (said.append(text), waited_for.set()))
    other = threading.Thread(target=other_process)
    other.start()
    held.wait()
    try:
        outcomes = train_all(runs, jobs=1, report=lambda outcome, *_: reported.append(outcome.run_id))
    finally:
        waited_for.set()
        other.join()
    assert said == [f"waiting for {name}, which other processes are training"]
    assert reported == [other_name, name]
    last = ("not_applicable", True) if ending == "finished" else ("finished", False)
    assert [(one.status, one.skipped) for one in outcomes] == [("finished", False), last]


@pytest.mark.slow
def test_a_sweep_in_one_process_comes_back_to_what_another_was_at(tmp_path):
    config = compose([*FAST, "seed=0"])
    name = run_id(config.as_dict(), config.defaults())
    with RunStore(tmp_path / "results").writer(name):
        single = start(tmp_path, "train.py", *FAST, "seed=0", "results_dir=results")
        out, err = single.communicate(timeout=300)
        assert single.returncode == 1
        assert out == ""
        assert err.startswith(f"locked: {name}: run {name} is being written by process {os.getpid()} on ")
        assert len(err.splitlines()) == 1
        command = start(tmp_path, "train.py", "-m", *FAST, "seed=0,1", "results_dir=results")
        assert command.stderr.readline() == f"waiting for {name}, which other processes are training\n"
    out, err = command.communicate(timeout=300)
    assert (command.returncode, err) == (0, "")
    assert "2 runs: 2 finished" in out


@pytest.mark.long
def test_ctrl_c_ends_the_waiting(tmp_path):
    config = compose([*FAST, "seed=0"])
    name = run_id(config.as_dict(), config.defaults())
    with RunStore(tmp_path / "results").writer(name):
        for more in ((), ("launcher=parallel", "launcher.jobs=1")):
            command = start(tmp_path, "train.py", "-m", *FAST, "seed=0,1", "results_dir=results", *more)
            assert command.stderr.readline().startswith(f"waiting for {name}")
            command.send_signal(signal.SIGINT)
            _, err = command.communicate(timeout=300)
            assert command.returncode == 130
            assert err == "stopped; the same command resumes from here\n"
