"""Signals and kills while a command trains: every run checkpoints, no process stays, no traceback is shown."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from gbn.engine.checkpoint import load_checkpoint
from gbn.store.records import RunStore

ROOT = Path(__file__).resolve().parents[1]
FAST = (
    "model=mlp",
    "model.width=0.125",
    "model.depth=2",
    "trainer.progress=quiet",
    "trainer.threads=1",
    "trainer.device=cpu",
    "trainer.evaluation.points=8",
)
PARALLEL = (
    "-m",
    *FAST,
    "tracker.mode=disabled",
    "launcher=parallel",
    "launcher.jobs=2",
    "results_dir=results",
)
SWEEP = """
title: "tiny: a test"
base: [model=mlp, model.width=0.125, model.depth=2, trainer.epochs=100000, trainer.device=cpu, norm=bn]
arms:
  bn: []
reference: bn
seeds: 4
targets: [0.2]
"""

#: A layer whose 20th training step takes a minute: nothing is asked meanwhile whether to stop.
_STUCK = """
import time
from torch import nn

class Layer(nn.Identity):
    left = 20

    def __init__(self, num_features):
        super().__init__()

    def forward(self, x):
        Layer.left -= self.training
        if Layer.left == 0:
            print("stuck", flush=True)
            time.sleep(60)
        return x
"""


#: Sends Ctrl-C and makes way for torch itself.
_SIGNALLING_TORCH = """
import importlib, os, signal, sys
sys.path.remove(os.path.dirname(__file__))
signal.raise_signal(signal.SIGINT)
del sys.modules["torch"]
importlib.import_module("torch")
"""


class Command:
    """A command of ours in a process group of its own, as a terminal has it."""

    def __init__(self, folder, script, *arguments, before=()):
        self.store = RunStore(folder / "results")
        self.process = subprocess.Popen(
            [*before, sys.executable, str(ROOT / script), *arguments],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{folder}", "COLUMNS": "200"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def at_work(self, count):
        """The processes of runs that have recorded a point, by run, once there are `count`."""
        for _ in range(3600):
            curves = self.store.runs_dir.glob("*/metrics.jsonl")
            found = {path.parent.name for path in curves if path.stat().st_size}
            if len(found) >= count:
                return {
                    name: json.loads((self.store.path(name) / "lock").read_text())["pid"] for name in found
                }
            assert self.process.poll() is None, self.process.communicate()
            time.sleep(0.05)
        raise AssertionError("nothing is trained")

    def close(self):
        """Leave no process behind, whatever became of the test."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()

    def end(self, timeout=120):
        """(status, output, errors); nothing of the process group is left."""
        out, err = self.process.communicate(timeout=timeout)
        for _ in range(100):
            try:
                os.killpg(self.process.pid, 0)
            except ProcessLookupError:
                break
            time.sleep(0.1)  # Python's own helper of the pool ends a moment later
        else:
            raise AssertionError("processes are left")
        assert "Traceback" not in err
        return self.process.returncode, out, err


@pytest.fixture
def start(tmp_path):
    """A maker of commands that work in the test's own folder."""
    with contextlib.ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(
            contextlib.closing(Command(tmp_path, *arguments, **options))
        )


LOCAL = ("-m", *FAST, "tracker.mode=disabled", "results_dir=results")
ENDLESS = ("trainer.epochs=100000",)
#: (script, arguments, runs at once)
COMMANDS = {
    "single": ("train.py", (*LOCAL[1:], *ENDLESS), 1),
    "local": ("train.py", (*LOCAL, *ENDLESS, "seed=range(0,4)"), 1),
    "parallel": ("train.py", (*PARALLEL, *ENDLESS, "seed=range(0,4)"), 2),
    "reproduce": ("scripts/reproduce.py", ("sweep.yaml", "--jobs", "2"), 2),
}
#: What is always tested of the matrix of commands, signals and receivers.
SHARE = [
    ("parallel", signal.SIGINT, os.killpg),  # Ctrl-C
    ("parallel", signal.SIGHUP, os.kill),
    ("reproduce", signal.SIGINT, os.kill),
]
MATRIX = [
    pytest.param(*cell, marks=pytest.mark.slow if cell in SHARE else pytest.mark.long)
    for cell in itertools.product(
        COMMANDS, (signal.SIGINT, signal.SIGTERM, signal.SIGHUP), (os.kill, os.killpg)
    )
]


def assert_checkpointed(store, runs):
    """Each run was left with a checkpoint that its curve ends at or before, and no other run was begun."""
    for name in runs:
        assert store.status(name) == "interrupted"
        checkpoint = load_checkpoint(store.path(name) / "checkpoint.pt", torch.device("cpu"))
        curve = store.load(name).curve
        assert checkpoint["points"] == len(curve) > 0  # nothing is trained twice
        assert checkpoint["step"] >= curve[-1]["update"]
    assert len(store) == len(runs)


