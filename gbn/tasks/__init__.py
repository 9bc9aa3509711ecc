"""Kinds of problems: the loss, the metrics and the evaluation of each."""

from gbn.tasks.classification import Classification

__all__ = ["Classification"]
