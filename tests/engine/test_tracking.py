"""The W&B mirror: the real offline client's file holds the curve; losing W&B at any moment loses nothing else."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gbn.engine import tracking
from gbn.engine.run import run
from gbn.engine.tracking import resolve_mode
from gbn.store.records import RunStore


def read_back(folder):
    """The records of an offline run, through W&B's own reader."""
    wandb = Path(sys.executable).with_name("wandb")
    done = subprocess.run(
        [str(wandb), "leet", "inspect", "--json", str(folder)],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return [json.loads(line) for line in done.stdout.splitlines() if line.strip()]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_offline_run_holds_config_curve_group_and_tags(small, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path))
    for seed in (0, 1):  # two in one process: the second must not log into the first
        outcome = run(small("tracker.mode=offline", "experiment=trial", f"seed={seed}"))
        assert outcome.status == "finished", outcome.message
    curve = RunStore(tmp_path).load(outcome.run_id).curve
    (folder,) = (tmp_path / "wandb").glob(f"offline-run-*-{outcome.run_id}")
    text = json.dumps(read_back(folder))
    assert outcome.run_id in text
    assert "trial" in text
    steps = [point["update"] for point in curve]
    logged = [record for record in read_back(folder) if "history" in json.dumps(record).lower()]
    mirrored = json.dumps(logged)
    for step, point in zip(steps, curve, strict=True):
        assert str(point["val_loss"]) in mirrored, f"val_loss of update {step} is not in the mirror"


class Breaks:
    """A W&B run that is lost at the second point."""

    def __init__(self):
        self.summary = {}
        self.logged = 0

    def log(self, values, step):
        self.logged += 1
        if self.logged > 1:
            raise ConnectionError("the service is gone")

    def finish(self, exit_code):
        raise AssertionError("a lost run is not finished")


@pytest.mark.parametrize("moment", ["start", "log"])
def test_losing_wandb_at_any_moment_never_fails_a_run(small, tmp_path, monkeypatch, capsys, moment):
    def start(self, *_):
        if moment == "start":
            raise TimeoutError("no network")
        self._run = Breaks()

    monkeypatch.setattr(tracking.Tracker, "_start", start)
    outcome = run(small("tracker.mode=online"))
    assert outcome.status == "finished", outcome.message
    assert len(RunStore(tmp_path).load(outcome.run_id).curve) == 5
    said = capsys.readouterr().err
    assert said.count("W&B is lost") == 1
    assert ("no network" if moment == "start" else "the service is gone") in said


def test_auto_is_online_where_logged_in_and_offline_elsewhere(monkeypatch, tmp_path):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert resolve_mode("auto") == "offline"
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    assert resolve_mode("auto") == "online"
    (tmp_path / "netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "key")
    assert resolve_mode("auto") == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert resolve_mode("auto") == "disabled"
    assert resolve_mode("offline") == "offline"
