"""The command line: errors before anything is loaded, one run, sweeps in one and in several processes."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FAST = (
    "model=mlp",
    "model.width=0.125",
    "model.depth=2",
    "trainer.epochs=1",
    "trainer.progress=plain",
    "trainer.threads=1",
    "trainer.device=cpu",
    "tracker.mode=disabled",
)


def train(*arguments, cwd=ROOT, **options):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        **options,
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["norm=gbn_cvr"], "did you mean 'gbn_cvar'"),
        (["norm=bn,gbn_cvar"], "needs -m"),
        (["-m", "norm=bn,gbn_cvra"], "gbn_cvar"),
        (["optimizer.lr=fast"], "optimizer.lr='fast'"),
    ],
)
def test_a_wrong_command_is_one_line_and_status_2_before_anything_is_loaded(arguments, words, tmp_path):
    done = train(*arguments, f"results_dir={tmp_path}/results")
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert not (tmp_path / "results").exists()


def test_overrides_may_stand_on_either_side_of_a_flag(tmp_path):
    done = train(*FAST, f"results_dir={tmp_path}", "-m", "seed=0,1", "launcher=parallel", "launcher.jobs=0")
    assert done.returncode == 2
    assert "launcher.jobs" in done.stderr  # it was read


def test_help_names_groups_choices_and_examples():
    done = train("--help")
    assert done.returncode == 0
    for words in (
        "norm: bn, bn_matched",
        "model: cnn",
        "gbn train -m norm=",
        "norm._target_=",
        "trainer.epochs",
    ):
        assert words in done.stdout


#: What a run of digits with W&B disabled has no use for, each a second or more of imports or a part of one.
UNUSED = {"torch._dynamo", "torch._inductor", "torch.onnx", "sympy", "triton", "wandb", "torchvision", "PIL"}
UNUSED |= {"pandas", "pyarrow", "scipy.stats", "scipy.special", "sklearn", "matplotlib", "plotly", "monai"}
UNUSED |= {"joblib", "rich", "jinja2"}
REPORTING = """
import runpy, sys
from hydra._internal.config_loader_impl import ConfigLoaderImpl

def counted(*arguments, **options):
    global composed
    composed += 1
    return compose(*arguments, **options)

composed, compose = 0, ConfigLoaderImpl.load_configuration
ConfigLoaderImpl.load_configuration = counted
sys.argv.pop(0)
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print("COMPOSED", composed, "LOADED", *sys.modules)
"""


def test_a_run_composes_once_and_loads_only_what_it_uses(tmp_path):
    command = [sys.executable, "-c", REPORTING, str(ROOT / "train.py"), *FAST]
    command += ["trainer.progress=quiet", "trainer.clip_norm=1", "trainer.record.layers=true"]
    command += ["optimizer.precondition=bnp", f"results_dir={tmp_path}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "GBN_KERNELS": "reference"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "test accuracy" in done.stdout
    composed, _, *modules = done.stdout.rpartition("COMPOSED ")[2].split()
    assert composed == "1"
    assert "torch" in modules
    assert not UNUSED & {*modules}


@pytest.mark.slow
def test_one_run_and_the_same_command_again(tmp_path):
    command = (*FAST, "norm=gbn_cvar", "norm.alpha=0.6", "results_dir=results")
    done = train(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"update 9/9 +loss [\d.]+ +val [\d.]+ %", done.stdout), done.stdout
    assert "test accuracy" in done.stdout
    (folder,) = (tmp_path / "results" / "runs").iterdir()
    assert re.fullmatch(r"digits-mlp-gbn_cvar_0.6-s0-[0-9a-f]{10}", folder.name)
    assert (folder / "summary.json").exists()
    again = train(*command, cwd=tmp_path)
    assert again.returncode == 0
    assert "update" not in again.stdout.replace("updates", "")
    assert {path.name for path in tmp_path.iterdir()} == {"results"}  # nothing is strewn about
    by_hydra = train(*command, "hydra.verbose=false", cwd=tmp_path)  # composed by Hydra alone: the same run
    assert by_hydra.returncode == 0, by_hydra.stderr
    assert by_hydra.stdout == again.stdout


@pytest.mark.parametrize(
    "command", [pytest.param("sweep", marks=pytest.mark.slow), pytest.param("single", marks=pytest.mark.long)]
)
def test_relative_folders_are_the_same_wherever_hydra_goes(tmp_path, command):
    """hydra.job.chdir=true: the same runs in the same place, found as done by a command without it."""
    (tmp_path / "mine").mkdir()
    here = (
        *FAST,
        "dataset.root=mine",
        "tracker.mode=offline",
        "dataset.download=false",
        "results_dir=results",
    )
    if command == "sweep":
        done = train("-m", *here, "dataset=digits,mnist", "hydra.job.chdir=true", cwd=tmp_path)
        assert done.returncode == 1
        assert "1 finished, 1 failed" in done.stdout
        assert f"{tmp_path}/mine" in done.stderr  # where MNIST is not
    else:
        done = train(*here, "hydra.job.chdir=true", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"results", "mine"}
    assert {path.name for path in (tmp_path / "results").iterdir()} == {"runs", "sweeps", "wandb", "cache"}
    again = train(*here, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "update 9/9" not in again.stdout  # done before
    assert len(list((tmp_path / "results" / "runs").glob("digits-*"))) == 1


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["local", "parallel"])
def test_a_sweep_goes_on_past_a_failure_and_does_only_what_is_missing(tmp_path, launcher):
    jobs = ["launcher=parallel", "launcher.jobs=2"] if launcher == "parallel" else []
    command = ("-m", *FAST, "norm=bn,gbn_cvar", "seed=range(0,2)", "model.width=0.125,0.25", *jobs)
    command = (*command, "results_dir=results", "trainer.progress=quiet")
    broken = ("dataset.root=nowhere", "dataset.download=false")
    done = train(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "8 runs: 8 finished" in done.stdout
    assert done.stdout.count("[8/8") == 1
    assert len(list((tmp_path / "results" / "runs").iterdir())) == 8
    more = tuple(word.replace("range(0,2)", "range(0,3)") for word in command)
    again = train(*more, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "12 runs" in again.stdout
    assert "8 done before" in again.stdout
    assert "4 finished" in again.stdout
    if launcher == "local":
        command = ("-m", *FAST, *broken, "dataset=digits,mnist", "results_dir=results", "model.width=0.5")
        failing = train(*command, cwd=tmp_path)
        assert failing.returncode == 1
        assert "1 finished" in failing.stdout
        assert "1 failed" in failing.stdout
        error = re.search(r"failed: mnist-\S+: .*\(see (\S+error\.txt)\)", failing.stderr)
        assert error, failing.stderr
        assert "nowhere" in (tmp_path / error[1]).read_text()


@pytest.mark.slow
def test_a_terminated_run_checkpoints_and_goes_on(tmp_path):
    command = [sys.executable, str(ROOT / "train.py"), *FAST, "trainer.epochs=4000", "results_dir=results"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not list(tmp_path.glob("results/runs/*/metrics.jsonl")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 130, err
    assert "resumes from there" in out
    assert list(tmp_path.glob("results/runs/*/checkpoint.pt"))
    assert not list(tmp_path.glob("results/runs/*/summary.json"))
