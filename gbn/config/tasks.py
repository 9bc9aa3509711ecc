"""The schema of the group ``task``: one class per kind of problem.

A task for which the classifiers' defaults make no sense brings its own: :data:`IMPLIED`, overrides placed before
those of the command line.
"""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import model_validator

from gbn.config.features import digest_of
from gbn.config.section import Count, NonNegative, Section, Share

__all__ = [
    "IMPLIED",
    "NETWORKS",
    "ClassificationConfig",
    "GenerationConfig",
    "SegmentationConfig",
    "TaskConfig",
    "problems",
    "with_implied",
]


class ClassificationConfig(Section):
    """Classification of images: cross-entropy and accuracy."""

    name: Literal["classification"]
    revision: Count
    label_smoothing: Share = 0.0


class GenerationConfig(Section):
    """A generator against a discriminator; quality by FID and KID over the features of a fixed network.

    `features_digest` identifies that network; it is read from the committed file beside the weights, so that it
    is part of the run's identity.
    """

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


class SegmentationConfig(Section):
    """Segmentation of structures: soft Dice and cross-entropy loss; Dice and contour distances as measures."""

    name: Literal["segmentation"]
    revision: Count
    cross_entropy: NonNegative = 1.0
    dice_over: Literal["batch", "slice"] = "batch"


TaskConfig = ClassificationConfig | GenerationConfig | SegmentationConfig

#: The networks of a task that is not classification; all others classify.
NETWORKS = {"generation": ("dcgan",), "segmentation": ("unet",)}

#: The data sets with masks; all others have labels.
WITH_MASKS = ("cardiac", "sunnybrook")

_COLOR_32 = ("cifar10", "cifar100", "svhn")

#: The overrides that a task implies unless the command line sets their keys, in the order of the command line.
IMPLIED = {
    "generation": (
        "model=dcgan",
        "dataset=cifar10",
        "dataset.augment=none",  # as in Radford et al.; flips are optional
        "optimizer=adam",
        "optimizer.lr=0.0002",
        "optimizer.beta1=0.5",
    ),
    "segmentation": ("model=unet", "dataset=cardiac", "optimizer=adam", "trainer.batch_size=16"),
}


def with_implied(overrides: Sequence[str]) -> list[str]:
    """Prepend the overrides that the task implies, except those of a key or optimizer set explicitly.

    >>> with_implied(["task=generation", "optimizer=sgd", "dataset.augment=flip"])
    ['model=dcgan', 'dataset=cifar10', 'task=generation', 'optimizer=sgd', 'dataset.augment=flip']
    """
    given = {text.lstrip("+").split("=", 1)[0] for text in overrides}
    task = next((text.split("=", 1)[1] for text in overrides if text.startswith("task=")), "")
    kept = [
        one
        for one in IMPLIED.get(task, ())
        if (key := one.split("=", 1)[0]) not in given
        and not (key.startswith("optimizer.") and "optimizer" in given)
    ]
    return [*kept, *overrides]


def problems(config: Any) -> list[str]:
    """Return what the task cannot work with in a configuration (:class:`gbn.config.schema.Config`)."""
    task, model = config.task.name, config.model.name
    own = {name: of for of, names in NETWORKS.items() for name in names}
    if own.get(model, "classification") != task:
        needed = ", ".join(NETWORKS.get(task, ())) or "cnn, resnet or another classifier"
        return [
            f"model={model} belongs to task={own.get(model, 'classification')}, task={task} was given: use "
            f"task={own.get(model, 'classification')}, or model={needed}"
        ]
    if (config.dataset.name in WITH_MASKS) != (task == "segmentation"):
        return [_wrong_set(config.dataset.name, task)]
    special = {"generation": _problems_of_generation, "segmentation": _problems_of_segmentation}
    return special[task](config) if task in special else []


def _wrong_set(name: str, task: str) -> str:
    if task == "segmentation":
        return (
            f"task=segmentation needs masks, dataset={name} has labels: use dataset={' or '.join(WITH_MASKS)}"
        )
    return f"dataset={name} has masks, task={task} needs labels: use task=segmentation, or another data set"


def _problems_of_generation(config: Any) -> list[str]:
    found = []
    if config.dataset.name not in _COLOR_32:
        found.append(
            f"model=dcgan makes color images of 32x32, dataset={config.dataset.name} has none: use dataset="
            f"{', '.join(_COLOR_32)}"
        )
    if "crop" in config.dataset.augment:
        found.append(
            f"dataset.augment={config.dataset.augment} pads real images with black, which a generator would learn: "
            "use dataset.augment=none or flip"
        )
    if config.norm.without_act != "same":
        found.append(
            f"norm.without_act={config.norm.without_act} with model=dcgan: its discriminator applies LeakyReLU(0.2) "
            "behind norms built without activation, so no norm there lacks one; use norm.without_act=same"
        )
    found += _of_classifiers_alone(config)
    if config.trainer.evaluation.test_every != 1.0:
        found.append(
            "trainer.evaluation.test_every belongs to tasks with a test set, task=generation has none: leave it out"
        )
    if config.trainer.evaluation.images < 2:
        found.append("trainer.evaluation.images=1: FID and KID need at least 2 generated images")
    return found


def _problems_of_segmentation(config: Any) -> list[str]:
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
