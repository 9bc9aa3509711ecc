"""Optimizers and learning-rate schedules from their configuration."""

from gbn.optim.optimizers import build_optimizer
from gbn.optim.schedules import learning_rate, schedule_factor

__all__ = ["build_optimizer", "learning_rate", "schedule_factor"]
