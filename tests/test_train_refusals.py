"""train.py as a command: what it refuses before it trains, and the folders where results can't go."""

import re
import subprocess

import pytest

from gbn.config.errors import ConfigError
from gbn.config.places import check_results
from tests.test_train import FAST, train


def refused(done):
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-m", "seed=0,-1"], "seed=-1 is not allowed"),
        (["-m", "seed=range(0,1e9)"], "asks for 1.00e+9 runs, a sweep has at most 10,000"),
        (["--seed=3"], "a key has no dashes, write seed=3"),
        (["--cfg", "nosuch"], "invalid choice: 'nosuch'"),
        (["results_dir=a", "results_dir=b"], "results_dir is given more than once, as a and b"),
    ],
)
def test_a_wrong_line_ends_before_anything_is_written(tmp_path, arguments, words):
    assert words in refused(train(*arguments, cwd=tmp_path))
    assert not list(tmp_path.iterdir())


def test_functions_under_pythonoptimize(tmp_path, monkeypatch):
    """Hydra's parser works by its assertions."""
    monkeypatch.setenv("PYTHONOPTIMIZE", "1")
    line = refused(train("-m", "seed=range(0,2)", cwd=tmp_path))
    assert "unset PYTHONOPTIMIZE, or write the values out" in line


@pytest.mark.parametrize(
    "arguments",
    [
        ("hydra.job_logging.version=3",),
        ("-m", "hydra.launcher._target_=nosuch"),
        ("hydra.output_subdir=/proc/x",),
    ],
)
def test_what_hydra_refuses_itself_is_one_line(tmp_path, arguments):
    line = refused(train(*FAST, *arguments, cwd=tmp_path))
    assert line.startswith("error: Hydra: ")
    assert not list(tmp_path.glob("results/runs/*"))


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--cfg", "job"], 0, "batch_size: 128"),
        (["--cfg", "job", "--package", "nosuch"], 1, "package 'nosuch' not found"),
        (["--info", "searchpath"], 0, "conf"),
        (["--hydra-help"], 0, "--multirun"),
        (["--version"], 0, "Hydra"),
    ],
)
def test_hydras_own_options_do_what_hydra_says(tmp_path, arguments, status, words):
    done = train(*arguments, cwd=tmp_path)
    assert done.returncode == status
    assert words in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def unusable(folder):
    (folder / "file").write_text("")
    (folder / "link").symlink_to(folder / "nowhere" / "else")
    (folder / "with_file").mkdir()
    (folder / "with_file" / "runs").write_text("")
    (folder / "with_link").mkdir()
    (folder / "with_link" / "sweeps").symlink_to(folder / "nowhere")
    deep = folder
    while len(str(deep)) < 3900:
        deep /= "d" * 100
    long = str(deep) + "/" + "e" * (4060 - len(str(deep)))
    return {
        "a file": folder / "file",
        "under a file": folder / "file" / "below",
        "a dangling link": folder / "link",
        "runs is a file": folder / "with_file",
        "sweeps is a dangling link": folder / "with_link",
        "a name too long": folder / ("n" * 300),
        "a path too long": folder / ("p/" * 3000),
        "a path too long for the files of a run": long,
        "a folder of the kernel's": "/proc/self/nosuch",
    }


@pytest.mark.parametrize(
    "what",
    [
        "a file",
        "under a file",
        "a dangling link",
        "runs is a file",
        "sweeps is a dangling link",
        "a name too long",
        "a path too long",
        "a path too long for the files of a run",
        "a folder of the kernel's",
    ],
)
def test_a_folder_that_cannot_hold_results_is_named(tmp_path, what):
    folder = unusable(tmp_path)[what]
    with pytest.raises(ConfigError) as caught:
        check_results(folder)
    message = str(caught.value)
    assert message.startswith(f"results_dir={folder} is not a writable folder (")
    assert "\n" not in message


def test_the_command_says_so_before_it_trains(tmp_path):
    (tmp_path / "file").write_text("")
    for flag in ((), ("-m",), ("-m", "launcher=parallel")):
        line = refused(train(*flag, *FAST, "results_dir=file", cwd=tmp_path))
        assert "results_dir=file is not a writable folder" in line
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_a_file_system_that_is_read_only(tmp_path):
    place = tmp_path / "read only"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", place], check=False, capture_output=True
    ).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        line = refused(train(*FAST, f"results_dir={place}/results", cwd=tmp_path))
    finally:
        subprocess.run(["umount", place], check=True)
    assert "Read-only file system" in line


@pytest.mark.slow
def test_a_run_lands_in_the_same_place_wherever_hydra_goes(tmp_path):
    name = "results (1), a=b #ü"
    first = train(*FAST, "trainer.epochs=0.2", f"results_dir={name}", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    again = train(*FAST, "trainer.epochs=0.2", f"results_dir={name}", "hydra.job.chdir=true", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert again.stdout == first.stdout.splitlines(keepends=True)[-1]
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert len(list((tmp_path / name / "runs").iterdir())) == 1


@pytest.mark.slow
def test_groups_that_do_not_divide_the_channels_fail_in_one_line(tmp_path):
    done = train(*FAST, "norm=group", "norm.groups=7", cwd=tmp_path)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert re.search(
        r"norm\.groups=7 does not divide the \d+ channels of \S+: norm\.groups=4 fits all", line
    ), line


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["local", pytest.param("parallel", marks=pytest.mark.long)])
def test_what_is_impossible_only_together_fails_alone(tmp_path, launcher):
    sweep = ("trainer.batch_size=64,600", "dataset.subset=500,600", f"launcher={launcher}")
    done = train("-m", *FAST, "trainer.epochs=0.2", "trainer.progress=quiet", *sweep, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "4 runs: 1 failed, 3 finished" in done.stdout
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("failed: ")]
    assert "trainer.batch_size=600 dataset.subset=500: trainer.batch_size=600 is more than" in line
    assert len(list((tmp_path / "results" / "runs").iterdir())) == 3
