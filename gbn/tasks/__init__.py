"""Kinds of problems: the loss, the metrics and the evaluation of each."""

from gbn.tasks.classification import Classification
from gbn.tasks.generation import Generation
from gbn.tasks.segmentation import Segmentation

__all__ = ["Classification", "Generation", "Segmentation"]
