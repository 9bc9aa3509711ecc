"""One run: skip it if it is done, otherwise start or resume it, train it, and complete its files."""

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gbn import measures
from gbn.config.schema import Config
from gbn.store import trained_on
from gbn.store.files import StoreError
from gbn.store.identity import identity, run_id_of
from gbn.store.locks import LockedError
from gbn.store.records import DONE, ERROR, RunStore, RunWriter

if TYPE_CHECKING:
    import torch

    from gbn.tracking.live import Tracker


@dataclass(frozen=True)
class Outcome:
    """The outcome of a request to run.

    Attributes:
        status: a status of the store; or ``locked``: another process is training it; or ``waiting``: a sweep ended
            before it was begun.
        skipped: whether the run was already done.
        message: one line for a person.
    """

    run_id: str
    status: str
    skipped: bool
    message: str

    @property
    def ok(self) -> bool:
        """True if the run is done, whatever its result (a diverged run is a result)."""
        return self.status in DONE


def run(config: Config, *, stop: Callable[[], bool] = lambda: False, jobs: int = 1) -> Outcome:
    """Train one run, unless it is already done.

    Errors during the run are not raised: a failed run is an outcome, with its traceback in ``error.txt`` if that
    can be written.

    Args:
        config: the run's configuration.
        stop: called before each update; if it returns True, the run stops with a checkpoint.
        jobs: number of runs that share this machine; determines threads and the clock.
    """
    complete = config.as_dict()
    kept = identity(complete, config.defaults())
    run_id = run_id_of(kept)
    store = RunStore(config.results_dir)
    try:
        if (done := _done(store, run_id, config)) is not None:
            return done
        try:
            with store.writer(run_id) as writer:
                try:
                    writer.write_config(complete)
                    status = _train(config, complete, kept, writer, stop, jobs)
                except Exception:
                    with contextlib.suppress(OSError):  # the disk is full, say: the outcome reports it anyway
                        writer.write_error(traceback.format_exc())
                    raise
        except StoreError:
            # Another process may have finished it since the first look.
            if (done := _done(store, run_id, config)) is not None:
                return done
            raise
        if status == "interrupted":
            message = "stopped with a checkpoint; the same command resumes from there"
            return Outcome(run_id, status, False, message)
        return Outcome(run_id, status, False, _describe(store, run_id))
    except LockedError as error:
        return Outcome(run_id, "locked", False, str(error))
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        where = store.path(run_id) / ERROR
        see = f" (see {where})" if os.path.exists(where) else ""
        return Outcome(run_id, "failed", False, f"{type(error).__name__}: {first}{see}")


def _done(store: RunStore, run_id: str, config: Config) -> Outcome | None:
    status = store.status(run_id)
    if status not in DONE:
        return None
    message = _describe(store, run_id)
    if config.trainer.record.layers and not store.load(run_id).layers:
        message += f"; made without recording its layers: remove {store.path(run_id)} to train it again"
    return Outcome(run_id, status, True, message)


def _describe(store: RunStore, run_id: str) -> str:
    summary = store.load(run_id).summary or {}
    if summary["status"] == "not_applicable":
        return "not applicable: the normalizer needs more than one value per channel in training"
    if summary["status"] == "diverged":
        return f"diverged at update {summary['diverged_at']}"
    updates = f"{summary['updates']} updates in {summary['seconds']:.1f} s of training"
    return ", ".join([*quality(summary["final"]), updates])


def quality(point: Mapping[str, Any]) -> list[str]:
    """Return the quality of the network at a point of a curve, in words: accuracies, or the task's own measures."""
    if "test_accuracy" in point:
        accuracies = {"test accuracy": point["test_accuracy"], "validation": point["val_accuracy"]}
        return [f"{name} {100 * value:.2f} %" for name, value in accuracies.items()]
    # Of a set with parts, take the test part's measures over all structures together.
    known = [found for key, value in point.items() if value is not None and (found := measures.find(key))]
    return [
        " ".join(filter(None, (one.title, one.number(point[one.key]), one.unit)))
        for one in known
        if one.family != "loss" and not one.exact and one.split in ("test", "") and " of the " not in one.name
    ]


def _train(
    config: Config,
    complete: dict[str, Any],
    kept: dict[str, Any],
    writer: RunWriter,
    stop: Callable[[], bool],
    jobs: int,
) -> str:
    from gbn.engine.checkpoint import previous_of
    from gbn.tracking.live import Tracker

    tracker = Tracker(
        complete["tracker"], writer.run_id, complete, Path(config.results_dir), kept, writer.curve
    )
    failed, summary = True, None
    try:
        status, summary = _tracked(config, kept, writer, tracker, stop, jobs)
        if summary is not None:
            summary = {"run_id": writer.run_id, "config": complete, "identity": kept} | summary
            previous_of(writer.checkpoint_path).unlink(missing_ok=True)  # it will not resume
            writer.write_summary(summary)
        failed = False
        return status
    finally:
        tracker.finish(summary, failed=failed)


