"""Optimizers and learning-rate schedules from their configuration; batch normalization preconditioning."""

from gbn.optim.optimizers import build_optimizer, build_preconditioner
from gbn.optim.preconditioning import BatchNormPreconditioner
from gbn.optim.schedules import learning_rate, schedule_factor

__all__ = [
    "BatchNormPreconditioner",
    "build_optimizer",
    "build_preconditioner",
    "learning_rate",
    "schedule_factor",
]
