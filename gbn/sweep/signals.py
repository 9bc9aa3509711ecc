"""Signals that stop a command: after the first its runs checkpoint, a later one ends it at once."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

#: The signals that ask a program to end, if this system has them: Ctrl-C, `kill`, a closed terminal.
STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
)

#: Within this time a second signal is an echo of the first: `timeout`, for example, signals a process and its group.
_ECHO_SECONDS = 1.0


class StopSignals:
    """Listens to the signals of :data:`STOPPING`; a context manager that restores the previous handlers.

    A signal that the process was started to ignore (by ``nohup``, or by a shell that put it in the background) stays
    ignored. Outside the main thread, where Python delivers no signals, this does nothing.

    Attributes:
        asked: a signal has arrived: checkpoint and end.
        again: a later one has arrived: end at once.

    Args:
        at_once: called in the handler of the later signal.
    """

    def __init__(self, at_once: Callable[[], None] = lambda: None) -> None:
        self.asked = self.again = False
        self._first, self._at_once = 0.0, at_once
        self._before: dict[signal.Signals, Any] = {}

    def listen(self) -> None:
        """Handle the signals from here on; does nothing if it already does."""
        if self._before or threading.current_thread() is not threading.main_thread():
            return
        for number in STOPPING:
            if signal.getsignal(number) != signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._received)

    def __enter__(self) -> "StopSignals":
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _received(self, _number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.asked:
            self.asked, self._first = True, now
        elif now - self._first > _ECHO_SECONDS:
            self.again = True
            self._at_once()


@contextmanager
def held() -> Iterator[None]:
    """Hold signals back until the end of the block; a process started in it has them blocked.

    This way Ctrl-C never hits a half-started process, which would print a traceback: the new process calls
    :func:`let_through` once it listens. If the system cannot block signals (Windows), this does nothing.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_through() -> None:
    """Unblock the signals of :data:`STOPPING` in a process started in a block of :func:`held`."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
