"""`gbn wandb` with the real W&B client, against a server on this machine."""

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gbn.store.records import RunStore
from gbn.studies.validation.simulate import Arm, SimulatedGrid, write_runs
from gbn.tracking.service import services_of

ROOT = Path(__file__).resolve().parents[2]
RECORDS = SimulatedGrid({"bn": Arm()}, seeds=(0, 1), points=8).records()

SMALL = (
    *("model=mlp", "model.width=0.125", "trainer.epochs=1", "trainer.batch_size=64", "trainer.threads=1"),
    *("trainer.evaluation.points=5", "trainer.evaluation.calibration_images=64", "trainer.device=cpu"),
)


@pytest.fixture
def server():
    path = Path(__file__).with_name("wandb_server.py")
    spec = importlib.util.spec_from_file_location("wandb_server", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with module.LocalServer() as running:
        yield running


def start(server, *command):
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**kept, "WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": server.url},
    )


def call(server, *command):
    process = start(server, *command)
    out, err = process.communicate(timeout=200)
    assert process.returncode == 0, out + err
    return out, err


def sync(server, results):
    script = ("scripts/wandb_sync.py", "--runs", "*", "--results", results, "--timeout", "30")
    return call(server, *script)[0].splitlines()


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
    options = (f"results_dir={tmp_path}", "experiment=trial", "tracker.mode=online", "tracker.timeout=30")
    assert "W&B is lost" not in call(server, "train.py", *SMALL, *options)[1]
    ((run_id, mirror),) = server.runs.items()
    curve = RunStore(tmp_path).load(run_id).curve
    assert server.steps(run_id) == [point["update"] for point in curve]
    assert mirror["given"]["groupName"].startswith("digits-mlp-bn-")
    assert mirror["given"]["jobType"] == "trial"
    assert sync(server, tmp_path)[-1] == "1 complete"
    assert server.steps(run_id) == [point["update"] for point in curve]


@pytest.mark.parametrize(
    "command",
    [
        pytest.param("train.py", marks=pytest.mark.long),
        pytest.param("scripts/wandb_sync.py", marks=pytest.mark.slow),
    ],
)
def test_a_service_that_freezes_while_it_begins_a_run_is_waited_for_a_few_seconds(server, tmp_path, command):
    write_runs(RECORDS, tmp_path)
    arguments = {
        "train.py": (*SMALL, f"results_dir={tmp_path}", "tracker.mode=online", "tracker.timeout=1", "seed=7"),
        "scripts/wandb_sync.py": ("--runs", "*", "--results", str(tmp_path), "--timeout", "1"),
    }[command]
    process = start(server, command, *arguments)
    answer, frozen = server.answer, set()

    def freezing(operation, variables):
        if operation == "UpsertBucket":
            for pid in services_of(process.pid):
                os.kill(pid, signal.SIGSTOP)
                frozen.add(pid)
        return answer(operation, variables)

    server.answer = freezing
    out, err = process.communicate(timeout=200)
    assert frozen
    for _ in range(200):
        frozen = {pid for pid in frozen if Path(f"/proc/{pid}").exists()}
        time.sleep(0.05 * bool(frozen))
    assert not frozen
    if command == "train.py":
        assert process.returncode == 0, err
        assert err == "W&B is lost (no answer within 3 s): the run goes on, its files are complete\n"
    else:
        assert process.returncode == 1, err
        assert out.count("failed: no answer within 3 s") == 1
        assert err == "error: W&B failed 2 times in a row: 0 of 2 runs are left\n"
