"""The schema of the group ``task``: one class per task, with what it implies and what it cannot work with."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

from pydantic import model_validator

from gbn.config.datasets import SHAPES
from gbn.config.features import digest_of
from gbn.config.section import Count, NonNegative, Section, Share

__all__ = [
    "ClassificationConfig",
    "GenerationConfig",
    "SegmentationConfig",
    "TaskConfig",
    "with_implied",
]


class _Task(Section):
    """A task.

    Attributes:
        networks: in words, the networks that it is for.
        needs_masks: whether it learns from a data set with masks; all others have labels.
        implied: overrides placed before those of the command line and in their order, for a task for which the
            classifiers' defaults make no sense.
    """

    networks: ClassVar[str]
    needs_masks: ClassVar[bool] = False
    implied: ClassVar[tuple[str, ...]] = ()

    def problems(self, config: Any) -> list[str]:
        """Return what the task cannot work with in a configuration (:class:`gbn.config.schema.Config`)."""
        task, model, data = config.task.name, config.model, config.dataset
        if model.task != task:
            return [
                f"model={model.name} belongs to task={model.task}, task={task} was given: use task={model.task}, or "
                f"model={self.networks}"
            ]
        if data.has_masks and not self.needs_masks:
            return [
                f"dataset={data.name} has masks, task={task} needs labels: use task=segmentation, or another data set"
            ]
        if self.needs_masks and not data.has_masks:
            return [
                f"task={task} needs masks, dataset={data.name} has labels: use dataset=cardiac or sunnybrook"
            ]
        return self._own_problems(config)

    def _own_problems(self, config: Any) -> list[str]:
        """Return them for a network and a data set that are of this task."""
        raise NotImplementedError


class ClassificationConfig(_Task):
    """Classification of images: cross-entropy and accuracy."""

    networks = "cnn, resnet or another classifier"
    name: Literal["classification"]
    revision: Count
    label_smoothing: Share = 0.0

    def _own_problems(self, config: Any) -> list[str]:
        model, data, found = config.model, config.dataset, []
        if data.name not in SHAPES:  # of another package: its size shows when it is loaded
            return []
        size = SHAPES[data.name].side
        if size < model.smallest:
            found.append(
                f"model={model.name} needs images of at least {model.smallest}x{model.smallest}, dataset={data.name} "
                f"has {size}x{size}: use model=cnn, resnet or mlp, or another data set"
            )
        if model.name == "inception_v3" and model.aux:
            found.append(
                f"model.aux=true needs images of at least 299x299, dataset={data.name} has {size}x{size}: leave it "
                "false"
            )
        if config.norm.method == "instance" and size <= model.one_value_up_to:
            found.append(
                f"norm=instance has a single value per channel somewhere in model={model.name} with dataset="
                f"{data.name}: use norm=layer or group, or another model"
            )
        return found


class GenerationConfig(_Task):
    """A generator against a discriminator; quality by FID and KID over the features of a fixed network.

    `features_digest` identifies that network; it is read from the committed file beside the weights, so that it
    is part of the run's identity.
    """

    networks = "dcgan"
    implied = (
        "model=dcgan",
        "dataset=cifar10",
        "dataset.augment=none",  # as in Radford et al.; flips are optional
        "optimizer=adam",
        "optimizer.lr=0.0002",
        "optimizer.beta1=0.5",
    )
    name: Literal["generation"]
    revision: Count
    noise: Literal["uniform", "normal"] = "uniform"
    features: Literal["own", "inception"] = "own"
    features_digest: str | None = None
    real_images: Count = 10_000

    @model_validator(mode="after")
    def _measured_with_what_is_here(self) -> "GenerationConfig":
        found = digest_of(self.features)
        if self.features_digest not in (None, found):
            raise ValueError(
                f"task.features={self.features} is the network {found} here, task.features_digest="
                f"{self.features_digest} asks for another: numbers of the two can't be compared; leave "
                "task.features_digest out, or put back the files of results/features that belong to it"
            )
        self.features_digest = found
        return self

    @property
    def suffix(self) -> str:
        """The suffix of the measures' names: ``inception``, or ``own_<digest>``."""
        return self.features if self.features == "inception" else f"{self.features}_{self.features_digest}"

    def _own_problems(self, config: Any) -> list[str]:
        found = []
        fitting = [name for name, shape in SHAPES.items() if shape == config.model.makes]
        if config.dataset.name not in fitting:
            found.append(
                f"model={config.model.name} makes color images of 32x32, dataset={config.dataset.name} has none: use "
                f"dataset={', '.join(fitting)}"
            )
        if "crop" in config.dataset.augment:
            found.append(
                f"dataset.augment={config.dataset.augment} pads real images with black, which a generator would "
                "learn: use dataset.augment=none or flip"
            )
        if config.norm.without_act != "same":
            found.append(
                f"norm.without_act={config.norm.without_act} with model=dcgan: its discriminator applies "
                "LeakyReLU(0.2) behind norms built without activation, so no norm there lacks one; use "
                "norm.without_act=same"
            )
        found += _of_classifiers_alone(config)
        if config.trainer.evaluation.test_every != 1.0:
            found.append(
                "trainer.evaluation.test_every belongs to tasks with a test set, task=generation has none: leave it "
                "out"
            )
        if config.trainer.evaluation.images < 2:
            found.append("trainer.evaluation.images=1: FID and KID need at least 2 generated images")
        return found


