"""What runs here runs without POSIX, where text is not UTF-8 by default, and where a terminal knows ASCII alone."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = [*(ROOT / "gbn").rglob("*.py"), *(ROOT / "scripts").glob("*.py")]
ELSEWHERE = ("fcntl", "resource", "termios", "pwd", "grp")
ABSENT = (
    "fork",
    "register_at_fork",
    "sched_getaffinity",
    "pread",
    "pwrite",
    "sysconf",
    "killpg",
    "setsid",
    "wait4",
    "posix_fadvise",
)

WITHOUT_POSIX = f"""
import os, pathlib, pkgutil, signal, sys, types

import hydra, numba, pandas, pyarrow, pydantic, rich, scipy, torch  # what these need is theirs to find

for name in {ELSEWHERE}:
    sys.modules[name] = None
for name in {ABSENT}:
    delattr(os, name)
for name in ("SIGKILL", "SIGHUP"):
    delattr(signal, name)
reading = pathlib.Path.read_text

def read_text(path, *arguments, **options):
    if path.is_relative_to("/proc"):
        raise FileNotFoundError(path)
    return reading(path, *arguments, **options)

pathlib.Path.read_text = read_text
held = set()

def locking(descriptor, kind, count):
    if (kind == 2) == (descriptor in held):
        raise PermissionError(13, "Permission denied")
    held.symmetric_difference_update([descriptor])

sys.modules["msvcrt"] = types.SimpleNamespace(LK_NBLCK=2, LK_UNLCK=0, locking=locking)

import gbn

for module in pkgutil.walk_packages(gbn.__path__, "gbn."):
    if not module.name.startswith(("gbn.kernels.triton", "gbn.plot_style")):
        __import__(module.name)
from gbn.config.compose import compose
from gbn.engine.run import run
from gbn.store import RunStore

outcome = run(compose(sys.argv[1:]))
assert outcome.status == "finished", outcome.message
summary = RunStore(compose(sys.argv[1:]).results_dir).load(outcome.run_id).summary
assert summary["startup"] is None and summary["foreign_share"] is None, summary
assert not held
"""


@pytest.mark.slow
def test_every_module_loads_and_a_run_is_trained_without_posix(tmp_path):
    small = ("model=mlp", "model.width=0.125", "trainer.epochs=1", "trainer.evaluation.points=2")
    options = ("tracker.mode=disabled", "trainer.progress=quiet", f"results_dir={tmp_path}")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", WITHOUT_POSIX, *small, *options],
        cwd=ROOT,
        env={**os.environ, "GBN_KERNELS": "reference"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def opens_text(call):
    """Whether a call opens a text file: Path.read_text, Path.write_text, open, Path.open."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name in ("read_text", "write_text"):
        return True
    if name != "open" or (
        isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) in ("os", "Image")
    ):
        return False
    given = [*call.args, *(keyword.value for keyword in call.keywords if keyword.arg == "mode")]
    modes = [one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    return not any("b" in mode and len(mode) <= 3 for mode in modes)


def test_text_files_are_opened_with_their_encoding():
    """Python's own choice is the system's: of Windows, say, cp1252, which has no sigma."""
    missing = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Call) and opens_text(node)
        if "encoding" not in {keyword.arg for keyword in node.keywords}
    ]
    assert not missing


@pytest.mark.parametrize(("encoding", "shown"), [("utf-8", "0.50 ± 0.01"), ("ascii", "0.50 ? 0.01")])
def test_a_terminal_that_lacks_a_character_shows_a_question_mark(encoding, shown):
    code = "from gbn import cli; cli.leave_with(lambda: print('0.50 \\xb1 0.01') or 0)"
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stdout.decode(encoding).strip()) == (0, shown)
