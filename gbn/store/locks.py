"""One process per run: a lock on the run's folder that ends with its process, however the process ends.

A lock (``flock``, on Windows ``LockFile``) belongs to the open file, so the system drops it whenever the process
dies, kill -9 included, and there are no stale locks to clear. The lock file itself stays: removing it would let two
processes lock two files of the same name.
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
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]
    import msvcrt

FILE = "lock"

#: :func:`is_locked` holds the file for microseconds; acquiring the lock waits longer than that.
_PATIENCE_SECONDS = 0.25

#: The byte locked on Windows: far past the note, since other processes cannot read a locked byte there.
_BYTE = 1 << 20

_held: "weakref.WeakSet[RunLock]" = weakref.WeakSet()


class LockedError(RuntimeError):
    """The run is locked by another process, or by another writer in this one."""


class RunLock:
    """An exclusive lock on a run's folder; a context manager.

    A forked child (a data worker, say) drops its copy at once: otherwise an orphan would keep the run of a killed
    parent locked.

    Raises (on entry):
        LockedError: the folder is locked; the message names the process that holds it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock, or raise :class:`LockedError`."""
        if self._descriptor is not None:
            raise LockedError(f"{self.folder} is already locked by this very lock: enter it once")
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor = _open(self.folder / FILE)
        if not _outlasting(descriptor):
            holder = _holder(self.folder / FILE)
            os.close(descriptor)
            raise LockedError(
                f"run {self.folder.name} is being written by {holder}: "
                f"wait for it, or stop it and start again (it resumes from its checkpoint)"
            )
        note = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, note.encode())
        self._descriptor = descriptor
        _held.add(self)

    def release(self) -> None:
        """Release the lock; does nothing if it is not held."""
        if self._descriptor is not None:
            _close(self._descriptor)
            self._descriptor = None
        _held.discard(self)

    @property
    def held(self) -> bool:
        """True if this object holds the lock now."""
        return self._descriptor is not None

    def __enter__(self) -> "RunLock":
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def is_locked(folder: str | Path) -> bool:
    """Return whether a process is writing the run in this folder."""
    path = Path(folder) / FILE
    if not path.exists():
        return False
    descriptor = _open(path)
    try:
        if fcntl is not None:
            return not _try(descriptor, shared=True)
        return not _outlasting(descriptor)  # no shared locks: another process may be checking too
    finally:
        _close(descriptor)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o644)  # not inherited by child programs


def _outlasting(descriptor: int) -> bool:
    """Take the lock, waiting for brief checks by others to end; return False if it stays taken."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not _try(descriptor):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.01)
    return True


def _try(descriptor: int, shared: bool = False) -> bool:
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        else:
            os.lseek(descriptor, _BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    except (BlockingIOError, PermissionError):  # how Linux and Windows report a taken lock
        return False
    return True


def _close(descriptor: int) -> None:
    if fcntl is None:  # closing a file on Windows does not unlock it at once
        os.lseek(descriptor, _BYTE, os.SEEK_SET)
        with contextlib.suppress(PermissionError):  # it was not locked
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
    os.close(descriptor)


def _holder(path: Path) -> str:
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        return f"process {note['pid']} on {note['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"


def _forget_in_child() -> None:
    for lock in list(_held):
        with contextlib.suppress(OSError):
            lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)
