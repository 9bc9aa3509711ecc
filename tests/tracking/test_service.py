"""W&B's service hangs: no run waits for it without end, nothing of it is left, and it changes no signal or stream."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gbn.engine.run import run
from gbn.store.records import RunStore
from gbn.sweep.signals import STOPPING
from gbn.tracking import service
from gbn.tracking.service import Service, kill_services, services_of

ROOT = Path(__file__).resolve().parents[2]
LOST = "W&B is lost (no answer within 3 s): the run goes on, its files are complete"


@pytest.fixture
def start(small_overrides, tmp_path):
    """A maker of commands that train with a mirror whose answers are waited for a second."""
    begun = []

    def make(*arguments):
        options = ["tracker.mode=offline", "tracker.timeout=1", f"results_dir={tmp_path}"]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
        process = subprocess.Popen(
            [
                sys.executable,
                str(ROOT / "train.py"),
                *arguments[:1],
                *small_overrides,
                *options,
                *arguments[1:],
            ],
            env={**environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        begun.append(process)
        return process

    yield make
    for process in begun:
        kill_services(process.pid)
        process.kill()
        process.communicate()


def strike(pid, number=signal.SIGSTOP):
    """Stop or kill the service of a process as soon as it has one."""
    for _ in range(60000):
        if found := services_of(pid):
            os.kill(found[0], number)
            return found[0]
        time.sleep(0.001)
    raise AssertionError("no service")


def when(there):
    for _ in range(1200):
        if found := there():
            return found
        time.sleep(0.05)
    raise AssertionError("it does not come")


def gone(pid):
    return not Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        pytest.param("start", signal.SIGSTOP, marks=pytest.mark.long),
        pytest.param("training", signal.SIGSTOP, marks=pytest.mark.slow),
        pytest.param("training", signal.SIGKILL, marks=pytest.mark.long),
    ],
)
def test_a_run_ends_though_the_service_is_frozen_or_dead(start, tmp_path, moment, number):
    process = start("trainer.epochs=150")
    if moment == "training":
        when(lambda: [path for path in tmp_path.glob("runs/*/metrics.jsonl") if path.stat().st_size])
    struck = strike(process.pid, number)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0
    (line,) = err.splitlines()
    assert line == LOST if number == signal.SIGSTOP else line.startswith("W&B is lost (")
    assert len(out.splitlines()) == 1
    assert [record.status for record in RunStore(tmp_path)] == ["finished"]
    when(lambda: gone(struck))


@pytest.mark.long
def test_a_sweep_ends_though_the_services_of_its_workers_are_frozen(start, tmp_path):
    process = start("-m", "seed=0,1", "trainer.epochs=1000", "launcher=parallel", "launcher.jobs=2")
    when(lambda: len(list(tmp_path.glob("runs/*/metrics.jsonl"))) == 2)
    frozen = [strike(json.loads(path.read_text())["pid"]) for path in tmp_path.glob("runs/*/lock")]
    assert len(frozen) == 2
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "2 runs: 2 finished" in out
    assert "Traceback" not in err
    for folder in (tmp_path / "runs").iterdir():
        assert (folder / "stderr.txt").read_text().splitlines() == [LOST]
    for pid in frozen:
        when(lambda pid=pid: gone(pid))


@pytest.mark.long
def test_a_second_signal_leaves_no_frozen_service(start, tmp_path):
    process = start("trainer.epochs=100000", "tracker.timeout=60")
    when(lambda: [path for path in tmp_path.glob("runs/*/metrics.jsonl") if path.stat().st_size])
    frozen = strike(process.pid)
    process.send_signal(signal.SIGINT)
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err == "ended at once; the same command resumes from the last checkpoint\n"
    when(lambda: gone(frozen))


def test_a_call_has_its_deadline_and_comes_too_late_to_matter(monkeypatch):
    monkeypatch.setattr(service, "_GRACE", 0.05)
    go_on = threading.Event()
    talk = Service(0.05)
    with pytest.raises(TimeoutError, match=r"no answer within 0\.1 s"):
        talk.call(go_on.wait)
    go_on.set()
    assert talk.call(lambda: 7) == 7
    begun = talk.begin(lambda: 8)
    time.sleep(0.3)  # the deadline passes while nobody asks: the answer was there before
    assert begun() == 8
    with pytest.raises(ZeroDivisionError):
        talk.call(lambda: 1 / 0)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_wandb_changes_no_signal_and_no_stream(small, tmp_path, monkeypatch, capfd):
    for name in ("WANDB_MODE", "WANDB_DATA_DIR", "WANDB_CACHE_DIR", "WANDB_SILENT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)

    def state():
        handlers = {number: signal.getsignal(number) for number in STOPPING}
        return handlers, sys.stdout, sys.stderr, [os.fstat(number).st_ino for number in (1, 2)]

    before, hooks, during = state(), (sys.exit, sys.excepthook), []
    outcome = run(small("tracker.mode=offline"), stop=lambda: during.append(state()) or False)
    assert outcome.status == "finished", outcome.message
    assert all(one == before for one in (*during, state()))
    assert (sys.exit, sys.excepthook) == hooks
    assert not services_of(os.getpid())
    assert capfd.readouterr() == ("", "")
