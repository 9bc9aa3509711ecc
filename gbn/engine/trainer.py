"""The training loop of one run: updates, points of the curve, checkpoints, the training clock."""

import contextlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import nn

from gbn.config.schema import Config
from gbn.data import TrainLoader
from gbn.engine.checkpoint import load_checkpoint, save_checkpoint
from gbn.engine.evaluation import Evaluator, evaluation_grid, test_points
from gbn.engine.progress import Progress, Quiet
from gbn.engine.recording import LayerRecorder, recording_grid
from gbn.engine.tracking import Tracker
from gbn.optim import build_optimizer, build_preconditioner, learning_rate
from gbn.seeding import derive
from gbn.store.records import RunWriter
from gbn.tasks import Classification

Ending = Literal["finished", "diverged", "interrupted"]

_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def precision_context(precision: str, device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """A maker of autocast contexts for fp32 (none), bf16 or fp16."""
    dtype = _DTYPES[precision]
    if dtype is None:
        return contextlib.nullcontext
    return lambda: torch.autocast(device.type, dtype)


class Trainer:
    """Trains one model to the end of its configuration, from its checkpoint if there is one.

    Everything random is derived from (seed, purpose, step), so the state in a checkpoint restores the run exactly:
    on the CPU an interrupted and resumed run equals the uninterrupted one bit for bit.

    Args:
        config: the run's.
        model: initialised, on the device.
        loader: the training batches.
        evaluator: makes the points of the curve.
        writer: the run's files, locked.
        tracker: the mirror.
        stop: asked before each update; True ends the run early with a checkpoint.
    """

    def __init__(
        self,
        config: Config,
        model: nn.Module,
        loader: TrainLoader,
        evaluator: Evaluator,
        task: Classification,
        writer: RunWriter,
        tracker: Tracker,
        device: torch.device,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.config, self.model, self.loader, self.evaluator = config, model, loader, evaluator
        self.task, self.writer, self.tracker, self.device, self.stop = task, writer, tracker, device, stop
        options = config.trainer
        self.total = max(1, round(options.epochs * loader.steps_per_epoch))
        self.optimizer_options = config.optimizer.model_dump()
        self.schedule_options = config.schedule.model_dump()
        self.optimizer = build_optimizer(model, self.optimizer_options)
        self.preconditioner = build_preconditioner(model, self.optimizer_options)
        self.autocast = precision_context(options.precision, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=options.precision == "fp16")
        # Compiled for training only: evaluation and checkpoints see the plain module, whose parameters it shares.
        self.forward: Callable[..., Any] = torch.compile(model) if options.compile else model
        evaluation = options.evaluation
        self.whole_at = {*test_points(evaluation.test_every, loader.steps_per_epoch, self.total)}
        geometric = evaluation_grid(evaluation.first, self.total, evaluation.points)
        self.grid = {*geometric, *self.whole_at}
        record, data, images = options.record, evaluator.train, evaluator.calibration
        self.recorder = (
            LayerRecorder(model, data, images, record.images, self.autocast) if record.layers else None
        )
        self.record_at = {*recording_grid(geometric, record.points)} if record.layers else set()
        self.step, self.points, self.seconds = 0, 0, 0.0
        self.first_update_at: float | None = None  # of this process, by the wall clock
        self._reset_sums()
        self.diverged_at = torch.full((), -1, dtype=torch.int64, device=device)

    def _reset_sums(self) -> None:
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self.correct = torch.zeros((), dtype=torch.int64, device=self.device)
        self.count = 0

    def train(self, make_progress: Callable[[int, int], Progress] = lambda start, total: Quiet()) -> Ending:
        """Run to the end, to divergence, or until `stop` says so."""
        self._resume()
        progress = make_progress(self.step, self.total)
        self.model.train()
        saved_at = time.monotonic()
        try:
            self._start_clock()
            while self.step < self.total:
                if self.stop():
                    self._stop_clock()
                    self._save()
                    return "interrupted"
                self._update()
                if self.first_update_at is None:
                    self._synchronize()
                    self.first_update_at = time.time()
                at_point = self.step in self.grid
                # Asking a GPU for a number makes it wait: only at points and now and then.
                if at_point or self.device.type == "cpu" or self.step % 50 == 0:
                    progress.update(self.step, self._loss_so_far())
                    if int(self.diverged_at) >= 0:
                        self._stop_clock()
                        self._point(progress, evaluate=False)
                        self._save()
                        return "diverged"
                if at_point:
                    self._stop_clock()
                    self._point(progress)
                    self._start_clock()
                if (
                    time.monotonic() - saved_at >= self.config.trainer.checkpoint_seconds
                    and self.step < self.total
                ):
                    self._stop_clock()
                    self._save()
                    saved_at = time.monotonic()
                    self._start_clock()
            self._stop_clock()
            self._save()
            return "finished"
        finally:
            progress.close()
            if self.preconditioner is not None:
                self.preconditioner.remove()

    def _update(self) -> None:
        images, labels = self.loader.batch(self.step)
        torch.manual_seed(derive(self.config.seed, "dropout", self.step))
        rate = learning_rate(
            self.schedule_options,
            self.optimizer_options["lr"],
            self.step,
            self.total,
            self.loader.steps_per_epoch,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        with self.autocast():
            logits = self.forward(images)
        if len(images) > len(labels):  # foreign images of an attacked training
            logits = logits[: len(labels)]
        loss = self.task.loss(logits, labels)
        self.scaler.scale(loss).backward()
        scaled = self.config.trainer.clip_norm is None and self.preconditioner is None
        if not scaled:
            self.scaler.unscale_(self.optimizer)
        if self.preconditioner is not None:
            self.preconditioner.precondition()
        if self.config.trainer.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.trainer.clip_norm)
        if self.recorder is not None and self.step + 1 in self.record_at:
            self._stop_clock()
            self.recorder.before_step(self.scaler.get_scale() if scaled else 1.0)
            self._start_clock()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        self.rate = rate
        with torch.no_grad():
            detached = loss.detach()
            first_bad = (self.diverged_at < 0) & ~torch.isfinite(detached)
            self.diverged_at = torch.where(first_bad, self.step, self.diverged_at)
            self.loss_sum += detached
            self.correct += self.task.correct(logits.detach(), labels)
            self.count += len(labels)

    def _loss_so_far(self) -> float | None:
        return float(self.loss_sum) / (self.count / self.loader.batch_size) if self.count else None

    def _point(self, progress: Progress, *, evaluate: bool = True) -> None:
        """Record a point; on divergence what training showed is kept and nothing is evaluated."""
        point: dict[str, Any] = {
            "update": self.step,
            "epoch": self.step / self.loader.steps_per_epoch,
            "images": self.step * self.loader.batch_size,
            "seconds": self.seconds,
            "lr": self.rate,
            "train_loss": self._loss_so_far(),
            "train_accuracy": self.correct.item() / self.count if self.count else None,
        }
        if evaluate:
            point |= self.evaluator.point(self.model)
            if self.step in self.whole_at:
                point |= self.evaluator.whole(self.model)
        self.writer.append(point)
        self.points += 1
        if evaluate and self.recorder is not None and self.step in self.record_at:
            self.writer.append_layers(self.recorder.record(self.step, self.rate))
        self._reset_sums()
        if evaluate:
            progress.point(point)
        self.tracker.log(point)

    def _start_clock(self) -> None:
        self._synchronize()
        self._began = time.perf_counter()

    def _stop_clock(self) -> None:
        self._synchronize()
        self.seconds += time.perf_counter() - self._began

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _save(self) -> None:
        state = {
            "step": self.step,
            "points": self.points,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "preconditioner": None if self.preconditioner is None else self.preconditioner.state_dict(),
            "loss_sum": self.loss_sum,
            "correct": self.correct,
            "count": self.count,
            "diverged_at": self.diverged_at,
        }
        save_checkpoint(self.writer.checkpoint_path, state)

    def _resume(self) -> None:
        """Take up the checkpoint, and drop the points that were recorded after it."""
        if not self.writer.checkpoint_path.exists():
            self.writer.truncate(0)
            return
        state = load_checkpoint(self.writer.checkpoint_path, self.device)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        if self.preconditioner is not None:
            self.preconditioner.load_state_dict(state["preconditioner"])
        for name in ("step", "points", "seconds", "loss_sum", "correct", "count", "diverged_at"):
            setattr(self, name, state[name])
        self.writer.truncate(self.points)
