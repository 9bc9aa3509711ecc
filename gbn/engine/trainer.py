"""The training loop of one run: updates, points of the curve, checkpoints, the training clock."""

import time
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn

from gbn.config.schema import Config
from gbn.data import TrainLoader
from gbn.engine.checkpoint import CheckpointError, save_checkpoint, take_up
from gbn.engine.progress import Progress
from gbn.engine.recording.recorder import LayerRecorder, recording_grid
from gbn.nn.too_few import is_one_value
from gbn.store.files import write_bytes_atomically
from gbn.store.records import LAYERS, METRICS, RunWriter
from gbn.tasks.base import Task
from gbn.tasks.evaluation import Evaluator, evaluation_grid, test_points
from gbn.tracking.live import Tracker

Ending = Literal["finished", "diverged", "interrupted", "not_applicable"]


class Trainer:
    """Trains one model to the end of its configuration, from its checkpoint if there is one.

    Everything random is derived from (seed, purpose, step), so the state in a checkpoint restores the run exactly:
    on the CPU an interrupted and resumed run equals the uninterrupted one bit for bit.

    Args:
        config: the run's configuration.
        model: initialized, on the device.
        loader: the training batches.
        evaluator: measures the points of the curve.
        task: its loss, and what an update does.
        writer: the run's files, locked.
        tracker: mirrors the run to W&B.
        stop: called before each update; if it returns True, the run ends early with a checkpoint.
    """

    def __init__(
        self,
        config: Config,
        model: nn.Module,
        loader: TrainLoader,
        evaluator: Evaluator,
        task: Task,
        writer: RunWriter,
        tracker: Tracker,
        device: torch.device,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.config, self.model, self.loader, self.evaluator = config, model, loader, evaluator
        self.task, self.writer, self.tracker, self.device, self.stop = task, writer, tracker, device, stop
        options = config.trainer
        self.total = max(1, round(options.epochs * loader.steps_per_epoch))
        self.updates = task.updates(config, model, loader, task, device, self.total)
        evaluation = options.evaluation
        tests = test_points(evaluation.test_every, loader.steps_per_epoch, self.total)
        self.whole_at = {*tests} if evaluator.has_test else set()
        geometric = evaluation_grid(evaluation.first, self.total, evaluation.points)
        self.grid = {*geometric, *self.whole_at}
        record, self.recorder = options.record, None
        if record.layers and (recorded := evaluator.recorded()) is not None:
            self.recorder = LayerRecorder(model, *recorded, record.images, self.updates.autocast)
            self.updates.before_step = self._before_step
        self.record_at = {*recording_grid(geometric, record.points)} if record.layers else set()
        self.pictures_at = {*recording_grid(geometric, record.pictures)} if record.pictures else set()
        self.step, self.points, self.seconds = 0, 0, 0.0
        self._resumed = False
        self.first_update_at: float | None = None  # of this process, as time.monotonic() counts
        self.diverged_at = torch.full((), -1, dtype=torch.int64, device=device)

    def train(
        self, make_progress: Callable[[int, int], Progress] = lambda start, total: Progress()
    ) -> Ending:
        """Train until the end, divergence, `stop` returning True, or a norm that cannot train on these batches."""
        if not self._resumed:
            self.resume()
        self._resumed = False
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
                try:
                    self._update()
                except ValueError as error:
                    if not is_one_value(error):
                        raise
                    return "not_applicable"
                if self.first_update_at is None:
                    self._synchronize()
                    self.first_update_at = time.monotonic()
                at_point = self.step in self.grid
                # Reading a number from a GPU waits for it, so only at points and occasionally.
                if at_point or self.device.type == "cpu" or self.step % 50 == 0:
                    progress.update(self.step, self.updates.loss_so_far())
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
            self.updates.close()

    def _update(self) -> None:
        self.updates.make(self.step)
        self.step += 1
        first_bad = (self.diverged_at < 0) & ~torch.isfinite(self.updates.loss)
        self.diverged_at = torch.where(first_bad, self.step, self.diverged_at)

    def _before_step(self, update: int, loss_scale: float) -> None:
        if self.recorder is not None and update in self.record_at:
            self._stop_clock()
            self.recorder.before_step(loss_scale)
            self._start_clock()

    def _point(self, progress: Progress, *, evaluate: bool = True) -> None:
        """Record a point; on divergence, keep the training measures and evaluate nothing."""
        point: dict[str, Any] = {
            "update": self.step,
            "epoch": self.step / self.loader.steps_per_epoch,
            "images": self.step * self.loader.batch_size,
            "seconds": self.seconds,
            "lr": self.updates.rate,
            **self.updates.measured(),
        }
        if evaluate:
            point |= self.evaluator.point(self.model)
            if self.step in self.whole_at:
                point |= self.evaluator.whole(self.model)
        self.writer.append(point)
        self.points += 1
        if evaluate and self.recorder is not None and self.step in self.record_at:
            self.writer.append_layers(self.recorder.record(self.step, self.updates.rate))
        self.updates.reset()
        if evaluate:
            progress.point(point)
        self.tracker.log(point)
        if evaluate and self.step in self.pictures_at:
            self._pictures()

    def _pictures(self) -> None:
        """Save the task's pictures of the model and log them to the tracker."""
        for name, png in self.evaluator.pictures(self.model, last=self.step == self.total).items():
            path = self.writer.folder / f"{name}-{self.step:06d}.png"
            write_bytes_atomically(path, png)
            self.tracker.picture(self.step, name, path)

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
            "run_id": self.writer.run_id,
            "step": self.step,
            "points": self.points,
            # First: a checkpoint never counts points that may yet be lost.
            "curve": self.writer.sync(self.points),
            "seconds": self.seconds,
            **self.updates.state_dict(),
            "diverged_at": self.diverged_at,
        }
        save_checkpoint(self.writer.checkpoint_path, state)

    def resume(self) -> str | None:
        """Load the checkpoint, if there is one, and drop the points recorded after it.

        Returns:
            One line about a damaged checkpoint, if the one before it was loaded instead; None if all is well.

        Raises:
            CheckpointError: the checkpoint is damaged, another run's, or does not fit the curve or the network.
        """
        path = self.writer.checkpoint_path
        state, said = take_up(path, self.device, self.writer.run_id, self.total, len(self.writer.curve()))
        self._resumed = True
        if state is None:
            self.writer.truncate(0)
            return None
        anew = f"remove the folder {path.parent} to train this run again"
        if state.get("curve") != self.writer.digest(state["points"]):
            raise CheckpointError(f"{path} belongs to another curve than {METRICS} (or {LAYERS}): {anew}")
        try:
            self.updates.load_state_dict(state)
        except (RuntimeError, LookupError, TypeError, ValueError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{path} does not fit this run's network ({reason}): {anew}") from error
        for name in ("step", "points", "seconds", "diverged_at"):
            setattr(self, name, state[name])
        self.writer.truncate(self.points)
        return said
