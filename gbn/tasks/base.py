"""The interface of a task to the engine: its data, its parts, its updates. One subclass per folder of gbn/tasks."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from gbn.config.datasets import CustomDatasetConfig, LabeledConfig
from gbn.config.schema import Config
from gbn.data import TrainLoader, load, load_custom, split, subset
from gbn.tasks.evaluation import Evaluator
from gbn.tasks.updates import Supervised, Updates

__all__ = ["Task", "training_part"]


class Task(ABC):
    """The loss of a run; its class loads the data and builds the other parts.

    Attributes:
        updates: what one update of the run does.
    """

    updates: ClassVar[type[Updates]] = Supervised

    @staticmethod
    def load(config: Config) -> Any:
        """Return the data set of a configuration: an ImageSet, or another set with ``digest`` and the sizes of one.

        Raises:
            DataError: the set is missing or broken.
            ValueError: the loader of another package cannot be loaded or returns something else.
        """
        options: Any = config.dataset
        if isinstance(options, CustomDatasetConfig):
            return load_custom(options.target or "", options.kwargs, options.root, options.download)
        return load(options.name, options.root, options.download)

    @staticmethod
    def digest(config: Config, data: Any) -> str:
        """Return the digest of all files that a run is trained and tested on (:mod:`gbn.store.trained_on`).

        Raises:
            DataError: a further data set that the run needs is missing or broken.
        """
        return str(data.digest)

    @classmethod
    @abstractmethod
    def build(cls, config: Config, data: Any, device: torch.device) -> tuple[TrainLoader, Evaluator, Self]:
        """Return (loader, evaluator, task) of a run, with the images of the loaded data on the device."""


def training_part(options: LabeledConfig, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Return (training indices, validation indices) of a training set with labels (N,)."""
    training, validation = split(labels, options.validation, seed)
    if options.subset is not None:
        training = subset(labels, options.subset, training)
    return training, validation
