"""Many runs in a pool: one failure stops nothing, a budget begins nothing, a dead worker loses only its run."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from gbn.engine.checkpoint import load_checkpoint
from gbn.engine.run import Outcome, run
from gbn.store.identity import run_id
from gbn.store.records import RunStore
from gbn.sweep import pool
from gbn.sweep import train_all as sweep
from gbn.sweep.death import Death
from gbn.sweep.pool import Ended
from gbn.sweep.train_all import train_all

#: A layer that ends its process in its 30th training step, as a fault of compiled code does. The child that it leaves
#: behind holds what it inherited, as a native library's own processes may.
_CRASHING = """
import ctypes, os, subprocess, sys
from torch import nn

class Layer(nn.Identity):
    left = 30

    def __init__(self, num_features, how):
        super().__init__()
        self.how = how

    def forward(self, x):
        Layer.left -= self.training
        if Layer.left == 0:
            child = subprocess.Popen(["sleep", "60"], close_fds=False)
            os.write(2, f"LLVM ERROR: Cannot create FP integer constant at {id(self):#x}\\n".encode())
            {"abort": os.abort, "segment": lambda: ctypes.string_at(0)}[self.how]()
        return x
"""


def named(*configs):
    return [(run_id(config.as_dict(), config.defaults()), config) for config in configs]


def when_running(store, run_name, seen=()):
    """The process that trains a run, once it has begun its segment after those seen and recorded a point."""
    folder = store.path(run_name)
    for _ in range(600):
        curve = folder / "metrics.jsonl"
        if store.status(run_name) == "running" and curve.exists() and curve.stat().st_size:
            segments = folder / "provenance.json"
            if segments.exists() and len(json.loads(segments.read_text())) > len(seen):
                return json.loads((folder / "lock").read_text())["pid"]
        time.sleep(0.1)
    raise AssertionError(f"{run_name} does not run")


def assert_whole(store, run_name, other):
    """The run was trained in one go, and equals the same run of another store bit for bit."""
    record, expected = store.load(run_name), other.load(run_name)
    assert [segment["start_update"] for segment in record.provenance] == [0]
    timeless = [
        [{key: value for key, value in point.items() if key != "seconds"} for point in one.curve]
        for one in (record, expected)
    ]
    assert timeless[0] == timeless[1]
    weights = [
        load_checkpoint(one.path(run_name) / "checkpoint.pt", torch.device("cpu"))["model"]
        for one in (store, other)
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


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
    assert not list(tmp_path.glob("runs/*/stderr.txt"))  # nothing was written there
    again = train_all([*runs, runs[0]], jobs=1)
    assert [outcome.skipped for outcome in again] == [True, False, True]  # a run named twice is one run


@pytest.mark.slow
def test_past_the_budget_runs_stop_with_a_checkpoint_and_none_begins(small, tmp_path):
    long = [small("trainer.epochs=100000", f"seed={seed}") for seed in range(3)]
    outcomes = {one.run_id: one.status for one in train_all(named(*long), jobs=1, budget=15)}
    store = RunStore(tmp_path)
    statuses = [(outcomes[one], store.status(one)) for one, _ in named(*long)]
    assert statuses == [("interrupted", "interrupted"), ("waiting", "missing"), ("waiting", "missing")]


def test_past_the_budget_no_other_process_is_waited_for(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pool.SpawnProcess, "start", None)  # none is needed
    ((name, config),) = named(small())
    with RunStore(tmp_path).writer(name):
        (outcome,) = train_all([(name, config)], jobs=1, budget=0.2)
    assert (outcome.run_id, outcome.status) == (name, "waiting")
    assert capsys.readouterr().err == f"waiting for {name}, which other processes are training\n"


@pytest.mark.slow
def test_crashes_are_reported_by_their_signal_and_touch_no_other_run(small, tmp_path, monkeypatch, capfd):
    """Two workers: two runs crash, one after the other, beside a long one that goes on."""
    (tmp_path / "crashing_layer.py").write_text(_CRASHING)
    monkeypatch.syspath_prepend(tmp_path)
    custom = ("norm=custom", "norm._target_=crashing_layer:Layer", "trainer.epochs=3")
    crashing = [small(*custom, f"+norm.kwargs.how={how}") for how in ("abort", "segment")]
    (beside_id, _), *others = runs = named(small("trainer.epochs=200"), *crashing)
    monkeypatch.setattr(sweep, "cores", lambda: 2)
    outcomes = {one.run_id: one for one in train_all(runs, jobs=2)}
    assert len(outcomes) == len(runs)

    run(small("trainer.epochs=200", f"results_dir={tmp_path}/alone"))
    store = RunStore(tmp_path)
    assert outcomes[beside_id].status == "finished"
    assert_whole(store, beside_id, RunStore(tmp_path / "alone"))

    words = {"abort": "SIGABRT (abort", "segment": "SIGSEGV (segmentation fault"}
    for name, config in others:
        how = config.norm.kwargs["how"]
        outcome, error = outcomes[name], store.path(name) / "error.txt"
        assert outcome.status == store.status(name) == "failed"
        assert words[how] in outcome.message
        assert outcome.message.endswith(f"(see {error})")
        assert "out of memory" not in outcome.message
        account = error.read_text()
        said = "LLVM ERROR: Cannot create FP integer constant at 0x"
        for part in (words[how], name, said, "crashing_layer.py"):  # the last: where Python was
            assert part in account
        # Its own words and nobody else's, of one attempt.
        assert (store.path(name) / "stderr.txt").read_text().count(said) == 1
    terminal = capfd.readouterr().err
    assert terminal.count("LLVM ERROR") == 2
    assert "Traceback" not in terminal


@pytest.mark.slow
def test_a_killed_run_goes_on_once_from_its_checkpoint_and_the_other_is_undisturbed(small, tmp_path, capfd):
    """The kills come from outside, while both runs are at work."""
    saving = ("trainer.epochs=100000", "trainer.checkpoint_seconds=0.05")
    beside = small("trainer.epochs=200", "seed=1")
    (long_id, _), (beside_id, _), (last_id, _) = runs = named(small(*saving), beside, small("seed=2"))
    store = RunStore(tmp_path)
    killed = []

    def kill_while_running():
        for _ in range(2):
            killed.append(when_running(store, long_id, killed))
            time.sleep(0.5)  # a checkpoint
            os.kill(killed[-1], signal.SIGKILL)

    with ThreadPoolExecutor(1) as background:
        kills = background.submit(kill_while_running)
        outcomes = {one.run_id: one for one in train_all(runs, jobs=2)}
        kills.result()
    assert outcomes[long_id].status == store.status(long_id) == "failed"
    assert outcomes[long_id].message.count("SIGKILL") == 2
    assert "out of memory" not in outcomes[long_id].message
    account = (store.path(long_id) / "error.txt").read_text()
    assert all(f"process {pid}" in account for pid in killed)
    first, second = store.load(long_id).provenance
    assert first["start_update"] == 0 < second["start_update"]
    run(small("trainer.epochs=200", "seed=1", f"results_dir={tmp_path}/alone"))
    assert_whole(store, beside_id, RunStore(tmp_path / "alone"))
    assert outcomes[last_id].status == "finished"
    assert "it is tried once more" in capfd.readouterr().err


@pytest.mark.slow
def test_a_worker_that_is_asked_to_end_checkpoints_and_the_others_go_on(small, tmp_path):
    (long_id, _), (next_id, _) = runs = named(small("trainer.epochs=100000"), small("seed=1"))
    store = RunStore(tmp_path)
    with ThreadPoolExecutor(1) as background:
        background.submit(lambda: os.kill(when_running(store, long_id), signal.SIGTERM))
        outcomes = {one.run_id: one.status for one in train_all(runs, jobs=1)}
    assert outcomes == {long_id: "interrupted", next_id: "finished"}
    assert store.status(long_id) == "interrupted"
    assert (store.path(long_id) / "checkpoint.pt").exists()


_PARENT = """
import sys
from gbn.config.compose import compose
from gbn.sweep.train_all import train_all
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
    pid = when_running(store, run_name)
    parent.kill()
    parent.wait()
    for _ in range(300):
        if not Path(f"/proc/{pid}").exists():
            break
        time.sleep(0.1)
    else:
        raise AssertionError("the worker outlives its parent")
    assert (store.path(run_name) / "checkpoint.pt").exists()
    assert store.status(run_name) == "interrupted"


