"""Many runs in a pool: one failure stops nothing, a deadline begins nothing, a killed worker loses only its run."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gbn.engine import sweep
from gbn.engine.sweep import train_all
from gbn.store.identity import run_id
from gbn.store.records import RunStore


def named(*configs):
    return [(run_id(config.as_dict(), config.defaults()), config) for config in configs]


@pytest.mark.slow
def test_one_failing_run_does_not_stop_the_others(small, tmp_path):
    bad = small("dataset=mnist", f"dataset.root={tmp_path}/nowhere", "dataset.download=false")
    runs = named(small("seed=0"), bad, small("seed=1"))
    reports = []
    outcomes = train_all(runs, jobs=2, report=lambda outcome, done, total: reports.append((done, total)))
    by_id = {outcome.run_id: outcome for outcome in outcomes}
    assert [by_id[one].status for one, _ in runs] == ["finished", "failed", "finished"]
    assert reports == [(1, 3), (2, 3), (3, 3)]
    store = RunStore(tmp_path)
    assert {store.load(one).summary["clock"] for one, _ in (runs[0], runs[2])} == {"shared"}
    again = train_all([*runs, runs[0]], jobs=1)
    assert [outcome.skipped for outcome in again] == [True, False, True]  # a run named twice is one run


@pytest.mark.slow
def test_past_the_deadline_runs_stop_with_a_checkpoint_and_none_begins(small, tmp_path):
    long = [small("trainer.epochs=100000", f"seed={seed}") for seed in range(3)]
    outcomes = {one.run_id: one.status for one in train_all(named(*long), jobs=1, deadline=time.time() + 15)}
    store = RunStore(tmp_path)
    statuses = [(outcomes[one], store.status(one)) for one, _ in named(*long)]
    assert statuses == [("interrupted", "interrupted"), ("waiting", "missing"), ("waiting", "missing")]


@pytest.mark.slow
def test_a_run_whose_process_is_killed_is_tried_once_more_and_the_others_go_on(small, tmp_path):
    """The kills come from outside, while the long run is at work."""
    (long_id, _), (short_id, _) = runs = named(small("trainer.epochs=100000"), small("seed=1"))
    store = RunStore(tmp_path)
    killed = []

    def kill_while_running():
        for _ in range(900):
            if store.status(long_id) == "running" and (store.path(long_id) / "metrics.jsonl").exists():
                pid = json.loads((store.path(long_id) / "lock").read_text())["pid"]
                if pid not in killed:
                    killed.append(pid)
                    os.kill(pid, signal.SIGKILL)
            if len(killed) == 2:
                return
            time.sleep(0.1)

    with ThreadPoolExecutor(1) as background:
        background.submit(kill_while_running)
        outcomes = {one.run_id: one for one in train_all(runs, jobs=1)}
    assert len(killed) == 2
    assert outcomes[long_id].status == "failed"
    assert "killed twice" in outcomes[long_id].message
    assert outcomes[short_id].status == "finished"


_PARENT = """
import sys
from gbn.config.compose import compose
from gbn.engine.sweep import train_all
if __name__ == "__main__":
    train_all([("long", compose(sys.argv[1:]))], jobs=1)
"""


@pytest.mark.slow
def test_workers_of_a_killed_parent_checkpoint_and_end(small, small_overrides, tmp_path):
    overrides = [*small_overrides, "trainer.epochs=100000", f"results_dir={tmp_path}"]
    ((run_name, _),) = named(small("trainer.epochs=100000"))
    store = RunStore(tmp_path)
    script = tmp_path / "parent.py"
    script.write_text(_PARENT)
    parent = subprocess.Popen([sys.executable, str(script), *overrides])
    while not (store.path(run_name) / "metrics.jsonl").exists():
        assert parent.poll() is None
        time.sleep(0.1)
    worker = json.loads((store.path(run_name) / "lock").read_text())["pid"]
    parent.kill()
    parent.wait()
    for _ in range(300):
        if not Path(f"/proc/{worker}").exists():
            break
        time.sleep(0.1)
    else:
        raise AssertionError("the worker outlives its parent")
    assert (store.path(run_name) / "checkpoint.pt").exists()
    assert store.status(run_name) == "interrupted"


def test_workers_get_their_share_of_the_cores(monkeypatch):
    monkeypatch.setattr(sweep.os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setattr(sweep, "has_gpu", lambda: False)
    assert sweep.cores() == 6
    assert sweep.default_jobs() == 6
    monkeypatch.setattr(sweep, "has_gpu", lambda: True)
    assert sweep.default_jobs() == 1
