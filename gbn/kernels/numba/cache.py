"""Machine code of kernels on disk: one file per entry point's object.

A file's name encodes everything that determines its content (sources, versions, processor). Its first bytes are a
digest of the rest, so that a truncated, empty or modified file is made again.

Folders, in this order: ``NUMBA_CACHE_DIR``; next to the sources; the user's cache folder. All are read; the first
writable one is written. If none is, or the disk is full, each process compiles what it needs.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from .target import Target

__all__ = ["lock_of", "read", "write"]

_log = logging.getLogger(__name__)

_SOURCES = Path(__file__).resolve().parent.parent  # gbn/kernels
#: Sources in the same folders that no machine code is made from.
_OF_CALLERS = ("__init__", "build", "cache", "launch", "objects")
_DIGEST = hashlib.sha256().digest_size


@functools.cache
def _stamp() -> bytes:
    """Return a digest of all sources that machine code is made from, and of the tools that make it."""
    packages = [f"{name} {version(name)}" for name in ("numba", "llvmlite", "numpy")]
    sources = [*sorted(_SOURCES.glob("cpu/*.py")), *sorted(_SOURCES.glob("mixture/numba/*.py"))]
    made = hashlib.sha256(" ".join([*packages, sys.version]).encode())
    for path in (_SOURCES / "plan.py", *sources):
        if not path.name.startswith(_OF_CALLERS):
            made.update(path.read_bytes())
    return made.digest()


def _file(name: str, target: Target) -> str:
    made = hashlib.sha256(_stamp() + repr((name, target)).encode()).hexdigest()
    return f"{name.rpartition('.')[2].replace(':', '-')}-{made[:32]}.gbn"


def _folders() -> list[Path]:
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if sys.platform == "win32":
        own = os.environ.get("LOCALAPPDATA")
    else:
        own = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folders = [Path(chosen)] if chosen else []
    folders.append(_SOURCES / "cpu" / "__pycache__")
    if own and os.path.isabs(own):
        folders.append(Path(own) / "gbn")
    return folders


def read(name: str, target: Target) -> bytes | None:
    """Return the object file of an entry point if there is an undamaged one in the cache."""
    file = _file(name, target)
    for folder in _folders():
        try:
            whole = (folder / file).read_bytes()
        except OSError:
            continue
        digest, code = whole[:_DIGEST], whole[_DIGEST:]
        if hashlib.sha256(code).digest() == digest:
            return code
        _log.info("%s is damaged: it is ignored and made again", folder / file)
    return None


def write(name: str, target: Target, code: bytes) -> None:
    """Store an object atomically; raise OSError if no folder takes it."""
    file, failure = _file(name, target), OSError("there is no folder to write to")
    for folder in _folders():
        temporary = folder / f"{file}.{os.getpid()}.tmp"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            temporary.write_bytes(hashlib.sha256(code).digest() + code)
            os.replace(temporary, folder / file)
            return
        except OSError as error:
            failure = error
            with contextlib.suppress(OSError):
                temporary.unlink()
    raise failure


def lock_of(name: str, target: Target) -> Path:
    """Return a file that is held locked by whoever compiles an entry point."""
    for folder in _folders():
        if os.access(folder, os.W_OK):
            return folder / f"{_file(name, target)}.lock"
    return Path(tempfile.gettempdir()) / f"{_file(name, target)}.lock"