def test_a_run_that_cannot_begin_is_an_outcome(small, tmp_path, monkeypatch):
    (damaged_id, _), (blocked_id, _), (third_id, _) = runs = named(
        *(small(f"seed={seed}") for seed in range(3))
    )
    store = RunStore(tmp_path)
    store.path(damaged_id).mkdir(parents=True)
    (store.path(damaged_id) / "summary.json").write_text("")
    store.path(blocked_id).write_text("a file where a folder should be")

    def no_process(*_):
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(pool.SpawnProcess, "start", no_process)
    outcomes = train_all(runs, jobs=2)
    assert [(one.run_id, one.status) for one in outcomes] == [(name, "failed") for name, _ in runs]
    messages = {one.run_id: one.message for one in outcomes}
    assert "summary.json is damaged" in messages[damaged_id]
    assert str(store.path(blocked_id)) in messages[blocked_id]
    assert "Resource temporarily unavailable" in messages[third_id]


@pytest.mark.slow
def test_a_worker_that_is_asked_to_end_before_it_begins_costs_no_run(small, monkeypatch):
    start, started = pool.SpawnProcess.start, []

    def start_and_signal(process):
        start(process)
        started.append(process.pid)
        if len(started) == 1:
            os.kill(process.pid, signal.SIGTERM)  # it waits until the worker listens

    monkeypatch.setattr(pool.SpawnProcess, "start", start_and_signal)
    (outcome,) = train_all(named(small()), jobs=1)
    assert (outcome.status, len(started)) == ("finished", 2)


