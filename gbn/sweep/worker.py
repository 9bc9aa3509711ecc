"""A worker process: trains one run after another on its parent's orders, and ends with its parent."""

import faulthandler
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from gbn.config.schema import Config
from gbn.engine.run import Outcome, run
from gbn.sweep.signals import STOPPING, let_through
from gbn.sweep.streams import outlive_readers

#: The order to end the current run with a checkpoint, and then the worker.
STOP = "stop"

#: Seconds that a worker whose parent is gone has to finish its update and checkpoint.
_ORPHAN_SECONDS = 600.0


@dataclass(frozen=True)
class Task:
    """The order to train a run.

    Attributes:
        jobs: how many runs share the machine.
        errors: the file for standard error during the run.
    """

    run_id: str
    config: Config
    jobs: int
    errors: Path


def serve(orders: Connection, threads: int) -> None:
    """Run the worker (its main function).

    Args:
        orders: receives :class:`Task`, answered by (:class:`Outcome`, whether the worker continues), or :data:`STOP`;
            closed when the parent has ended, for whatever reason.
        threads: number of OpenMP threads.
    """
    # Before torch is imported in this process: idle OpenMP threads that spin slow down every other job.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    outlive_readers()
    faulthandler.enable(all_threads=False)  # a crash in compiled code prints the Python stack
    _Worker(orders).serve()


class _Worker:
    def __init__(self, orders: Connection) -> None:
        self._orders = orders
        self._tasks: SimpleQueue[Task | None] = SimpleQueue()
        self._stopped = False

    def serve(self) -> None:
        for number in STOPPING:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._stop)
        let_through()
        threading.Thread(target=self._listen, daemon=True).start()
        while (task := self._tasks.get()) is not None:
            outcome = self._train(task)
            goes_on = not self._stopped
            try:
                self._orders.send((outcome, goes_on))
            except OSError:  # the parent is gone
                return
            if not goes_on:
                return

    def _stop(self, *_: Any) -> None:
        # An idle worker stays: a task may be on its way, and every task must be answered.
        self._stopped = True

    def _listen(self) -> None:
        try:
            while True:
                order = self._orders.recv()
                if order == STOP:
                    self._stop()
                else:
                    self._tasks.put(order)
        except (EOFError, OSError):
            self._stop()
            self._tasks.put(None)
            time.sleep(_ORPHAN_SECONDS)
            os._exit(1)

    def _train(self, task: Task) -> Outcome:
        if self._stopped:
            return Outcome(task.run_id, "waiting", False, "not begun")
        try:
            _errors_to(task.errors)
            return run(task.config, jobs=task.jobs, stop=lambda: self._stopped)
        except Exception as error:
            traceback.print_exc()
            return Outcome(task.run_id, "failed", False, f"{type(error).__name__}: {error}")
        finally:
            sys.stderr.flush()


def _errors_to(path: Path) -> None:
    """Append standard error, including that of compiled code, to a file."""
    sys.stderr.flush()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 2)
    os.close(descriptor)
