"""One process a run: across processes, through kill -9, and over forks."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from gbn.store.locks import LockedError, RunLock, is_locked

HOLDER = textwrap.dedent(
    """
    import sys, time
    from gbn.store.locks import RunLock
    with RunLock(sys.argv[1]):
        print("held", flush=True)
        time.sleep(60)
    """
)


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_process_is_refused_and_told_who_holds_the_run(tmp_path, holder):
    assert is_locked(tmp_path)
    with pytest.raises(LockedError, match=rf"process {holder.pid} on .*: wait for it"):
        RunLock(tmp_path).acquire()


def test_kill_9_frees_the_run(tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
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


def test_asking_does_not_make_a_taker_fail(tmp_path):
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


ORPHAN = textwrap.dedent(
    """
    import os, sys, time
    from gbn.store.locks import RunLock
    with RunLock(sys.argv[1]):
        child = os.fork()
        if child == 0:
            os.close(1)
            time.sleep(30)
            os._exit(0)
        print(child, flush=True)
        time.sleep(30)
    """
)


def test_an_orphaned_worker_does_not_hold_the_run_of_its_killed_parent(tmp_path):
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHAN, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    child = int(parent.stdout.readline())
    try:
        time.sleep(0.1)  # the child's first act is to close its copy
        assert is_locked(tmp_path)
        parent.kill()
        parent.wait()
        assert not is_locked(tmp_path)
        os.kill(child, 0)  # it is alive
    finally:
        os.kill(child, signal.SIGKILL)
        parent.stdout.close()
