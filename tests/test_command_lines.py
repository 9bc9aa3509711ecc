"""Whatever is wrong with a command line of train.py is one line and status 2, before anything is written."""

import contextlib
import io
import os
import sys

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gbn import cli
from gbn.cli import train
from gbn.config.compose import compose
from tests import command_lines, schema_keys

MANY = 8 * settings().max_examples  # each takes some milliseconds
FIXTURES = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


class Accepted(BaseException):
    """A command line has passed all checks."""


@pytest.fixture(scope="module")
def module():
    def accepted(results_dir):
        raise Accepted(results_dir)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "check_results", accepted)  # the first that writes
        yield


@pytest.fixture
def main(module, tmp_path, monkeypatch):
    """Calls train.py's main in an empty folder; its status, or "accepted", and what it wrote to standard error."""
    monkeypatch.chdir(tmp_path)

    def call(arguments):
        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                cli.main("train")
            except Accepted:
                status = "accepted"
            except SystemExit as ended:
                status = ended.code
        assert os.listdir(tmp_path) == []
        if status == 2:
            assert out.getvalue() == ""
            (line,) = err.getvalue().splitlines()
            assert line.startswith("error: ")
            assert not line.endswith("allowed: none")
            for inside in (
                "constrained",
                "literal[",
                "full_key",
                "object_type",
                "Traceback",
                "Set[str]",
            ):
                assert inside not in line
        return status, err.getvalue()

    return call


@settings(max_examples=MANY, suppress_health_check=FIXTURES)
@given(line=st.one_of(command_lines.wrong_lines(), command_lines.unasked_sweeps()))
def test_a_wrong_line_is_one_line_and_status_2(main, line):
    status, _ = main(line)
    assert status == 2, line


@settings(max_examples=MANY // 4, suppress_health_check=FIXTURES)
@given(line=command_lines.wrong_lines(), other=command_lines.valid_lines())
def test_a_wrong_line_stays_wrong_in_a_sweep(main, line, other):
    flag = [] if "-m" in line else ["-m"]
    status, _ = main([*other, *flag, *line])
    assert status == 2, line


@settings(max_examples=MANY, suppress_health_check=FIXTURES)
@given(line=command_lines.any_lines())
@example(["-"])
@example(["--"])
@example([""])
@example([" "])
@example(["seed=1", "", "seed=2"])
def test_any_line_is_accepted_or_refused(main, line):
    status, _ = main(
        [word for word in line if not word.startswith(("-h", "--h", "-c", "--c", "-i", "--i", "-s"))]
    )
    assert status in (2, "accepted"), line


@settings(max_examples=MANY, suppress_health_check=FIXTURES)
@given(line=command_lines.valid_lines())
def test_a_valid_line_composes(line):
    compose(line)


@settings(max_examples=MANY // 4)
@given(text=st.text("ab1.=,()[]{}#~@%&*+-?!/ |<>^ü日", min_size=1, max_size=12))
@example("a b")
@example("007")
@example("a=b")
def test_a_folder_has_any_name(text):
    text = f"x{text.strip()}"
    assert compose([f"results_dir={text}"]).results_dir == text


def test_a_folder_in_the_home_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = compose(["results_dir=~/a b", "dataset.root=~/c,d"])
    assert (config.results_dir, config.dataset.root) == (f"{tmp_path}/a b", f"{tmp_path}/c,d")


def test_no_key_is_left_out():
    names = {key.name for key in schema_keys.all_keys()}
    assert len(names) > 100
    assert {
        "optimizer.bnp.rho",
        "dataset.warp.sigma",
        "norm._target_",
        "trainer.attack.constant",
        "seed",
    } <= names
