"""Image classification: cross-entropy and accuracy."""

from collections.abc import Iterable
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Classification:
    """Cross-entropy with optional label smoothing; accuracy of the largest logit.

    Args:
        label_smoothing: share of the target spread evenly over all classes, in training only: reported losses
            are plain cross-entropy, so that runs with and without smoothing compare.
    """

    training_measure = "accuracy"

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The training loss, a float32 scalar, of logits (B, K) and labels (B,)."""
        return F.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing)

    @staticmethod
    def correct(logits: Tensor, labels: Tensor) -> Tensor:
        """How many labels the largest logits hit, an integer scalar."""
        return (logits.argmax(1) == labels).sum()

    def evaluate(
        self,
        model: nn.Module,
        batches: Iterable[tuple[Tensor, Tensor]],
        autocast: AbstractContextManager[object],
    ) -> tuple[float, float]:
        """Mean loss and accuracy over batches, in evaluation mode; the model's mode is put back afterwards.

        Raises:
            ValueError: there is no image in ``batches``.
        """
        training = model.training
        model.eval()
        loss, correct, count = 0.0, 0.0, 0
        try:
            with torch.no_grad(), autocast:
                for images, labels in batches:
                    logits = model(images).float()
                    loss += F.cross_entropy(logits, labels, reduction="sum").double().item()
                    correct += self.correct(logits, labels).item()
                    count += len(labels)
        finally:
            model.train(training)
        if count == 0:
            raise ValueError("nothing to evaluate on: no image in the given batches")
        return loss / count, correct / count
