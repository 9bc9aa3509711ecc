"""The system's clock is set forward or back by a day: durations, budgets, estimates and patience do not notice."""

import itertools
import os
import re
import time

import pytest
from rich.console import Console

from gbn.engine.run import Outcome, run
from gbn.store.locks import LockedError, RunLock
from gbn.store.records import RunStore
from gbn.sweep import train_all as sweep
from gbn.sweep.journal import Journal
from gbn.sweep.train_all import train_all
from gbn.sweep.watch.snapshot import Watch
from gbn.sweep.watch.view import render

DAY = 86400.0


@pytest.fixture(params=[DAY, -DAY], ids=["forward", "back"])
def jumping(monkeypatch, request):
    """At each look the clock is another day on, or back."""
    days, now = itertools.count(), time.time
    monkeypatch.setattr(time, "time", lambda: now() + request.param * next(days))
    assert abs(time.time() - time.time()) > DAY / 2
    return request.param


def assert_minutes(text):
    """Every time in the text is one of minutes: no day was added or taken."""
    assert "day" not in text
    times = re.findall(r"(\d+):\d\d:\d\d (?:passed|left)", text)
    assert times
    assert set(times) == {"0"}


def test_the_journal(jumping, tmp_path, capsys, monkeypatch):
    for name in ("GBN_JOURNAL", "GBN_JOURNAL_TOTAL", "GBN_JOURNAL_BEGAN"):
        monkeypatch.setenv(name, "")  # put back afterwards
    Journal.begin(tmp_path, 3)
    for number in range(2):
        Journal.inherited().record(Outcome(f"run{number}", "finished", False, "done"))
    assert_minutes(capsys.readouterr().out)


def test_a_run_and_its_summary(jumping, small, tmp_path, capsys):
    outcome = run(small("trainer.progress=plain", "trainer.checkpoint_seconds=3600"))
    assert outcome.status == "finished", outcome.message
    record = RunStore(tmp_path).load(outcome.run_id)
    assert 0 < record.summary["wall_seconds"] < 600
    times = [point["seconds"] for point in record.curve]
    assert times[0] > 0
    assert times == sorted(times)
    assert times[-1] < 600
    assert re.search(r"[1-9][\d,]* images/s  0:00 left", capsys.readouterr().out)


def test_how_long_a_process_took_to_its_first_update(jumping, monkeypatch):
    from gbn.engine.run import _startup

    found = _startup(time.monotonic(), 0.5)
    if found is None:
        pytest.skip("this system does not tell when a process began")
    assert 0 < found["to_first_update"] < DAY / 2


class _Pool:
    """Begins runs and ends each at the next wait."""

    def __init__(self, jobs, *_):
        self.jobs, self._begun = jobs, []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    at_work = property(lambda self: len(self._begun))

    def begin(self, run_id, config, errors):
        self._begun.append((run_id, config))

    def stop(self):
        pass

    dismiss = stop

    def wait(self, seconds):
        begun, self._begun = self._begun, []
        return [
            sweep.Ended(config, Outcome(run_id, "finished", False, "done"), "") for run_id, config in begun
        ]


def test_a_budget(jumping, small, monkeypatch):
    monkeypatch.setattr(sweep, "Pool", _Pool)
    runs = [(f"run{seed}", small(f"seed={seed}")) for seed in range(5)]
    assert [one.status for one in train_all(runs, jobs=1, budget=3600)] == ["finished"] * 5


def test_the_patience_for_a_lock(jumping, tmp_path, monkeypatch):
    naps, sleep = [], time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: (naps.append(seconds), sleep(seconds)))
    with RunLock(tmp_path), pytest.raises(LockedError):
        RunLock(tmp_path).acquire()
    assert len(naps) > 1


def test_a_watched_sweep(jumping, tmp_path):
    """The dates of its files lie a day apart, on either side."""
    store = RunStore(tmp_path)
    with store.writer("digits-mlp-bn-s1-0123456789") as writer:
        writer.append({"update": 30, "seconds": 12.0, "val_accuracy": 0.5})
        writer.write_summary({"run_id": writer.run_id, "status": "finished", "updates": 30, "seconds": 12.0})
    with store.writer("digits-mlp-bn-s0-0123456789") as writer:
        writer.write_config({"trainer": {"epochs": 3.0}})
        writer.add_provenance({"start_update": 0})
        writer.append({"update": 10, "epoch": 1.0, "seconds": 4.0, "val_accuracy": 0.5})
        now = time.monotonic()
        for number, name in enumerate(("config.yaml", "provenance.json", "metrics.jsonl")):
            os.utime(writer.folder / name, (now + jumping * number, now + jumping * number))
        snapshot = Watch(tmp_path, patterns=["*"]).look()
    assert snapshot.left.seconds == pytest.approx(8.0)
    console = Console(width=200)
    with console.capture() as shown:
        console.print(render(snapshot))
    assert "about 8 s left" in shown.get()
