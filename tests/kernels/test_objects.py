"""Machine code that is made in child processes and kept on disk: what may go wrong, each really done."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch

from gbn import kernels
from gbn.kernels.numba import cache, objects
from gbn.kernels.numba.compiling import SYMBOL
from gbn.kernels.numba.target import this_machine
from gbn.nn import GeneralizedBatchNorm2d

#: The entry point that is quickest to compile.
NAME = "gbn.kernels.numba.precondition:plane_sums"
ROOT = Path(__file__).resolve().parents[2]


#: The compiler's process with that folder only.
ALONE = """
import gbn.kernels.numba.build as build, gbn.kernels.numba.cache as cache, llvmlite.binding as llvm, os, pathlib
cache._folders = lambda: [pathlib.Path(os.environ["NUMBA_CACHE_DIR"])]
"""


@pytest.fixture
def afresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Nothing is loaded, nothing has failed, and the only cache is an empty folder."""
    for name in ("_pending", "_loaded", "_broken"):
        monkeypatch.setattr(objects, name, {})
    monkeypatch.setattr(objects, "_working", set())
    folder = tmp_path / "cache"
    monkeypatch.setattr(cache, "_folders", lambda: [folder])
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(folder))
    monkeypatch.setattr(objects, "_command", lambda: _command(ALONE + "build.main()"))
    yield folder
    objects._say_unkept.cache_clear()


def _command(text: str) -> list[str]:
    return [sys.executable, "-c", text]


def _again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a new process would begin."""
    for name in ("_pending", "_loaded", "_broken"):
        monkeypatch.setattr(objects, name, {})


def test_an_object_is_made_once_and_then_read(afresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert objects.entry(NAME).address
    (kept,) = afresh.glob("*.gbn")
    _again(monkeypatch)
    monkeypatch.setattr(objects, "_command", lambda: pytest.fail("compiled again"))
    assert objects.entry(NAME).address
    assert [*afresh.iterdir()] == [kept]  # neither locks nor half-written files stay


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "foreign", "a folder"])
def test_a_damaged_object_is_made_again(damage: str, afresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects.entry(NAME)
    (kept,) = afresh.glob("*.gbn")
    good = kept.read_bytes()
    if damage == "a folder":
        kept.unlink()
        kept.mkdir()
    else:
        flipped = bytearray(good)
        flipped[len(good) // 2] ^= 1
        kept.write_bytes(
            {"empty": b"", "cut": good[:1000], "flipped": flipped, "foreign": b"x" * 5000}[damage]
        )
    assert cache.read(NAME, this_machine()) is None
    _again(monkeypatch)
    assert objects.entry(NAME).address
    if damage != "a folder":
        assert kept.read_bytes()[:32] == good[:32]


def test_a_cache_of_another_processor_is_left_alone(afresh: Path) -> None:
    mine = this_machine()
    other = type(mine)(mine.triple, "x86-64-v9", mine.features)
    cache.write(NAME, other, b"code")
    assert cache.read(NAME, mine) is None
    assert cache.read(NAME, other) == b"code"


def test_where_nothing_can_be_written_kernels_work_and_a_line_says_what_to_do(
    afresh: Path, caplog: pytest.LogCaptureFixture
) -> None:
    afresh.write_text("a file in the folder's place")
    with caplog.at_level(logging.WARNING):
        assert objects.entry(NAME).address
        objects._say_unkept("again")
    said = [record.getMessage() for record in caplog.records if "NUMBA_CACHE_DIR" in record.getMessage()]
    assert len(said) == 2  # once for each reason
    assert "cannot be kept on disk" in said[0]


def test_a_read_only_cache_beside_the_sources_is_used(afresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = b"code"
    cache.write(NAME, this_machine(), code)
    writable = afresh.parent / "other"
    monkeypatch.setattr(cache, "_folders", lambda: [writable, afresh])
    afresh.chmod(0o500)
    try:
        assert cache.read(NAME, this_machine()) == code
        cache.write(NAME, this_machine(), code)
    finally:
        afresh.chmod(0o700)
    assert len([*writable.iterdir()]) == 1


def test_a_full_disk_leaves_nothing_behind(afresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        with path.open("wb") as opened:
            opened.write(content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        cache.write(NAME, this_machine(), b"code")
    assert [*afresh.iterdir()] == []


ENDS = {
    "assertion": ("import os; os.abort()", "ended by SIGABRT"),
    "out of memory": ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "ended by SIGKILL"),
    "exception": ("raise SystemError('no code generator')", "no code generator"),
    "half an answer": (
        f"import json; print(json.dumps(dict(name={NAME!r}, size=99, unkept=''))); print('abc')",
        "status 0",
    ),
    "no Python": (None, "No such file"),
}


@pytest.mark.parametrize("end", ENDS)
def test_the_compilers_death_leaves_the_reference(
    end: str, afresh: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The network trains on; why, how to report it and what to do without is said once."""
    text, reason = ENDS[end]
    command = ["/nowhere/python"] if text is None else _command(f"import sys; sys.stdin.read(); {text}")
    monkeypatch.setattr(objects, "_command", lambda: command)
    layer = GeneralizedBatchNorm2d(3, quadrangle="cvar", act="relu")
    x = torch.randn(4, 3, 5, 5, requires_grad=True)
    with caplog.at_level(logging.WARNING):
        y = layer(x)
        y.backward(torch.randn_like(y))
        assert kernels.implementation(x, layer.pair.statistic, layer.pair.deviation) == "reference"
    with kernels.using("reference"):
        torch.testing.assert_close(
            y, GeneralizedBatchNorm2d(3, quadrangle="cvar", act="relu")(x), rtol=0, atol=0
        )
    said = [
        record.getMessage() for record in caplog.records if "cannot be compiled here" in record.getMessage()
    ]
    assert len(said) == 1
    assert reason in said[0]
    assert "report" in said[0]
    assert "GBN_KERNELS=reference" in said[0]
    (failure,) = objects.failures()
    assert reason in failure


