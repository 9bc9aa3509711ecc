"""W&B's service, a separate process that its client talks to: nothing waits for it forever.

The client's own timeouts are enforced by the service, so they do not work if the service is stopped or hangs; and
when the program exits, the client waits for the service to end, however long that takes. Here every call has a
deadline, after which the service is killed, and the service ends with the run that it was started for.
"""

import contextlib
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

#: Seconds that the client may take beyond its own timeout, and that the service may take to end.
_GRACE = 2.0


class Service:
    """Talks to W&B in daemon threads, which do not delay the program's exit.

    Args:
        timeout: the most seconds that the client was told to wait (:func:`gbn.tracking.live.quiet_settings`).
    """

    def __init__(self, timeout: float) -> None:
        self._limit = timeout + _GRACE
        self._hooks = sys.exit, sys.excepthook
        self._foreign = bool(services_of(os.getpid()))  # other code in this process already uses W&B

    def begin(self, action: Callable[[], T], limit: float | None = None) -> Callable[[], T]:
        """Start an action that talks to W&B; return a function that waits for its result, or raises its exception.

        If there is no result in time, the service is killed and TimeoutError is raised.
        """
        limit = self._limit if limit is None else limit
        deadline = time.monotonic() + limit
        results: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

        def work() -> None:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # W&B's own deprecations are not our concern
                    results.put((action(), None))
            except (Exception, SystemExit) as error:
                results.put((None, error))

        def result() -> T:
            try:
                value, error = results.get(timeout=max(0.0, deadline - time.monotonic()))
            except Empty:
                kill_services(os.getpid())
                thread.join(_GRACE)  # its calls fail at once, and none is left to complain at exit
                raise TimeoutError(f"no answer within {limit:g} s") from None
            if error is not None:
                raise error
            return value

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return result

    def call(self, action: Callable[[], T]) -> T:
        """Run an action that talks to W&B and return its result.

        Raises:
            TimeoutError: there was no result in time.
            Exception: whatever W&B raises.
        """
        return self.begin(action)()

    def close(self) -> None:
        """End the service, unless other code started it, and undo the changes of W&B's client to ``sys``."""
        if "wandb" not in sys.modules or self._foreign:
            return
        with contextlib.suppress(Exception, SystemExit):
            self.begin(sys.modules["wandb"].teardown, _GRACE)()
        kill_services(os.getpid())
        sys.exit, sys.excepthook = self._hooks


def services_of(pid: int) -> list[int]:
    """Return the ids of the W&B service processes that a process started; empty if the system has no /proc."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            parent = int(path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1])
            if parent == pid and b"--port-filename" in path.with_name("cmdline").read_bytes():
                found.append(int(path.parent.name))
    return found


def kill_services(pid: int) -> None:
    """Kill the service of a process, even a stopped one: calls that wait for it fail at once."""
    for one in services_of(pid):
        with contextlib.suppress(OSError):
            os.kill(one, signal.SIGKILL)
