"""scripts/wandb_sync.py with the real W&B client, against a server on this machine."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gbn.analysis.simulate import Arm, SimulatedGrid, write_runs
from gbn.store.records import RunStore

ROOT = Path(__file__).resolve().parents[2]
RECORDS = SimulatedGrid({"bn": Arm()}, seeds=(0, 1), points=8).records()


@pytest.fixture
def server():
    path = Path(__file__).with_name("wandb_server.py")
    spec = importlib.util.spec_from_file_location("wandb_server", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.LocalServer() as running:
        yield running


def call(server, *command):
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=200,
        env={**kept, "WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": server.url},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def sync(server, results):
    script = ("scripts/wandb_sync.py", "--runs", "*", "--results", results, "--timeout", "30")
    return call(server, *script).stdout.splitlines()


@pytest.mark.slow
def test_every_point_is_there_once_whatever_was_there_before(server, tmp_path):
    write_runs(RECORDS, tmp_path)
    ledger = tmp_path / "wandb" / "synced.json"
    assert sync(server, tmp_path)[-1] == "2 uploaded"
    for record in RECORDS:
        assert server.steps(record.run_id) == [point["update"] for point in record.curve]
        assert server.runs[record.run_id]["summary"]["status"] == "finished"
        assert server.runs[record.run_id]["state"] == "finished"
    groups = {server.runs[record.run_id]["given"]["groupName"] for record in RECORDS}
    assert len(groups) == 1

    # One upload had been broken off after three points, the other had not: the first goes on, the second is left.
    broken = server.runs[RECORDS[0].run_id]
    broken["history"], broken["summary"], broken["state"] = broken["history"][:3], {}, "crashed"
    ledger.unlink()
    said = sync(server, tmp_path)
    assert said[-1] == "1 complete, 1 uploaded"
    assert any("5 points uploaded (the rest was there)" in line for line in said)
    for record in RECORDS:
        assert server.steps(record.run_id) == [point["update"] for point in record.curve]


@pytest.mark.slow
def test_a_run_mirrored_in_training_is_complete_and_not_uploaded_again(server, tmp_path):
    small = (
        *("model=mlp", "model.width=0.125", "trainer.epochs=1", "trainer.batch_size=64", "trainer.threads=1"),
        *("trainer.evaluation.points=5", "trainer.evaluation.calibration_images=64", "trainer.device=cpu"),
    )
    options = (f"results_dir={tmp_path}", "experiment=trial", "tracker.mode=online", "tracker.timeout=30")
    assert "W&B is lost" not in call(server, "train.py", *small, *options).stderr
    ((run_id, mirror),) = server.runs.items()
    curve = RunStore(tmp_path).load(run_id).curve
    assert server.steps(run_id) == [point["update"] for point in curve]
    assert mirror["given"]["groupName"].startswith("digits-mlp-bn-")
    assert mirror["given"]["jobType"] == "trial"
    assert sync(server, tmp_path)[-1] == "1 complete"
    assert server.steps(run_id) == [point["update"] for point in curve]
