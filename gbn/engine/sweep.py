"""Many runs on one machine: a pool of processes that train what the store lacks, seed-major, until a deadline."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any

from gbn.config.schema import Config
from gbn.engine.run import Outcome, run
from gbn.store.records import RunStore

_interrupted = False
_at_work = threading.Event()


def default_jobs() -> int:
    """One job a core where there is no GPU, one where there is: found without importing torch here."""
    return 1 if has_gpu() else cores()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_gpu() -> bool:
    """Whether the NVIDIA driver shows a device; a look at the file system, since importing torch takes seconds."""
    return os.environ.get("CUDA_VISIBLE_DEVICES") != "" and os.path.exists("/dev/nvidiactl")


def _worker(threads: int, parent: int) -> None:
    # Before torch is imported in this process: idle OpenMP threads that spin slow every other job down.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    signal.signal(signal.SIGINT, _interrupt)
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """A parent that is killed leaves its workers behind: they checkpoint and end rather than go on unseen."""
    while os.getppid() == parent:
        time.sleep(0.5)
    _interrupt()
    while _at_work.is_set():
        time.sleep(0.1)
    os._exit(1)  # the pool's own threads would wait for the parent for ever


def _interrupt(*_: Any) -> None:
    global _interrupted
    _interrupted = True


def _one(run_id: str, config: Config, jobs: int, deadline: float) -> Outcome:
    def stop() -> bool:
        return _interrupted or time.time() > deadline

    if stop():
        return Outcome(run_id, "waiting", False, "not begun")
    _at_work.set()
    try:
        return run(config, jobs=jobs, stop=stop)
    finally:
        _at_work.clear()


def train_all(
    configs: Sequence[tuple[str, Config]],
    *,
    jobs: int,
    deadline: float = float("inf"),
    report: Callable[[Outcome, int, int], None] = lambda outcome, done, total: None,
) -> list[Outcome]:
    """Train runs in `jobs` processes, in the given order, and report each as it ends.

    A run that fails is an outcome; the others go on. Past the deadline no run is begun, and those at work stop with
    a checkpoint. When a worker is killed (out of memory) a new pool goes on; a run killed twice has failed.

    Args:
        configs: (run id, configuration) of each run; one that is named twice is trained once.
        jobs: processes; each gets cores / jobs threads.
        deadline: as ``time.time()`` counts.
        report: called with (outcome, how many have ended, how many there are).
    """
    outcomes: list[Outcome] = []
    waiting = list(dict(configs).items())  # each run once
    total = len(waiting)

    def ended(outcome: Outcome) -> None:
        outcomes.append(outcome)
        report(outcome, len(outcomes), total)

    broken: Counter[str] = Counter()
    while waiting:
        waiting = _one_pool(waiting, jobs, deadline, ended)
        # Whichever worker died, one of the first `jobs` runs in line was its own: those get one more try.
        suspects = [run_id for run_id, config in waiting if _begun(run_id, config)][:jobs]
        broken.update(suspects or [run_id for run_id, _ in waiting[:jobs]])
        for run_id, _ in waiting:
            if broken[run_id] > 1:
                ended(Outcome(run_id, "failed", False, "its process was killed twice (out of memory?)"))
        waiting = [(run_id, config) for run_id, config in waiting if broken[run_id] <= 1]
    return outcomes


def _begun(run_id: str, config: Config) -> bool:
    return RunStore(config.results_dir).status(run_id) in ("interrupted", "running")


def _one_pool(
    configs: Sequence[tuple[str, Config]], jobs: int, deadline: float, ended: Callable[[Outcome], None]
) -> list[tuple[str, Config]]:
    """Run until all have ended (returns []) or the pool breaks (returns the runs that had not begun or died)."""
    left = dict(configs)
    pool = ProcessPoolExecutor(
        jobs,
        mp_context=get_context("spawn"),
        initializer=_worker,
        initargs=(max(1, cores() // jobs), os.getpid()),
    )
    with pool:
        futures: dict[Future[Outcome], str] = {
            pool.submit(_one, run_id, config, jobs, deadline): run_id for run_id, config in configs
        }
        try:
            for future in as_completed(futures):
                ended(future.result())
                del left[futures[future]]
        except BrokenProcessPool:
            return list(left.items())
        except KeyboardInterrupt:
            for future in futures:
                future.cancel()
            raise
    return []
