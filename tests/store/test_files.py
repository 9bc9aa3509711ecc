"""Files are replaced whole, also where a reader of the old one stands in the way for a moment."""

import os
import subprocess
import sys

import pytest

from gbn.store import RunStore, files
from gbn.store.archive import Archive
from gbn.studies.validation.simulate import Arm, SimulatedGrid


@pytest.mark.parametrize("refusals", [0, 3])
def test_windows_is_asked_again_until_the_reader_is_gone(tmp_path, monkeypatch, refusals):
    real, asked = os.replace, []

    def replace(new, path):
        asked.append(path)
        if len(asked) <= refusals:
            raise PermissionError(13, "Access is denied")
        real(new, path)

    monkeypatch.setattr(files.os, "replace", replace)
    monkeypatch.setattr(files.sys, "platform", "win32")
    path = tmp_path / "summary.json"
    path.write_text("old", encoding="utf-8")
    files.write_atomically(path, "µ\n")
    assert len(asked) == refusals + 1
    assert path.read_bytes() == b"\xc2\xb5\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("platform", ["linux", "win32"])
def test_a_file_that_cannot_be_replaced_is_an_error(tmp_path, monkeypatch, platform):
    waited = []

    def refuse(new, path):
        raise PermissionError(13, "Access is denied")

    monkeypatch.setattr(files.os, "replace", refuse)
    monkeypatch.setattr(files.sys, "platform", platform)
    monkeypatch.setattr(files.time, "sleep", waited.append)
    with pytest.raises(PermissionError):
        files.write_atomically(tmp_path / "summary.json", "new")
    assert list(tmp_path.iterdir()) == []
    assert bool(waited) == (platform == "win32")


@pytest.fixture
def full_disk():
    """No file of this process grows beyond 100 bytes."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, full_disk):
    path = tmp_path / "summary.json"
    path.write_text("old")
    with pytest.raises(OSError, match="File too large"):
        files.write_atomically(path, "x" * 1000)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


KILLED = """
import os, sys, time
from pathlib import Path
from gbn.store import files
os.fsync = lambda _: (print("written", flush=True), time.sleep(600))
files.write_atomically(Path(sys.argv[1]), "new")
"""


@pytest.fixture
def killed():
    """Replace a file in a process that is killed before the replacement; what it leaves behind."""

    def kill(path):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "written\n"
        process.kill()
        process.wait()
        process.stdout.close()
        (left,) = path.parent.glob("*.tmp")
        return left

    return kill


def test_what_a_killed_writer_left_goes_when_the_next_one_enters(tmp_path, killed):
    store = RunStore(tmp_path)
    with store.writer("run") as writer:
        writer.append({"update": 1})
    left = killed(store.path("run") / "config.yaml")
    with store.writer("run"):
        assert not left.exists()
    assert {path.name for path in store.path("run").iterdir()} == {"lock", "metrics.jsonl"}


def test_where_no_lock_tells_only_old_leftovers_go(tmp_path):
    (tmp_path / "archive").mkdir()
    old, new = (tmp_path / "archive" / f".{age}.123.tmp" for age in ("old", "new"))
    for path in (old, new):
        path.touch()
    os.utime(old, (1000, 1000))
    Archive(tmp_path).add(SimulatedGrid({"bn": Arm()}, seeds=range(2), points=5).records(), "quick")
    assert (old.exists(), new.exists()) == (False, True)
