"""The representation of a segmentation set: slices, masks of structures and their patients, split by patient."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from gbn.data.image_set import DataError
from gbn.data.loader import InMemory
from gbn.data.segmentation.warp import Warp, warp

Structures = Literal["cavity", "epicardium", "both"]
"""cavity: the left ventricle's blood pool (endocardial contour); epicardium: with myocardium; both: two masks."""
STRUCTURES: dict[Structures, tuple[str, ...]] = {
    "cavity": ("cavity",),
    "epicardium": ("epicardium",),
    "both": ("cavity", "epicardium"),
}
"""Choice in the configuration -> channels of the masks."""
Part = Literal["train", "val", "test"]
PARTS: tuple[Part, ...] = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Slices:
    """The slices of some patients, on the CPU; a patient's slices are contiguous.

    Attributes:
        images: float32 (N, 1, S, S), normalized.
        masks: bool (N, K, S, S), one channel per structure.
        patients: int64 (N,), indices into the set's ``patients``.
        pixel_size: float32 (N, 2), height and width of one pixel in the set's ``unit``.
        places: human-readable origin of each slice: its file and slice.
    """

    images: Tensor
    masks: Tensor
    patients: Tensor
    pixel_size: Tensor
    places: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, eq=False)
class SegmentationSet:
    """Slices with masks in three parts that share no patient.

    Attributes:
        name: its name in the configuration.
        structures: names of the masks' channels.
        patients: names of all patients of the three parts.
        train: the part for training.
        val: the part for curves and choices.
        test: the part that is used only at the end.
        unit: unit of distances: "mm", or "px" (pixels of the stored images) if the spacing is unknown.
        digest: identifies the data from which it was read, including the parts (:mod:`gbn.store.trained_on`).
    """

    name: str
    structures: tuple[str, ...]
    patients: tuple[str, ...]
    train: Slices
    val: Slices
    test: Slices
    unit: Literal["mm", "px"]
    digest: str

    @property
    def in_channels(self) -> int:
        """Number of channels of an image."""
        return self.train.images.shape[1]

    @property
    def image_size(self) -> int:
        """Side of an image in pixels."""
        return self.train.images.shape[2]

    @property
    def num_classes(self) -> int:
        """Number of structures: each has its own logit."""
        return len(self.structures)

    def part(self, name: Part) -> Slices:
        """Return the slices of one part by its name."""
        return {"train": self.train, "val": self.val, "test": self.test}[name]

    def patients_of(self, name: Part) -> tuple[str, ...]:
        """Return the patients of one part, in the set's order."""
        return tuple(self.patients[index] for index in self.part(name).patients.unique().tolist())


@dataclass(frozen=True, eq=False)
class Picture:
    """One framed slice on its way into a set.

    Attributes:
        image: float32 (S, S), normalized.
        masks: bool (K, S, S).
        patient: the patient whose slice it is.
        place: its human-readable origin.
        pixel_size: height and width of a pixel.
    """

    image: Tensor
    masks: Tensor
    patient: str
    place: str
    pixel_size: tuple[float, float]


def segmentation_set(
    name: str,
    structures: tuple[str, ...],
    pictures: Sequence[Picture],
    split: Mapping[Part, Sequence[str]],
    unit: Literal["mm", "px"],
    digest: str,
) -> SegmentationSet:
    """Return a :class:`SegmentationSet` of framed slices, each part with the slices of its patients.

    Args:
        name: the set's name.
        structures: names of the masks' channels.
        pictures: all slices; those of patients in no part are left out.
        split: patients of each part.
        unit: unit of the pixel sizes.
        digest: identifies the contents of the files; the set's digest also covers the part of each patient.

    Raises:
        DataError: a part has no patients, a patient is named twice or has no slices, or no slice of a part shows
            some structure.
    """
    check_split(name, split)
    patients = tuple(sorted(patient for members in split.values() for patient in members))
    index = {patient: i for i, patient in enumerate(patients)}
    by_patient: dict[str, list[Picture]] = {patient: [] for patient in patients}
    for picture in pictures:
        if picture.patient in by_patient:
            by_patient[picture.patient].append(picture)
    for patient, own in by_patient.items():
        if not own:
            raise DataError(
                f"{name}: patient {patient} has no slice with {' and '.join(structures)}: check the patient's files, "
                "keep empty slices (dataset.empty_slices=keep) or leave the patient out"
            )
    parts = {}
    for part, members in split.items():
        chosen = [picture for patient in sorted(members) for picture in by_patient[patient]]
        parts[part] = Slices(
            torch.stack([picture.image for picture in chosen])[:, None].float(),
            torch.stack([picture.masks for picture in chosen]).bool(),
            torch.tensor([index[picture.patient] for picture in chosen]),
            torch.tensor([picture.pixel_size for picture in chosen]),
            tuple(picture.place for picture in chosen),
        )
        for structure, found in zip(structures, parts[part].masks.any((0, 2, 3)).tolist(), strict=True):
            if not found:
                raise DataError(
                    f"{name}: no slice of the {part} part shows the {structure}: nothing to learn or score"
                )
    of_parts = json.dumps([digest, *(sorted(split[part]) for part in PARTS)])
    digest = f"2:{hashlib.sha256(of_parts.encode()).hexdigest()}"
    return SegmentationSet(
        name, structures, patients, parts["train"], parts["val"], parts["test"], unit, digest
    )


def check_split(name: str, split: Mapping[Part, Sequence[str]]) -> None:
    """Check that no part of a split is missing or empty and that no patient is in two places.

    Raises:
        DataError: the split is not valid; the message is one line that names the part or the patient.
    """
    seen: dict[str, str] = {}
    for part in PARTS:
        if not split.get(part):
            raise DataError(
                f"{name}: the {part} part has no patient: choose other folds or more patients "
                "(dataset.split, dataset.test_fold, dataset.validation_fold, dataset.patients)"
            )
        for patient in split[part]:
            if patient in seen:
                where = f"in {seen[patient]} and {part}" if seen[patient] != part else f"twice in {part}"
                raise DataError(
                    f"{name}: patient {patient} is {where}: a patient's slices belong together, in one part"
                )
            seen[patient] = part


class SliceSet(InMemory):
    """A part on the training device, served as batches of images and masks: a DeviceSet with masks.

    Args:
        slices: the part; images and masks are moved to the device.
        augmentation: the warp that ``batch`` applies to image and mask when it is given a seed; None for no warp.
        **options: of :class:`gbn.data.InMemory`; masks are always float32.
    """

    def __init__(self, slices: Slices, *, augmentation: Warp | None = None, **options: Any) -> None:
        super().__init__(slices.images, **options)
        self.masks = slices.masks.to(self.images.device)
        self.augmentation = augmentation

    def batch(self, indices: Tensor, augment_seed: int | None = None) -> tuple[Tensor, Tensor]:
        """Return images (B, 1, S, S) and masks (B, K, S, S), float32 0 or 1, at ``indices``; with a seed, warped."""
        indices = indices.to(self.images.device, non_blocking=True)
        images, masks = self.images[indices], self.masks[indices].float()
        if augment_seed is not None and self.augmentation is not None:
            images, masks = warp(images, masks, self.augmentation, augment_seed)
        return images.to(self.dtype).contiguous(memory_format=self.memory_format), masks
