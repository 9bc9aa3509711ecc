"""Many runs on one machine: a pool of processes that train the missing runs, in order, until a budget ends."""

import math
import os
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from gbn.config.schema import Config
from gbn.engine.run import Outcome, run
from gbn.store.files import StoreError
from gbn.store.locks import LockedError
from gbn.store.records import DONE, ERROR, STDERR, RunStore
from gbn.sweep.death import Death
from gbn.sweep.pool import Ended, Pool, remove_empty
from gbn.sweep.signals import StopSignals

#: Seconds between checks of the runs that other processes are training.
_POLL_SECONDS = 0.5

#: How many different final outputs of runs are shown: a library that crashes every run writes nearly the same.
_SHOWN, _SHOWN_LINES = 8, 12


def default_jobs() -> int:
    """Return one job per core without a GPU, or one job with a GPU, without importing torch."""
    return 1 if has_gpu() else cores()


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_gpu() -> bool:
    """Return whether the NVIDIA driver shows a device in the file system, since importing torch takes seconds."""
    return os.environ.get("CUDA_VISIBLE_DEVICES") != "" and os.path.exists("/dev/nvidiactl")


def train_all(
    configs: Sequence[tuple[str, Config]],
    *,
    jobs: int,
    budget: float = float("inf"),
    report: Callable[[Outcome, int, int], None] = lambda outcome, done, total: None,
) -> list[Outcome]:
    """Train runs in `jobs` processes, in the given order, and report each as it ends.

    A failed run is an outcome, and the others continue. So is a run whose process dies: the signal, whether memory
    ran out and the last lines of standard error are in its ``error.txt``. A run whose process was killed from outside
    is retried from its checkpoint, once, after the others have begun; one that crashed would crash again.

    A run that another process is training (another sweep, say) is waited for after the others have ended: it is done
    when that process finishes it, and trained here if that process leaves it unfinished.

    When the budget is used up, or on a signal, no further run is begun and those in progress stop with a checkpoint;
    a second signal ends them at once.

    Args:
        configs: (run id, configuration) of each run; a run listed twice is trained once.
        jobs: processes; each gets cores / jobs threads.
        budget: seconds.
        report: called with (outcome, number of runs ended, number of runs).

    Raises:
        KeyboardInterrupt: a signal ended the sweep; every run's outcome was reported before.
    """
    with StopSignals() as signals, Pool(jobs, max(1, cores() // jobs), lambda: signals.again) as pool:
        sweep = _Sweep(configs, pool, report)
        deadline = time.monotonic() + budget
        while sweep.goes_on and not signals.again:
            if not sweep.stopping and (signals.asked or time.monotonic() > deadline):
                if signals.asked and pool.at_work:
                    _say(
                        f"stopping: {pool.at_work} at work write checkpoints (a second signal ends them at once)"
                    )
                sweep.stop()
            sweep.step()
        if signals.again:
            sweep.abandon()
    if signals.asked:
        raise KeyboardInterrupt
    return sweep.outcomes


class _Sweep:
    """The runs that have ended, those in progress and those waiting."""

    def __init__(
        self,
        configs: Sequence[tuple[str, Config]],
        pool: Pool,
        report: Callable[[Outcome, int, int], None],
    ) -> None:
        self.outcomes: list[Outcome] = []
        self.stopping = False
        self._waiting = deque(dict(configs).items())  # each run once
        self._total, self._pool, self._report = len(self._waiting), pool, report
        self._at_work: set[str] = set()
        self._killed: dict[str, Death] = {}
        self._elsewhere = Elsewhere()
        self._shown: set[str] = set()

    @property
    def goes_on(self) -> bool:
        return bool(self._waiting or self._pool.at_work or self._elsewhere.runs)

    def step(self) -> None:
        """Begin runs while there is room, and collect those that have ended."""
        while self._waiting and self._pool.at_work < self._pool.jobs:
            self._begin(*self._waiting.popleft())
        if not self._waiting:
            self._pool.dismiss()
            self._waiting.extend(self._elsewhere.left(announce=not self._pool.at_work))
        for ended in self._pool.wait(0.25) if self._pool.at_work else ():
            self._take(ended)

    def stop(self) -> None:
        """Begin nothing more and have the runs in progress checkpoint."""
        self.stopping = True
        self._pool.stop()
        for run_id in [*dict(self._waiting), *self._elsewhere.runs]:
            self._end(self._not_begun(run_id))
        self._waiting.clear()
        self._elsewhere.runs.clear()

    def abandon(self) -> None:
        """End everything now."""
        self._pool.kill()
        if not self.stopping:
            self.stop()
        for run_id in sorted(self._at_work):
            self._end(
                Outcome(run_id, "interrupted", False, "ended at once; it resumes from its last checkpoint")
            )

    def _begin(self, run_id: str, config: Config) -> None:
        store = RunStore(config.results_dir)
        try:
            status = store.status(run_id)
            if status == "running":
                self._elsewhere.runs[run_id] = config
                return
            if not (done := status in DONE):
                self._pool.begin(run_id, config, store.path(run_id) / STDERR)
        except (OSError, StoreError) as error:
            self._end(Outcome(run_id, "failed", False, f"{type(error).__name__}: {error}"))
            return
        if done:
            remove_empty(
                store.path(run_id) / STDERR
            )  # left if this sweep and another began it at the same time
            self._end(run(config))
        else:
            self._at_work.add(run_id)

    def _take(self, ended: Ended) -> None:
        if isinstance(ended.result, Death):
            outcome = self._died(ended.result, ended.config)
        elif ended.result.status == "waiting" and not self.stopping:
            # Only its worker was asked to end, before it began.
            self._at_work.discard(ended.result.run_id)
            self._waiting.appendleft((ended.result.run_id, ended.config))
            return
        else:
            outcome = ended.result
            if death := self._killed.get(outcome.run_id):
                before = f"before that {death.line}"
                outcome = replace(outcome, message=f"{outcome.message}; {before}")
        self._show(ended)
        if outcome is not None and outcome.status == "locked" and not self.stopping:
            self._at_work.discard(outcome.run_id)
            self._elsewhere.runs[outcome.run_id] = ended.config
        elif outcome is not None:
            self._end(outcome)

    def _died(self, death: Death, config: Config) -> Outcome | None:
        """Write the run's ``error.txt``; return its outcome, or None if it is retried."""
        before, store = self._killed.get(death.run_id), RunStore(config.results_dir)
        text = death.describe() + (f"\nBefore that, {before.describe()}" if before else "")
        message = death.line + (f"; before that {before.line}" if before else "")
        try:
            with store.writer(death.run_id) as writer:
                writer.write_error(text)
            message += f" (see {store.path(death.run_id) / ERROR})"
        except LockedError as error:
            return Outcome(death.run_id, "locked", False, f"{message}; {error}")
        except (OSError, StoreError) as error:
            if is_done(store, death.run_id):  # it died after completing its last file
                return run(config)
            message += f" (no {ERROR}: {error})"
        if not death.killed or before is not None:
            return Outcome(death.run_id, "failed", False, message)
        if self.stopping:
            return Outcome(death.run_id, "interrupted", False, message)
        self._killed[death.run_id] = death
        self._at_work.discard(death.run_id)
        self._waiting.append((death.run_id, config))
        _say(f"{death.run_id}: {message}; it is tried once more, from its checkpoint if it has one")
        return None

    def _not_begun(self, run_id: str) -> Outcome:
        if death := self._killed.get(run_id):
            return Outcome(run_id, "interrupted", False, death.line)
        return Outcome(run_id, "waiting", False, "not begun")

    def _end(self, outcome: Outcome) -> None:
        self._at_work.discard(outcome.run_id)
        self.outcomes.append(outcome)
        self._report(outcome, len(self.outcomes), self._total)

    def _show(self, ended: Ended) -> None:
        """Show the last lines of a run's standard error, unless another run's were the same apart from numbers."""
        run_id = ended.result.run_id
        kind = re.sub(r"0x[0-9a-fA-F]+|\d+", "#", ended.said.replace(run_id, ""))
        if not ended.said or kind in self._shown or len(self._shown) > _SHOWN:
            return
        self._shown.add(kind)
        if len(self._shown) > _SHOWN:
            _say(f"the standard error of further runs is in the {STDERR} of each")
            return
        lines = ended.said.splitlines()[-_SHOWN_LINES:]
        _say(f"{run_id} wrote to standard error:\n" + "\n".join(f"    {line}" for line in lines))


class Elsewhere:
    """Runs that other processes were training when it was their turn here.

    Attributes:
        runs: by id.
    """

    def __init__(self) -> None:
        self.runs: dict[str, Config] = {}
        self._said = False
        self._looked = -math.inf

    def left(self, *, announce: bool) -> list[tuple[str, Config]]:
        """Return the runs that no process is training any more, and remove them from :attr:`runs`.

        Args:
            announce: print once that this sweep is only waiting.
        """
        now = time.monotonic()
        if not self.runs or now - self._looked < _POLL_SECONDS:
            if self.runs and announce:
                time.sleep(_POLL_SECONDS / 4)
            return []
        self._looked = now
        found = [(run_id, config) for run_id, config in self.runs.items() if not _is_running(run_id, config)]
        for run_id, _ in found:
            del self.runs[run_id]
        if self.runs and announce and not self._said:
            self._said = True
            others = f" and {len(self.runs) - 1} more" if len(self.runs) > 1 else ""
            _say(f"waiting for {next(iter(self.runs))}{others}, which other processes are training")
        return found


def _is_running(run_id: str, config: Config) -> bool:
    try:
        return RunStore(config.results_dir).status(run_id) == "running"
    except (OSError, StoreError):  # reported when it is tried
        return False


def is_done(store: RunStore, run_id: str) -> bool:
    """Return whether a run needs no training; a damaged one counts as missing, and fails when it is tried."""
    try:
        return store.status(run_id) in DONE
    except (OSError, StoreError):
        return False


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