def test_code_that_calls_what_is_not_there_is_not_loaded(
    afresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As half precision did without F16C: LLVM calls a function of its own library for it."""
    text = """
lines = "declare void @nowhere()", "define void @gbn_entry(i64 %a) {", "call void @nowhere()", "ret void", "}"
build.machine_code = lambda function, target: target.machine().emit_object(llvm.parse_assembly(chr(10).join(lines)))
build.main()
"""
    monkeypatch.setattr(objects, "_command", lambda: _command(ALONE + text))
    with pytest.raises(objects.CompilationFailed, match="calls nowhere"):
        objects.entry(NAME)
    assert [*afresh.glob("*")] == []


def test_a_forked_child_compiles_what_its_parent_was_about_to(afresh: Path) -> None:
    objects._pending["one"], objects._pending["other"] = done, begun = Future(), Future()
    done.set_result(b"")
    objects._lock.acquire()
    objects._forget()
    assert objects._pending == {"one": done}
    assert not objects._lock.locked()
    assert not begun.done()


def test_a_compiler_that_hangs_is_ended(afresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "LIMIT", 0.5)
    monkeypatch.setattr(objects, "_command", lambda: _command("import time; time.sleep(600)"))
    with pytest.raises(objects.CompilationFailed, match="took more than"):
        objects.entry(NAME)


def test_what_is_asked_for_at_once_by_many_threads_is_compiled_once(
    afresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = []
    run = objects._run
    monkeypatch.setattr(
        objects, "_run", lambda waiting, target: begun.append(list(waiting)) or run(waiting, target)
    )
    threads = [threading.Thread(target=objects.entry, args=(NAME,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert begun == [[NAME]]


def test_processes_that_fill_one_cache_make_each_object_once(afresh: Path) -> None:
    text = """
made = build.made
build.made = lambda *a: (print("made", flush=True), made(*a))[1]
build.main()
"""
    mine = this_machine()
    told = f'[["{NAME}"], "{mine.triple}", "{mine.cpu}", "{mine.features}"]'
    children = [
        subprocess.Popen(
            _command(ALONE + text),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
        )
        for _ in range(3)
    ]
    ends = [child.communicate(told.encode(), timeout=300) for child in children]
    assert [child.returncode for child in children] == [0, 0, 0]
    assert sum(errors.decode().split().count("made") for _, errors in ends) == 1
    assert len({out for out, _ in ends}) == 1


def test_names_agree() -> None:
    assert objects._SYMBOL == SYMBOL


def test_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    folders = cache._folders()
    assert folders[0] == tmp_path
    assert folders[1].parent.name == "numba"
    assert folders[2] == tmp_path / "own" / "gbn"
    monkeypatch.delenv("NUMBA_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # nobody's home
    assert cache._folders() == [folders[1]]


def test_machine_code_is_told_from_that_of_other_sources() -> None:
    """Every file with a compiled function counts: code of an older version of it would run in silence."""
    sources = cache._sources()
    compiled = [
        path
        for folder in (ROOT / "gbn/kernels/numba", ROOT / "gbn/kernels/mixture/numba")
        for path in folder.glob("*.py")
        if re.search(
            r"^@(compiled|inlined|entry_point|intrinsic)", path.read_text(encoding="utf-8"), re.MULTILINE
        )
    ]
    assert len(compiled) > 20
    assert {*compiled} <= {*sources}
    assert ROOT / "gbn/kernels/plan.py" in sources


def test_a_compiler_that_dies_before_it_is_told_what_to_do_is_known_by_its_signal(
    afresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.wait()

    monkeypatch.setattr(objects, "_command", lambda: _command("import os; os.abort()"))
    monkeypatch.setattr(objects.subprocess, "Popen", Died)
    with pytest.raises(objects.CompilationFailed, match="SIGABRT"):
        objects.entry(NAME)


def test_a_run_says_which_kernels_it_had(
    afresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(objects, "_command", lambda: _command("import os; os.abort()"))
    from gbn.config.compose import compose
    from gbn.engine.run import run

    overrides = ["norm=gbn_cvar", "model=mlp", "dataset=digits", "trainer.epochs=1", "trainer.progress=quiet"]
    outcome = run(compose([*overrides, f"results_dir={tmp_path}"]))
    assert outcome.status == "finished"
    (folder,) = (tmp_path / "runs").iterdir()
    (segment,) = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    assert segment["kernels"] == "numba then reference"
    assert "SIGABRT" in segment["kernel_failures"][0]
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["environment"]["kernels"] == "numba then reference"