class SegmentationConfig(_Task):
    """Segmentation of structures: soft Dice and cross-entropy loss; Dice and contour distances as measures."""

    networks = "unet"
    needs_masks = True
    implied = ("model=unet", "dataset=cardiac", "optimizer=adam", "trainer.batch_size=16")
    name: Literal["segmentation"]
    revision: Count
    cross_entropy: NonNegative = 1.0
    dice_over: Literal["batch", "slice"] = "batch"

    def _own_problems(self, config: Any) -> list[str]:
        found = _of_classifiers_alone(config)
        smallest = 2**config.model.depth
        if config.dataset.side < smallest:
            found.append(
                f"dataset.side={config.dataset.side} is less than the {smallest} pixels that model.depth="
                f"{config.model.depth} halves to one: use a larger side or a lower depth"
            )
        if config.norm.method == "instance" and config.dataset.side <= smallest:
            found.append(
                f"norm=instance has a single value per channel at the bottom of model=unet with dataset.side="
                f"{config.dataset.side}: use norm=layer or group, or a larger side"
            )
        return found


TaskConfig = ClassificationConfig | GenerationConfig | SegmentationConfig


def _of_classifiers_alone(config: Any) -> list[str]:
    """Return errors for configured options that only work with one network and its labels."""
    return [
        f"{key} works with one network and its labels: it needs task=classification"
        for key, used in (
            ("optimizer.precondition=bnp", config.optimizer.precondition != "none"),
            (
                "trainer.attack",
                config.trainer.attack.constant is not None or config.trainer.attack.images > 0,
            ),
            ("trainer.record.layers=true", config.trainer.record.layers),
        )
        if used
    ]


def with_implied(overrides: Sequence[str]) -> list[str]:
    """Prepend the overrides that the task implies, except those of a key or optimizer set explicitly.

    >>> with_implied(["task=generation", "optimizer=sgd", "dataset.augment=flip"])
    ['model=dcgan', 'dataset=cifar10', 'task=generation', 'optimizer=sgd', 'dataset.augment=flip']
    """
    given = {text.lstrip("+").split("=", 1)[0] for text in overrides}
    named = next((text.split("=", 1)[1] for text in overrides if text.startswith("task=")), "")
    kept = [
        one
        for task in get_args(TaskConfig)
        if named in get_args(task.model_fields["name"].annotation)
        for one in task.implied
        if (key := one.split("=", 1)[0]) not in given
        and not (key.startswith("optimizer.") and "optimizer" in given)
    ]
    return [*kept, *overrides]
