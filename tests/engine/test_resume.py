"""Killed at any step and started again, a run equals the uninterrupted one bit for bit on the CPU."""

import itertools
import os
import subprocess
import sys
import time

import pytest
import torch

from gbn.engine.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from gbn.engine.run import run
from gbn.store.records import RunStore


def timeless(curve):
    return [{key: value for key, value in point.items() if key != "seconds"} for point in curve]


def weights(store, run_id):
    return load_checkpoint(store.path(run_id) / "checkpoint.pt", torch.device("cpu"))


def assert_same_run(one, other, run_id):
    assert timeless(one.load(run_id).curve) == timeless(other.load(run_id).curve)
    a, b = weights(one, run_id), weights(other, run_id)
    assert a["model"].keys() == b["model"].keys()
    for name, tensor in a["model"].items():
        assert torch.equal(tensor, b["model"][name]), name
    assert a["step"] == b["step"]


@pytest.mark.parametrize(
    "norm", ["bn", "gbn_cvar", "bn_measured_matched", "bn_measured_reparam", "bn_tracking"]
)
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_stopped_again_and_again_equals_uninterrupted(small, tmp_path, norm, optimizer):
    overrides = (f"norm={norm}", f"optimizer={optimizer}", "schedule=one_cycle", "dataset.augment=crop_flip")
    whole = run(small(*overrides, f"results_dir={tmp_path}/whole"))
    assert whole.status == "finished", whole.message
    # Stops after 1, 4 (just before a point), 5 (just after it), 6, ... updates of each attempt.
    attempts = 0
    for allowed in itertools.chain([1, 3, 1, 1], itertools.repeat(2)):
        asked = itertools.count()
        outcome = run(
            small(*overrides, f"results_dir={tmp_path}/parts"),
            stop=lambda asked=asked, allowed=allowed: next(asked) >= allowed,
        )
        attempts += 1
        if outcome.status != "interrupted":
            break
    assert outcome.status == "finished", outcome.message
    assert attempts > 8
    parts = RunStore(tmp_path / "parts")
    assert_same_run(RunStore(tmp_path / "whole"), parts, whole.run_id)
    assert [s["start_update"] for s in parts.load(whole.run_id).provenance][:4] == [0, 1, 4, 5]


_KILLED = """
import sys
from gbn.config.compose import compose
from gbn.engine.run import run
print(run(compose(sys.argv[1:])).status, flush=True)
"""


@pytest.mark.slow
def test_kill_9_loses_only_the_steps_since_the_checkpoint(small, small_overrides, tmp_path):
    overrides = [*small_overrides, "trainer.epochs=30", "norm=gbn_cvar", "trainer.checkpoint_seconds=0.05"]
    whole = run(small("trainer.epochs=30", "norm=gbn_cvar", f"results_dir={tmp_path}/whole"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _KILLED, *overrides, f"results_dir={tmp_path}/killed"]
    store = RunStore(tmp_path / "killed")
    checkpoint = store.path(whole.run_id) / "checkpoint.pt"
    steps = []
    for _ in range(3):
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
        while process.poll() is None and (not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before):
            time.sleep(0.005)
        time.sleep(0.1)
        process.kill()
        process.communicate()
        steps.append(weights(store, whole.run_id)["step"])
    assert steps == sorted(steps)
    assert steps[0] > 0
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "finished"
    assert_same_run(RunStore(tmp_path / "whole"), store, whole.run_id)


def test_a_checkpoint_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, {"step": 1})
    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        with pytest.raises(OSError, match="disk"):
            save_checkpoint(path, {"step": 2})
    assert load_checkpoint(path, torch.device("cpu")) == {"step": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04torn"])
def test_a_damaged_checkpoint_says_what_to_do(tmp_path, content):
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="remove the folder"):
        load_checkpoint(path, torch.device("cpu"))


def test_a_checkpoint_executes_nothing(tmp_path):
    path = tmp_path / "checkpoint.pt"
    torch.save({"step": 0, "evil": torch.nn.Linear(1, 1)}, path)
    with pytest.raises(CheckpointError):
        load_checkpoint(path, torch.device("cpu"))
