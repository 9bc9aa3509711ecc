"""Image classification: cross-entropy and accuracy."""

import hashlib
from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gbn.config.datasets import LabeledConfig
from gbn.config.schema import AttackConfig, Config
from gbn.config.tasks import ClassificationConfig
from gbn.data import DeviceSet, ForeignImages, ImageSet, TrainLoader, fitted, load
from gbn.tasks.base import Task, training_part
from gbn.tasks.classification.evaluation import ClassificationEvaluator
from gbn.tasks.evaluation import Scores, inference


class Classification(Task):
    """Cross-entropy with optional label smoothing; accuracy of the largest logit.

    Args:
        label_smoothing: fraction of the target spread evenly over all classes, in training only: reported losses
            are plain cross-entropy, so that runs with and without smoothing are comparable.
    """

    training_measure = "accuracy"

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    @staticmethod
    def digest(config: Config, data: ImageSet) -> str:
        """Return the digest of the data set, and of that of an attack."""
        assert isinstance(config.dataset, LabeledConfig)
        foreign = _foreign(config.trainer.attack, config.dataset)
        if foreign is None:
            return data.digest
        return f"2:{hashlib.sha256(f'{data.digest} {foreign.digest}'.encode()).hexdigest()}"

    @classmethod
    def build(
        cls, config: Config, data: ImageSet, device: torch.device
    ) -> tuple[TrainLoader, ClassificationEvaluator, Self]:
        """Return (loader, evaluator, task): a part of the training images is for validation."""
        options = config.dataset
        assert isinstance(config.task, ClassificationConfig)
        assert isinstance(options, LabeledConfig)
        task = cls(config.task.label_smoothing)
        shared: dict[str, Any] = {"device": device, "channels_last": config.trainer.channels_last}
        of = (data.mean, data.std)
        train = DeviceSet(data.train_images, data.train_labels, *of, augmentation=options.augment, **shared)
        test = DeviceSet(data.test_images, data.test_labels, *of, **shared)
        training, validation = training_part(options, data.train_labels, config.seed)
        evaluator = ClassificationEvaluator(config, task, train, test, training, validation)
        attack, append = config.trainer.attack, None
        if (foreign := _foreign(attack, options)) is not None:
            images = fitted(foreign.train_images, data.in_channels, data.image_size)
            append = ForeignImages(images, *of, count=attack.images, seed=config.seed, **shared).appended
        return TrainLoader(train, training, config.trainer.batch_size, config.seed, append), evaluator, task

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
    ) -> Scores:
        """Return mean ``loss`` and ``accuracy`` over batches in evaluation mode; the model's mode is restored.

        Raises:
            ValueError: ``batches`` holds no image.
        """
        loss, correct, count = 0.0, 0.0, 0
        with inference(model, autocast):
            for images, labels in batches:
                logits = model(images).float()
                loss += F.cross_entropy(logits, labels, reduction="sum").double().item()
                correct += self.correct(logits, labels).item()
                count += len(labels)
        if count == 0:
            raise ValueError("nothing to evaluate on: no image in the given batches")
        return {"loss": loss / count, "accuracy": correct / count}


def _foreign(attack: AttackConfig, options: LabeledConfig) -> ImageSet | None:
    """Return the set whose images an attack adds to training batches; None without an attack."""
    return None if attack.dataset is None else load(attack.dataset, options.root, options.download)
