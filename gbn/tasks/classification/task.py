"""Image classification: cross-entropy and accuracy."""

from collections.abc import Iterable
from contextlib import AbstractContextManager

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Classification:
    """Cross-entropy with optional label smoothing; accuracy of the largest logit.

    Args:
        label_smoothing: fraction of the target spread evenly over all classes, in training only: reported losses
            are plain cross-entropy, so that runs with and without smoothing are comparable.
    """

    training_measure = "accuracy"

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the training loss of logits (B, K) and labels (B,), a float32 scalar."""
        return F.cross_entropy(logits.float(), labels, label_smoothing=self.label_smoothing)

    @staticmethod
    def correct(logits: Tensor, labels: Tensor) -> Tensor:
        """Return the number of samples whose largest logit is at the label, an integer scalar."""
        return (logits.argmax(1) == labels).sum()

    def evaluate(
        self,
        model: nn.Module,
        batches: Iterable[tuple[Tensor, Tensor]],
        autocast: AbstractContextManager[object],
    ) -> tuple[float, float]:
        """Return mean loss and accuracy over batches in evaluation mode; the model's mode is restored afterwards.

        Raises:
            ValueError: ``batches`` holds no image.
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
