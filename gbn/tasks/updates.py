"""The updates of a run: the trainer's loop asks for the next one and knows no loss.

:class:`Supervised` trains a network with targets; :class:`gbn.tasks.generation.updates.Adversarial` a generator
against a discriminator.
"""

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from gbn.config.schema import Config
from gbn.data import TrainLoader
from gbn.optim import build_optimizer, build_preconditioner, learning_rate
from gbn.seeding import derive

_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def precision_context(precision: str, device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """Return a function that creates the autocast context of fp32 (none), bf16 or fp16."""
    dtype = _DTYPES[precision]
    if dtype is None:
        return contextlib.nullcontext
    return lambda: torch.autocast(device.type, dtype)


class Updates(ABC):
    """The updates of a run, numbered from 0, and the measurements of training since the curve's last point.

    Args:
        config: the run's.
        model: initialized, on the device.
        loader: the training batches.
        task: losses and metrics.
        device: of the model and the batches.
        total: number of updates in the whole run.

    Attributes:
        rate: learning rate of the last update.
        loss: of the last update, a detached scalar; not finite if training diverged.
        before_step: called when gradients are complete and weights still old, with the update's number (counted
            from 1) and the factor by which gradients are scaled; None for nothing.
    """

    loss: Tensor

    def __init__(
        self,
        config: Config,
        model: nn.Module,
        loader: TrainLoader,
        task: Any,
        device: torch.device,
        total: int,
    ) -> None:
        self.config, self.model, self.loader, self.task = config, model, loader, task
        self.device, self.total = device, total
        self.optimizer_options = config.optimizer.model_dump()
        self.schedule_options = config.schedule.model_dump()
        self.autocast = precision_context(config.trainer.precision, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=config.trainer.precision == "fp16")
        self.rate = 0.0
        self.before_step: Callable[[int, float], None] | None = None
        self.count = 0
        self.reset()

    @abstractmethod
    def make(self, step: int) -> None:
        """Make update number `step`."""

    @abstractmethod
    def measured(self) -> dict[str, float | None]:
        """Return the measurements since :meth:`reset`, by key of the curve."""

    @abstractmethod
    def reset(self) -> None:
        """Start measuring again."""

    @abstractmethod
    def loss_so_far(self) -> float | None:
        """Return the mean loss since :meth:`reset`, for the display; None if there was no update."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the next update depends on, and the sums since :meth:`reset`."""
        return {
            "model": self.model.state_dict(),
            "scaler": self.scaler.state_dict(),
            "count": self.count,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a :meth:`state_dict`."""
        self.model.load_state_dict(state["model"])
        self.scaler.load_state_dict(state["scaler"])
        self.count = state["count"]

    def close(self) -> None:  # noqa: B027  (by default there is nothing)
        """Remove from the model what was added for training."""

    def _begin(self, step: int, *optimizers: torch.optim.Optimizer) -> None:
        """Seed dropout and set the learning rate of update `step`."""
        torch.manual_seed(derive(self.config.seed, "dropout", step))
        base, per_epoch = self.config.optimizer.lr, self.loader.steps_per_epoch
        self.rate = learning_rate(self.schedule_options, base, step, self.total, per_epoch)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.rate

    def _compiled(self, module: nn.Module) -> Callable[..., Any]:
        # For training only: evaluation and checkpoints use the plain module, which shares its parameters.
        return torch.compile(module) if self.config.trainer.compile else module


class Supervised(Updates):
    """One network, one optimizer, and the loss of its output against the batch's targets.

    The task has ``loss`` and ``correct``, both of (outputs, targets), and ``training_measure``, the name of the mean
    of ``correct`` over images.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.optimizer = build_optimizer(self.model, self.optimizer_options)
        self.preconditioner = build_preconditioner(self.model, self.optimizer_options)
        self.forward = self._compiled(self.model)

    def reset(self) -> None:
        """Set the sums of loss, correct outputs and images to zero."""
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        exact = torch.int64 if self.task.training_measure == "accuracy" else torch.float64
        self.correct = torch.zeros((), dtype=exact, device=self.device)
        self.count = 0

    def make(self, step: int) -> None:
        """Forward pass, backward pass, step."""
        images, labels = self.loader.batch(step)
        self._begin(step, self.optimizer)
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
        if self.before_step is not None:
            self.before_step(step + 1, self.scaler.get_scale() if scaled else 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        with torch.no_grad():
            self.loss = loss.detach()
            self.loss_sum += self.loss
            self.correct += self.task.correct(logits.detach(), labels)
            self.count += len(labels)

    def loss_so_far(self) -> float | None:
        """Return the mean loss per batch."""
        return float(self.loss_sum) / (self.count / self.loader.batch_size) if self.count else None

    def measured(self) -> dict[str, float | None]:
        """Return ``train_loss`` and ``train_accuracy`` (or ``train_dice``) over the batches since the last point."""
        return {
            "train_loss": self.loss_so_far(),
            f"train_{self.task.training_measure}": self.correct.item() / self.count if self.count else None,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the states of model, optimizer, scaler and preconditioner, and the sums."""
        return super().state_dict() | {
            "optimizer": self.optimizer.state_dict(),
            "preconditioner": None if self.preconditioner is None else self.preconditioner.state_dict(),
            "loss_sum": self.loss_sum,
            "correct": self.correct,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a :meth:`state_dict`."""
        super().load_state_dict(state)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.preconditioner is not None:
            self.preconditioner.load_state_dict(state["preconditioner"])
        self.loss_sum, self.correct = state["loss_sum"], state["correct"]

    def close(self) -> None:
        """Remove the preconditioner's hooks."""
        if self.preconditioner is not None:
            self.preconditioner.remove()