def _tracked(
    config: Config,
    kept: dict[str, Any],
    writer: RunWriter,
    tracker: "Tracker",
    stop: Callable[[], bool],
    jobs: int,
) -> tuple[str, dict[str, Any] | None]:
    """Train; return the status and the summary of the training (None if it was interrupted)."""
    began = time.monotonic()
    fresh = "torch" not in sys.modules

    imported = time.monotonic() - began
    from gbn import kernels
    from gbn.engine.build import build_model, task_of
    from gbn.engine.clock import Neighbors, clock_of
    from gbn.engine.progress import make_progress
    from gbn.engine.provenance import provenance
    from gbn.engine.trainer import Trainer

    device = choose_device(config.trainer.device)
    if config.trainer.precision == "fp16" and device.type == "cpu":
        raise ValueError("trainer.precision=fp16 needs a GPU, and this machine has none: use bf16 or fp32")
    set_threads(config.trainer.threads, jobs)
    kind = task_of(config)
    images = kind.load(config)
    model = build_model(config, images, device)
    loader, evaluator, task = kind.build(config, images, device)
    trainer = Trainer(config, model, loader, evaluator, task, writer, tracker, device, stop)
    damage = trainer.resume()
    if damage:
        print(f"{writer.run_id}: {damage}", file=sys.stderr, flush=True)
    start, digest = trainer.step, kind.digest(config, images)
    if not config.dataset.allow_changed:
        trained_on.check_resumed(writer.folder, writer.provenance(), start, digest)
    segment = provenance(device, start=start, kernels=kernels.selected(device.type), data_digest=digest)
    segment |= {"checkpoint": damage} if damage else {}
    writer.add_provenance(segment)
    if not config.dataset.allow_changed:
        trained_on.check_first(writer.store, writer.run_id, kept, digest)
    neighbors = Neighbors()
    ending = trainer.train(
        lambda begin, total: make_progress(
            _style(config.trainer.progress, jobs), writer.run_id, begin, total, config.trainer.batch_size
        )
    )
    if reasons := kernels.failures():
        segment |= {"kernels": kernels.selected(device.type), "kernel_failures": reasons}
        writer.amend_provenance(segment)
    if ending == "interrupted":
        return ending, None
    curve = writer.curve()
    share = neighbors.share()
    return ending, {
        "status": ending,
        "updates": trainer.step,
        "seconds": trainer.seconds,
        "wall_seconds": time.monotonic() - began,
        "clock": clock_of(config.trainer.clock, jobs, start > 0, share),
        "foreign_share": share,
        "diverged_at": int(trainer.diverged_at) if ending == "diverged" else None,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "final": curve[-1] if curve else None,
        **evaluator.best(curve),
        **(evaluator.final(model) if ending == "finished" else {}),
        "startup": _startup(trainer.first_update_at, imported) if fresh else None,
        "environment": {
            **{
                key: segment[key]
                for key in ("device", "device_kind", "threads", "kernels", "commit", "dirty")
            },
            "torch": segment["versions"]["torch"],
            "python": segment["versions"]["python"],
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    }


def _style(progress: str, jobs: int) -> str:
    """Return the progress style; bars of several processes would overwrite each other."""
    return "plain" if progress == "auto" and jobs > 1 else progress


def _startup(first_update_at: float | None, import_torch: float) -> dict[str, float] | None:
    """Return the seconds from process start to the end of the first update, and those spent importing torch."""
    from gbn.engine.provenance import process_age

    age = process_age()
    if age is None or first_update_at is None:
        return None
    to_first_update = age - (time.monotonic() - first_update_at)
    return {"to_first_update": to_first_update, "import_torch": import_torch}


def choose_device(wanted: str) -> "torch.device":
    """Return the configured device; `auto` takes a GPU if there is one.

    Raises:
        ValueError: cuda is requested and there is none.
    """
    import torch

    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ValueError("trainer.device=cuda, but torch sees no GPU: use trainer.device=auto or cpu")
    return torch.device("cuda" if wanted != "cpu" and available else "cpu")


def set_threads(wanted: int | str, jobs: int) -> None:
    """Set torch's threads: as configured, or this machine's cores divided among the parallel jobs."""
    import torch

    if wanted == "auto":
        given = os.environ.get("OMP_NUM_THREADS", "")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        wanted = int(given) if given.isdigit() and jobs == 1 else max(1, cores // jobs)
    torch.set_num_threads(int(wanted))
    with contextlib.suppress(RuntimeError):  # can be set only once, before any parallel work
        torch.set_num_interop_threads(1)