@pytest.mark.parametrize(("name", "number", "send"), MATRIX)
def test_one_signal_lets_every_run_checkpoint(start, tmp_path, name, number, send):
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    script, arguments, count = COMMANDS[name]
    command = start(script, *arguments)
    runs = command.at_work(count)
    send(command.process.pid, number)
    status, out, err = command.end()
    assert status == 130
    assert out.count("stopped with a checkpoint; the same command resumes from there") == count
    if name == "single":
        assert err == ""
    else:
        assert err.splitlines()[-1] == "stopped; the same command resumes from here"
    assert_checkpointed(command.store, runs)


@pytest.mark.long
@pytest.mark.parametrize("name", ["parallel", "reproduce"])
def test_timeout_leaves_nothing_behind(start, tmp_path, name):
    """It signals the process and then its whole group, the workers and Python's own helper among them."""
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    script, arguments, count = COMMANDS[name]
    command = start(script, *arguments, before=("timeout", "30"))
    runs = command.at_work(count)
    status, _, _ = command.end()
    assert status == 124
    assert_checkpointed(command.store, runs)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["local", "parallel"])
def test_a_second_signal_ends_at_once(start, tmp_path, launcher):
    (tmp_path / "stuck_layer.py").write_text(_STUCK)
    jobs = PARALLEL if launcher == "parallel" else LOCAL
    command = start("train.py", *jobs, "norm=custom", "norm._target_=stuck_layer:Layer", "seed=0,1")
    assert command.process.stdout.readline() == "stuck\n"
    began = time.monotonic()
    os.killpg(command.process.pid, signal.SIGINT)
    time.sleep(1.5)
    assert command.process.poll() is None
    os.killpg(command.process.pid, signal.SIGINT)
    status, _, err = command.end()
    assert status == 130
    assert time.monotonic() - began < 50  # not the minute
    assert "resumes from" in err


@pytest.mark.parametrize("script", ["train.py", "scripts/reproduce.py"])
@pytest.mark.parametrize(
    "module",
    [
        "yaml",
        *(
            pytest.param(name, marks=pytest.mark.long)
            for name in ("hydra", "antlr4", "pydantic", "omegaconf")
        ),
    ],
)
def test_ctrl_c_during_imports_shows_no_traceback(start, tmp_path, script, module):
    (tmp_path / f"{module}.py").write_text(
        "import signal, time\nsignal.raise_signal(signal.SIGINT)\ntime.sleep(60)\n"
    )
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    script, arguments, _ = COMMANDS["single" if script == "train.py" else "reproduce"]
    status, out, err = start(script, *arguments).end()
    assert (status, err) in ((130, "stopped\n"), (130, "stopped; the same command resumes from here\n"))
    assert out == ""


@pytest.mark.long
def test_ctrl_c_during_the_import_of_torch_shows_no_traceback(start, tmp_path):
    """Then it is a run's first seconds, which begins no update."""
    (tmp_path / "torch.py").write_text(_SIGNALLING_TORCH)
    script, arguments, _ = COMMANDS["single"]
    command = start(script, *arguments)
    status, out, err = command.end()
    assert (status, err) == (130, "")
    assert "stopped with a checkpoint" in out
    assert [record.status for record in command.store] == ["interrupted"]
    assert [record.curve for record in command.store] == [[]]


@pytest.mark.slow
def test_ctrl_c_while_workers_start_shows_no_traceback(start, tmp_path):
    command = start("train.py", *PARALLEL, "trainer.epochs=100000", "seed=range(0,4)")
    while not command.store.run_ids():  # the first folder is made for its worker's standard error
        assert command.process.poll() is None
        time.sleep(0.01)
    os.killpg(command.process.pid, signal.SIGINT)
    status, out, err = command.end()
    assert status == 130
    assert {command.store.status(name) for name in command.store.run_ids()} <= {"missing", "interrupted"}
    assert "4 runs: " in out
    assert len(err.splitlines()) < 5, err


@pytest.mark.slow
def test_a_killed_worker_ends_no_sweep(start, tmp_path):
    command = start("train.py", *PARALLEL, "trainer.epochs=60", "seed=range(0,3)")
    name, pid = sorted(command.at_work(1).items())[0]
    os.kill(pid, signal.SIGKILL)
    status, out, err = command.end(300)
    assert status == 0, err
    assert "3 runs: 3 finished" in out
    assert "before that its process was ended by SIGKILL" in next(
        line for line in out.splitlines() if name in line
    )
    assert f"{name}: its process was ended by SIGKILL" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("launcher=local,parallel",), "launcher has several values"),
        (("launcher=parallel", "launcher.jobs=1,2"), "launcher.jobs has several values"),
        (
            ("launcher=parallel", "hydra/launcher=basic"),
            "hydra/launcher does nothing beside launcher=parallel",
        ),
        (
            ("launcher=parallel", "hydra.sweeper.max_batch_size=2"),
            "hydra.sweeper.max_batch_size does nothing",
        ),
    ],
)
def test_a_sweep_has_one_launcher(start, tmp_path, arguments, words):
    status, out, err = start("train.py", "-m", "seed=0,1", *arguments).end()
    assert (status, out) == (2, "")
    assert words in err
    assert len(err.splitlines()) == 1
