"""The schema of the group ``dataset``: images with labels, and slices with masks.

The keys of slices are explained in :mod:`gbn.data.segmentation.acdc`, :mod:`gbn.data.segmentation.framing` and
:mod:`gbn.data.segmentation.warp`.
"""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple

from pydantic import Field, model_validator

from gbn.config.custom import CustomSection
from gbn.config.section import Count, NonNegative, Positive, Section, Share, Text
from gbn.targets import DATASET, Kind


class Shape(NamedTuple):
    """The side of a square image in pixels, and its number of channels."""

    side: int
    channels: int


#: The data sets of :data:`gbn.data.DATASETS`, by name, with the shape of their images.
SHAPES = {
    "digits": Shape(8, 1),
    "mnist": Shape(28, 1),
    "fashion_mnist": Shape(28, 1),
    "cifar10": Shape(32, 3),
    "cifar100": Shape(32, 3),
    "svhn": Shape(32, 3),
}

if TYPE_CHECKING:
    DatasetName = str
else:
    DatasetName = Literal[tuple(SHAPES)]


class LabeledConfig(Section):
    """The keys shared by all data sets with labels: validation images cut from the training part, augmentation.

    `allow_changed` trains even if the files differ from those that earlier updates, or comparable runs, were
    trained on (:mod:`gbn.store.trained_on`).
    """

    has_masks: ClassVar[bool] = False
    revision: Count
    root: Text | None = None
    download: bool = True
    allow_changed: bool = False
    validation: Count
    subset: Count | None = None
    augment: Literal["none", "flip", "crop", "crop_flip"] = "none"


class DatasetConfig(LabeledConfig):
    """A data set of :data:`gbn.data.DATASETS`."""

    name: DatasetName


class CustomDatasetConfig(LabeledConfig, CustomSection):
    """A data set of another package, with labels; the shape of its images is known once it is loaded."""

    group: ClassVar[str] = "dataset"
    kind: ClassVar[Kind] = DATASET
    name: Literal["custom"]


Fold = Annotated[int, Field(ge=0, le=4)]
Pixels = Annotated[int, Field(ge=1, le=4096)]


class WarpConfig(Section):
    """The ranges of `dataset.augment`: the last two are for elastic warps, all others for affine ones."""

    rotation: NonNegative = 10.0
    shift: Share = 0.1
    shear: NonNegative = 0.1
    zoom: Share = 0.05
    alpha: Positive = 500.0
    sigma: Annotated[float, Field(ge=1, le=1000)] = 20.0


class SlicesConfig(Section):
    """The keys shared by all sets of slices; `allow_changed` as in :class:`LabeledConfig`."""

    has_masks: ClassVar[bool] = True
    subset: ClassVar[None] = None
    revision: Count
    root: Text | None = None
    allow_changed: bool = False
    structures: Literal["cavity", "epicardium", "both"] = "both"
    side: Pixels = 96
    window: Pixels | Literal["whole"] | None = None
    normalise: Literal["slice", "volume", "none"] = "volume"
    empty_slices: Literal["keep", "drop"] = "drop"
    augment: Literal["none", "affine", "elastic", "affine_elastic"] = "affine_elastic"
    warp: WarpConfig = WarpConfig()

    @model_validator(mode="after")
    def _warps_that_are_used(self) -> "SlicesConfig":
        for name, field in WarpConfig.model_fields.items():
            kind = "elastic" if name in ("alpha", "sigma") else "affine"
            if kind not in self.augment and getattr(self.warp, name) != field.default:
                raise ValueError(
                    f"dataset.warp.{name} belongs to {kind} warps, but dataset.augment={self.augment} has none: "
                    f"leave it out, or use dataset.augment={kind}"
                )
        return self


class CardiacConfig(SlicesConfig):
    """ACDC, split by patient."""

    name: Literal["cardiac"]
    patients: Literal["core45", "all"] | list[str] = "core45"
    frames: Literal["both", "ed", "es"] = "both"
    split: Literal["fold5", "split_70_10_20"] = "fold5"
    test_fold: Fold = 0
    validation_fold: Fold | None = None

    @model_validator(mode="after")
    def _two_folds(self) -> "CardiacConfig":
        if self.test_fold == self.validation_fold:
            raise ValueError(
                f"dataset.test_fold and dataset.validation_fold are both {self.test_fold}: name two different folds, "
                "or leave dataset.validation_fold out"
            )
        if self.split != "fold5" and (self.test_fold != 0 or self.validation_fold is not None):
            raise ValueError(
                f"dataset.test_fold and dataset.validation_fold belong to dataset.split=fold5, not to {self.split}"
            )
        return self


class SunnybrookConfig(SlicesConfig):
    """Sunnybrook Cardiac Data, split as in the challenge."""

    name: Literal["sunnybrook"]
