"""One process a run: across processes, through kill -9, and over forks."""

import os
import subprocess
import sys
import textwrap

import pytest

from gbn.store import locks
from gbn.store.locks import LockedError, RunLock, is_locked

HOLDER = textwrap.dedent(
    """
    import sys
    from gbn.store.locks import RunLock
    with RunLock(sys.argv[1]):
        print("held", flush=True)
        sys.stdin.read()  # until it is killed
    """
)


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


def test_a_second_process_is_refused_and_told_who_holds_the_run(tmp_path, holder):
    assert is_locked(tmp_path)
    with pytest.raises(LockedError, match=rf"process {holder.pid} on .*: wait for it"):
        RunLock(tmp_path).acquire()


def test_kill_9_frees_the_run(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert not is_locked(tmp_path)
    with RunLock(tmp_path) as lock:
        assert lock.held
        assert is_locked(tmp_path)


def test_two_locks_of_one_process_exclude_each_other(tmp_path):
    with RunLock(tmp_path), pytest.raises(LockedError):
        RunLock(tmp_path).acquire()
    with RunLock(tmp_path):
        pass


def test_one_lock_is_not_entered_twice(tmp_path):
    with RunLock(tmp_path) as lock, pytest.raises(LockedError, match="enter it once"):
        lock.acquire()


def test_release_is_harmless_twice(tmp_path):
    lock = RunLock(tmp_path)
    lock.acquire()
    lock.release()
    lock.release()
    assert not lock.held


def test_a_folder_without_a_lock_file_is_free_and_stays_untouched(tmp_path):
    assert not is_locked(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_asking_does_not_make_a_taker_fail(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "_PATIENCE_SECONDS", 60.0)  # one who asks may be put to sleep while doing it
    asker = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys\nfrom gbn.store.locks import is_locked\nprint('on', flush=True)\n"
            "while True: is_locked(sys.argv[1])",
            str(tmp_path),
        ],
        stdout=subprocess.PIPE,
    )
    try:
        assert asker.stdout.readline() == b"on\n"
        for _ in range(200):
            with RunLock(tmp_path):
                pass
    finally:
        asker.kill()
        asker.wait()
        asker.stdout.close()


class Windows:
    """The module msvcrt of another system: a lock on a byte belongs to an open file, excludes all, bars readers."""

    LK_NBLCK, LK_UNLCK = 2, 0

    def __init__(self):
        self.held = {}

    def locking(self, descriptor, kind, count):
        assert count == 1
        file = os.fstat(descriptor)
        assert os.lseek(descriptor, 0, os.SEEK_CUR) > file.st_size + 1000, "the note could not be read"
        holder = self.held.get(file.st_ino)
        if holder != (descriptor if kind == self.LK_UNLCK else None):
            raise PermissionError(13, "Permission denied")
        self.held[file.st_ino] = descriptor if kind == self.LK_NBLCK else None


def test_a_system_with_other_locks_excludes_a_second_writer_too(tmp_path, monkeypatch):
    system = Windows()
    monkeypatch.setattr(locks, "fcntl", None)
    monkeypatch.setattr(locks, "msvcrt", system, raising=False)
    monkeypatch.delattr(os, "pwrite")
    monkeypatch.setattr(locks, "_PATIENCE_SECONDS", 0.0)
    with RunLock(tmp_path):
        assert is_locked(tmp_path)
        with pytest.raises(LockedError, match=rf"process {os.getpid()} on .*: wait for it"):
            RunLock(tmp_path).acquire()
    assert list(system.held.values()) == [None]
    assert not is_locked(tmp_path)
    with RunLock(tmp_path):
        pass


ORPHAN = textwrap.dedent(
    """
    import os, sys
    from gbn.store.locks import RunLock
    with RunLock(sys.argv[1]):
        if os.fork() == 0:  # returns in the child when it has closed its copy
            print(os.getpid(), flush=True)
            os.close(1)
        sys.stdin.read()
    """
)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_an_orphaned_worker_does_not_hold_the_run_of_its_killed_parent(tmp_path):
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHAN, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    child = int(parent.stdout.readline())
    try:
        assert is_locked(tmp_path)
        parent.kill()
        parent.wait()
        assert not is_locked(tmp_path)
        os.kill(child, 0)  # it is alive
    finally:
        parent.stdin.close()  # the child reads to its end and goes
        parent.stdout.close()
