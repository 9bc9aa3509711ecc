"""One signal asks for a checkpoint, a later one for an end at once, an echo for nothing."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from gbn.sweep import signals
from gbn.sweep.signals import STOPPING, StopSignals, held, let_through


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_asks_and_a_later_one_ends(monkeypatch, number):
    now = [100.0]
    monkeypatch.setattr(signals.time, "monotonic", lambda: now[0])
    before = {one: signal.getsignal(one) for one in STOPPING}
    ended = []
    with StopSignals(at_once=lambda: ended.append(True)) as stop:
        stop.listen()  # again: nothing changes
        assert (stop.asked, stop.again) == (False, False)
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGTERM)  # as `timeout` does: the process, then its group
        assert (stop.asked, stop.again, ended) == (True, False, [])
        now[0] += 1.5
        signal.raise_signal(signal.SIGTERM)
        assert (stop.asked, stop.again, ended) == (True, True, [True])
    assert {one: signal.getsignal(one) for one in STOPPING} == before


def test_what_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert not stop.asked
    finally:
        signal.signal(signal.SIGHUP, before)


def test_in_another_thread_nothing_is_listened_to():
    found = []
    thread = threading.Thread(target=lambda: found.append(StopSignals().__enter__().asked))
    thread.start()
    thread.join()
    assert found == [False]


_CHILD = """
import signal, sys, time
from gbn.sweep.signals import StopSignals, let_through
print("up", flush=True)
sys.stdin.read()
with StopSignals() as stop:
    let_through()
    print(stop.asked)
"""


def test_a_process_started_while_signals_are_held_meets_them_when_it_listens():
    with StopSignals() as ours:
        with held():
            child = subprocess.Popen(
                [sys.executable, "-c", _CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            signal.raise_signal(signal.SIGINT)
            assert not ours.asked
        assert ours.asked
    assert child.stdout.readline() == "up\n"
    os.kill(child.pid, signal.SIGINT)
    out, _ = child.communicate(timeout=30)
    assert (out, child.returncode) == ("True\n", 0)


def test_without_masks_of_signals_processes_start_all_the_same(monkeypatch):
    monkeypatch.delattr(signal, "pthread_sigmask")  # Windows
    with held():
        pass
    let_through()