class Crashing(pool.Pool):
    """A pool whose runs all crash at once with the same words but for numbers, addresses and their own names."""

    def begin(self, run_id, config, errors):
        errors.parent.mkdir(parents=True)
        (errors.parent / "config.yaml").touch()
        said = f"{run_id}: LLVM ERROR at {hash(run_id) % 10**6} {config.seed}\nStack dump"
        if config.seed > 20:
            said = f"{chr(config.seed + 64)} fails"
        death = Death(run_id, -signal.SIGABRT, 4711, 1.0, "", said)
        self.ended = [Ended(config, death, said)]

    @property
    def at_work(self):
        return bool(getattr(self, "ended", []))

    def wait(self, seconds):
        found, self.ended = self.ended, []
        return found


def test_what_crashing_runs_write_does_not_flood_the_terminal(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sweep, "Pool", Crashing)
    outcomes = train_all(named(*(small(f"seed={seed}") for seed in range(40))), jobs=1)
    assert {one.status for one in outcomes} == {"failed"}
    assert len(list(tmp_path.glob("runs/*/error.txt"))) == 40
    lines = capsys.readouterr().err.splitlines()
    assert sum("LLVM ERROR" in line for line in lines) == 1
    assert sum("fails" in line for line in lines) == 7  # eight kinds
    assert "stderr.txt of each" in lines[-1]


def test_finished_runs_need_no_process(small, tmp_path, monkeypatch):
    monkeypatch.setattr(sweep.RunStore, "status", lambda *_: "finished")
    monkeypatch.setattr(sweep, "run", lambda config: Outcome(named(config)[0][0], "finished", True, "done"))
    monkeypatch.setattr(pool.SpawnProcess, "start", None)
    assert [one.skipped for one in train_all(named(small(), small("seed=1")), jobs=2)] == [True, True]


def test_workers_get_their_share_of_the_cores(monkeypatch):
    monkeypatch.setattr(sweep.os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    monkeypatch.setattr(sweep, "has_gpu", lambda: False)
    assert sweep.cores() == 6
    assert sweep.default_jobs() == 6
    monkeypatch.setattr(sweep, "has_gpu", lambda: True)
    assert sweep.default_jobs() == 1
