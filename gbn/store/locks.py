"""One process a run: a lock on the run's folder that ends with its process, however that ends.

``flock`` belongs to the open file, so the kernel drops it at any death of the process, kill -9 included, and
no stale lock has ever to be cleared. The lock file itself stays: removing it would let two processes lock two
files of the same name.
"""

import contextlib
import json
import os
import socket
import time
import weakref
from pathlib import Path
from types import TracebackType

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

FILE = "lock"

#: Somebody who only asks (:func:`is_locked`) holds the file for microseconds; a taker outlasts that.
_PATIENCE_SECONDS = 0.25

_held: "weakref.WeakSet[RunLock]" = weakref.WeakSet()


class LockedError(RuntimeError):
    """Another process (or another writer of this one) is working on the run."""


class RunLock:
    """An exclusive lock on a run's folder; a context manager.

    A forked child (a data worker, say) gives its copy up at once: otherwise an orphan would hold the run of a
    killed parent.

    Raises (on entering):
        LockedError: the folder is locked; the message names the process that holds it.
        RuntimeError: the system has no POSIX file locks.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock, or raise LockedError."""
        if self._descriptor is not None:
            raise LockedError(f"{self.folder} is already locked by this very lock: enter it once")
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = _open(self.folder / FILE)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not _try(descriptor, fcntl.LOCK_EX):
            if time.monotonic() >= deadline:
                holder = _holder(self.folder / FILE)
                os.close(descriptor)
                raise LockedError(
                    f"run {self.folder.name} is being written by {holder}: "
                    f"wait for it, or stop it and start again (it goes on from its checkpoint)"
                )
            time.sleep(0.01)
        note = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, note.encode(), 0)
        self._descriptor = descriptor
        _held.add(self)

    def release(self) -> None:
        """Give the lock up; harmless when it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        _held.discard(self)

    @property
    def held(self) -> bool:
        """Whether this object holds the lock now."""
        return self._descriptor is not None

    def __enter__(self) -> "RunLock":
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def is_locked(folder: str | Path) -> bool:
    """Whether some process is writing the run in this folder."""
    path = Path(folder) / FILE
    if not path.exists():
        return False
    descriptor = _open(path)
    try:
        return not _try(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    if fcntl is None:
        raise RuntimeError("the run store needs POSIX file locks: use Linux, macOS or WSL")
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _try(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(path: Path) -> str:
    try:
        note = json.loads(path.read_text())
        return f"process {note['pid']} on {note['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _forget_in_child() -> None:
    for lock in list(_held):
        with contextlib.suppress(OSError):
            lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
