"""Evaluation of a classifier: loss and accuracy on a validation slice, the whole validation set and the test set."""

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from gbn.config.schema import Config
from gbn.data import DeviceSet, subset
from gbn.tasks.evaluation import Scores, SupervisedEvaluator

if TYPE_CHECKING:
    from gbn.tasks.classification.task import Classification


class ClassificationEvaluator(SupervisedEvaluator):
    """Evaluates a classifier.

    Args:
        config: the run's.
        task: loss and accuracy.
        train: the training set, in which the validation images are, too.
        test: the test set.
        training: indices of the training images, int64 (n,).
        validation: indices of the validation images, int64 (v,).
    """

    quality = "accuracy"

    def __init__(
        self,
        config: Config,
        task: "Classification",
        train: DeviceSet,
        test: DeviceSet,
        training: Tensor,
        validation: Tensor,
    ) -> None:
        options, labels = config.trainer.evaluation, train.labels.cpu()
        calibration = subset(labels, min(options.calibration_images, len(training)), training)
        few = options.images < len(validation)
        points = subset(labels, options.images, validation) if few else validation
        super().__init__(config, train.images.device, train, calibration, points)
        self.task = task
        self.parts = {"val": (train, validation), "test": (test, torch.arange(len(test)))}

    def scores(self, model: nn.Module, part: Literal["val", "test"], indices: Tensor | None = None) -> Scores:
        """Return ``loss`` and ``accuracy``."""
        data, whole = self.parts[part]
        batches = data.batches(whole if indices is None else indices, self.batch)
        return self.task.evaluate(model, batches, self.autocast())

    def recorded(self) -> tuple[DeviceSet, Tensor]:
        """Return the training set and the images that exact statistics are computed from."""
        assert isinstance(self.train, DeviceSet)
        return self.train, self.calibration
