"""A pool of worker processes that knows which run each of them is training.

The processes are spawned, not forked, so that all systems behave alike and no thread or device of the parent is
copied. A worker trains one run after another, so torch is imported once per worker.
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing import connection, get_context
from multiprocessing.context import SpawnProcess
from pathlib import Path

from gbn.config.schema import Config
from gbn.engine.run import Outcome
from gbn.sweep import death, signals
from gbn.sweep.death import Death, MemoryKills
from gbn.sweep.worker import STOP, Task, serve
from gbn.tracking.service import kill_services

if sys.platform != "win32":
    from multiprocessing import resource_tracker

#: Seconds that an idle worker has to end when told to.
_LEAVE_SECONDS = 10.0


@dataclass(frozen=True)
class Ended:
    """A run that has ended, or whose worker has died.

    Attributes:
        result: the run's outcome, or its worker's death.
        said: the last lines that the run wrote to standard error.
    """

    config: Config
    result: Outcome | Death
    said: str


@dataclass
class _Worker:
    process: SpawnProcess
    orders: connection.Connection
    task: Task | None = None
    began: float = 0.0
    offset: int = 0  # size of the file of errors before the run
    leaving: bool = False  # it was asked to end


class Pool:
    """Processes that train runs; a context manager that leaves no process behind.

    If its block ends before the runs do (an exception, a signal), they checkpoint first.

    Args:
        jobs: the maximum number of processes; each gets cores / jobs threads.
        threads: for each process.
        hurry: called while runs checkpoint at the end; True ends them at once.
    """

    def __init__(self, jobs: int, threads: int, hurry: Callable[[], bool] = lambda: False) -> None:
        self.jobs, self._threads, self._hurry = jobs, threads, hurry
        self._workers: list[_Worker] = []
        self._kills = MemoryKills()
        self._sampled = time.monotonic()

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        while self.at_work and not self._hurry():
            self.wait(0.25)
        self.kill()

    @property
    def at_work(self) -> int:
        """Number of runs being trained."""
        return sum(worker.task is not None for worker in self._workers)

    def begin(self, run_id: str, config: Config, errors: Path) -> None:
        """Start training a run, in an idle worker or a new one.

        Args:
            errors: the run's standard error is appended to this file.

        Raises:
            OSError: the file cannot be written, or no process can be started.
        """
        if self.at_work >= self.jobs:
            raise RuntimeError(f"all {self.jobs} workers are busy: wait until one has ended")
        errors.parent.mkdir(parents=True, exist_ok=True)
        task = Task(run_id, config, self.jobs, errors)
        idle = next((one for one in self._workers if one.task is None and not one.leaving), None)
        if idle is not None:
            try:
                self._give(idle, task)
                return
            except OSError:  # it died while idle
                self._bury(idle)
        self._give(self._start(errors), task)

    def _give(self, worker: _Worker, task: Task) -> None:
        offset = task.errors.stat().st_size if task.errors.exists() else 0
        worker.orders.send(task)
        worker.task, worker.began, worker.offset = task, time.monotonic(), offset

    def _start(self, errors: Path) -> _Worker:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, self._threads))
        if sys.platform != "win32":
            # Python's own helper, which unblocks signals when it starts.
            resource_tracker.ensure_running()
        try:
            with signals.held(), _errors_to(errors):
                process.start()
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        worker = _Worker(process, ours)
        self._workers.append(worker)
        return worker

    def wait(self, seconds: float) -> list[Ended]:
        """Return the runs that have ended, waiting at most this long for one."""
        if time.monotonic() - self._sampled >= 1.0:
            self._kills.sample()
            self._sampled = time.monotonic()
        connection.wait([worker.orders for worker in self._workers], seconds)
        found = [self._look(worker) for worker in list(self._workers)]
        return [ended for ended in found if ended is not None]

    def _look(self, worker: _Worker) -> Ended | None:
        dead = not worker.process.is_alive()  # checked first, so that whatever it sent before can be read
        outcome = None
        try:
            if worker.orders.poll():
                outcome, goes_on = worker.orders.recv()
                worker.leaving = not goes_on
        except (EOFError, OSError):
            # It has closed its end, so it is about to exit.
            worker.process.join(_LEAVE_SECONDS)
            worker.process.kill()
            worker.process.join()
            dead = True
        task, seconds = worker.task, time.monotonic() - worker.began
        if dead and outcome is None:
            self._bury(worker)
        elif outcome is None:
            return None
        if task is None:
            return None
        worker.task = None
        said = death.tail(task.errors, worker.offset)
        if not said and (
            outcome is None or outcome.status != "locked"
        ):  # if locked, the file may be another process's
            remove_empty(task.errors)
        if outcome is not None:
            return Ended(task.config, outcome, said)
        exitcode, pid = worker.process.exitcode or 0, worker.process.pid or 0
        memory = self._kills.explain(exitcode, said)
        return Ended(task.config, Death(task.run_id, exitcode, pid, seconds, memory, said), said)

    def _bury(self, worker: _Worker) -> None:
        worker.process.join()
        worker.orders.close()
        self._workers.remove(worker)

    def dismiss(self) -> None:
        """End the idle workers, to free their memory for the others."""
        idle = [worker for worker in self._workers if worker.task is None]
        for worker in idle:
            worker.orders.close()
        deadline = time.monotonic() + _LEAVE_SECONDS
        for worker in idle:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            worker.process.kill()
            self._bury(worker)

    def stop(self) -> None:
        """Ask every run to checkpoint and end; :meth:`wait` returns the outcomes."""
        for worker in self._workers:
            with contextlib.suppress(OSError):  # dead, which wait finds
                worker.orders.send(STOP)

    def kill(self) -> None:
        """End every worker now; progress after the last checkpoints is lost."""
        for worker in self._workers:
            if worker.task is not None:
                kill_services(worker.process.pid or 0)  # a stopped service would not notice
                worker.process.kill()
                worker.task = None
        self.dismiss()


def remove_empty(path: Path) -> None:
    """Remove a file if it is empty."""
    with contextlib.suppress(OSError):
        if path.stat().st_size == 0:
            path.unlink()


@contextlib.contextmanager
def _errors_to(path: Path) -> Iterator[None]:
    """Redirect standard error to a file, so that a process started meanwhile uses it from its beginning."""
    try:
        before = os.dup(2)
    except OSError:  # closed
        before = None
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stderr.flush()
    os.dup2(descriptor, 2)
    os.close(descriptor)
    try:
        yield
    finally:
        if before is None:
            os.close(2)
        else:
            os.dup2(before, 2)
            os.close(before)
