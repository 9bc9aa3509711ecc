"""What stops a command: the first signal lets its runs checkpoint, a later one ends it at once."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

#: The signals that ask a program to end, as far as this system has them: Ctrl-C, `kill`, a terminal that is closed.
STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
)

#: Within this time a second signal is an echo of the first: `timeout`, for one, signals the process and its group.
_ECHO_SECONDS = 1.0


class StopSignals:
    """Listens to the signals of :data:`STOPPING`; a context manager that puts the former handlers back.

    A signal that the process was started to ignore (by ``nohup``, or by a shell that put it in the background) stays
    ignored. Outside the main thread, where Python delivers no signal, nothing is listened to.

    Attributes:
        asked: a signal has come: checkpoint and end.
        again: another one came later: end at once.

    Args:
        at_once: called in the handler of a later signal.
    """

    def __init__(self, at_once: Callable[[], None] = lambda: None) -> None:
        self.asked = self.again = False
        self._first, self._at_once = 0.0, at_once
        self._before: dict[signal.Signals, Any] = {}

    def listen(self) -> None:
        """Take the signals from here on; harmless when it does already."""
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
    """Signals wait until the end of the block; a process that is started in it has them blocked.

    So a Ctrl-C meets no process half started, which would answer with a traceback: the new one calls
    :func:`let_through` once it listens. Where the system cannot block signals (Windows) this does nothing.
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
    """Unblock the signals of :data:`STOPPING` in a process that was started in a block of :func:`held`."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
