"""Machine code of kernels: read from the cache (:mod:`.cache`) or made by child processes, then loaded into this one.

An entry point is named ``module:function`` or ``module:function:components``. Its object is made in a child process
(:mod:`.build`), because an internal error of the compiler ends its process. What is requested together is compiled
together, in two processes if there are cores for them.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable
from concurrent.futures import Future
from typing import IO, Any

from . import cache
from .target import Target, this_machine

__all__ = ["CompilationFailed", "Entry", "entry", "failures", "prepare", "working"]

_log = logging.getLogger(__name__)

#: Seconds that a compilation may take: many times what it takes on an old core, for machines that are busy.
LIMIT = 600.0


#: The C function's name in every object file (:data:`.compiling.SYMBOL`; importing that would import numba).
_SYMBOL = "gbn_entry"


class CompilationFailed(RuntimeError):
    """An entry point has no machine code on this machine; the message says why."""


class Entry:
    """An entry point loaded into this process.

    Attributes:
        address: of the C function ``void (int64)``.
        ctypes: the same function, callable from Python.
    """

    def __init__(self, name: str, code: bytes) -> None:
        import llvmlite.binding as llvm

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), this_machine().machine())
        try:
            self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
            self._engine.finalize_object()
        except RuntimeError as error:
            raise CompilationFailed(f"{name}: its object cannot be loaded ({error})") from error
        self.address = self._engine.get_function_address(_SYMBOL)
        if self.address == 0:
            raise CompilationFailed(f"{name}: its object lacks {_SYMBOL!r}")
        self.ctypes = ctypes.CFUNCTYPE(None, ctypes.c_int64)(self.address)


_pending: dict[str, Future[bytes]] = {}
_lock = threading.Lock()


def _forget() -> None:
    """Drop unfinished compilations in a forked child, which lacks its parent's threads; it requests them again."""
    global _lock
    _lock = threading.Lock()
    for name in [name for name, future in _pending.items() if not future.done()]:
        del _pending[name]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def prepare(names: Iterable[str]) -> None:
    """Start compiling what the cache lacks, without waiting for it."""
    target = this_machine()
    with _lock:
        lacking: dict[str, Future[bytes]] = {}
        for name in dict.fromkeys(names):
            if name in _pending:
                continue
            future: Future[bytes] = Future()
            _pending[name] = future
            code = cache.read(name, target)
            if code is None:
                lacking[name] = future
            else:
                future.set_result(code)
        if not lacking:
            return
        _log.warning(
            "compiling kernels for this processor (%s): %s; this takes ten seconds or more, once on this machine",
            target.cpu,
            ", ".join(name.partition(":")[2] for name in lacking),
        )
        # the first, which measures or runs forward, takes about as long as the others together
        alone = 1 if (os.cpu_count() or 1) > 1 else len(lacking)
        waiting = list(lacking.items())
        for share in filter(None, (waiting[:alone], waiting[alone:])):
            threading.Thread(
                target=_watch, args=(dict(share), target), daemon=True, name="gbn-compile"
            ).start()


def _command() -> list[str]:
    # the child must find gbn where this process found it
    path = [entry for entry in sys.path if entry] + [os.getcwd()] * ("" in sys.path)
    start = f"import sys; sys.path[:] = {path!r}; from gbn.kernels.numba.build import main; main()"
    return [sys.executable, "-c", start]


def _watch(waiting: dict[str, Future[bytes]], target: Target) -> None:
    """Run one child to its end, and deliver what it made or why it made nothing."""
    reason = "the compiler ended without a message"
    try:
        reason = _run(waiting, target)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    finally:
        for name, future in waiting.items():
            if not future.done():
                future.set_exception(CompilationFailed(f"{name}: {reason}"))


def _run(waiting: dict[str, Future[bytes]], target: Target) -> str:
    quiet = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "GBN_KERNELS": "reference"}
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            _command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=os.environ | quiet,
        )
        late = threading.Timer(LIMIT, child.kill)
        late.daemon = True
        late.start()
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            # if it has already died, its exit status says more than the broken pipe
            with contextlib.suppress(BrokenPipeError), child.stdin as told:
                told.write(json.dumps([list(waiting), target.triple, target.cpu, target.features]).encode())
            with child.stdout as stream:
                while head := stream.readline():
                    _receive(json.loads(head), stream, waiting)
            status = child.wait()
        finally:
            timed_out = not late.is_alive()
            late.cancel()
            child.kill()
            child.wait()
        errors.seek(0)
        last = errors.read()[-2000:].decode(errors="replace").strip()
    return _why(status, timed_out) + (f"; its last words: {last}" if last else "")


def _receive(head: dict[str, Any], stream: IO[bytes], waiting: dict[str, Future[bytes]]) -> None:
    name = head["name"]
    if "error" in head:
        waiting[name].set_exception(CompilationFailed(f"{name}: {head['error']}"))
        return
    code = stream.read(head["size"])
    if len(code) == head["size"]:
        if head["unkept"]:
            _say_unkept(head["unkept"])
        waiting[name].set_result(code)


@functools.cache
def _say_unkept(why: str) -> None:
    _log.warning(
        "compiled kernels cannot be kept on disk (%s): each process compiles them again; name a folder that can be "
        "written in the environment variable NUMBA_CACHE_DIR",
        why,
    )


def _why(status: int, timed_out: bool) -> str:
    if timed_out:
        return f"compiling took more than {LIMIT:.0f} seconds"
    if status >= 0:
        return f"the compiler's process ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    return f"the compiler's process was ended by {name}"


_loaded: dict[str, Entry] = {}


def entry(name: str) -> Entry:
    """Return an entry point, loaded; wait for its compilation.

    Raises:
        CompilationFailed: it has no machine code here.
    """
    found = _loaded.get(name)
    if found is None:
        prepare([name])
        found = _loaded[name] = Entry(name, _pending[name].result())
    return found


_working: set[tuple[str, ...]] = set()
_broken: dict[tuple[str, ...], str] = {}


def working(names: tuple[str, ...]) -> bool:
    """Return whether all these entry points work here; compile what the cache lacks. Failures are logged once."""
    if names in _working:
        return True
    if names in _broken:
        return False
    prepare(names)
    try:
        for name in names:
            entry(name)
    except CompilationFailed as error:
        if str(error) not in _broken.values():
            _log.warning(
                "gbn's fused kernels cannot be compiled here (%s): eager reference kernels, which are several times "
                "slower, are used instead. Please report this line with the output of `python -m numba -s`; "
                "GBN_KERNELS=reference does without the fused kernels",
                error,
            )
        _broken[names] = str(error)
        return False
    _working.add(names)
    return True


def failures() -> list[str]:
    """Return why requested entry points do not work here; empty if all do."""
    return sorted(set(_broken.values()))
