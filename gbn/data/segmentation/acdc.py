"""ACDC, the Automated Cardiac Diagnosis Challenge (Bernard et al., IEEE TMI 37(11), 2018), in its packed form.

Cine MRI, short axis, at end-diastole and end-systole: ``acdc-cardiac/patientNNN_frameMM.npz`` with ``image``, float
(slices, H, W), and ``label``: 1 right ventricle, 2 myocardium, 3 cavity of the left ventricle. ``patients.csv`` has
one row per patient, with frames, folds and subsets. The pixel spacing is not included, so distances are in stored
pixels.

CC BY-NC-SA 4.0; the authors distribute it after registration and ask to be cited.
"""

import csv
import hashlib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gbn.data.image_set import DataError
from gbn.data.segmentation.framing import Framing, framed, normalized
from gbn.data.segmentation.segmentation_set import (
    STRUCTURES,
    Part,
    Picture,
    SegmentationSet,
    Structures,
    check_split,
    segmentation_set,
)

FOLDER = "acdc-cardiac"
MYOCARDIUM, CAVITY = 2, 3
Frames = Literal["both", "ed", "es"]
Split = Literal["fold5", "split_70_10_20"]
_COLUMNS = (
    "patient",
    "ed_frame",
    "es_frame",
    "slices",
    "height",
    "width",
    "fold5",
    "split_70_10_20",
    "core45",
)


@dataclass(frozen=True)
class Patients:
    """The choice of patients and their split.

    Attributes:
        chosen: "core45" (the 45 in the packed set), "all" (every row of patients.csv), or names ("001", ...).
        frames: end-diastole, end-systole or both.
        split: "fold5" for five folds, two of them named below; "split_70_10_20" for the fixed split of patients.csv.
        test_fold: the fold for testing; only with fold5.
        validation_fold: the fold for validation; None for the one after the test fold. The other three are for
            training.

    Raises:
        ValueError: a fold other than 0 to 4, or the same fold for both.
    """

    chosen: Literal["core45", "all"] | Sequence[str] = "core45"
    frames: Frames = "both"
    split: Split = "fold5"
    test_fold: int = 0
    validation_fold: int | None = None

    def __post_init__(self) -> None:
        for fold in (self.test_fold, self.held_out):
            if fold not in range(5):
                raise ValueError(f"the folds are 0 to 4, {fold} was given")
        if self.test_fold == self.held_out:
            raise ValueError(
                f"test_fold and validation_fold are both {self.test_fold}: name two different folds"
            )

    @property
    def held_out(self) -> int:
        """The number of the validation fold."""
        return (self.test_fold + 1) % 5 if self.validation_fold is None else self.validation_fold

    def part(self, row: dict[str, str]) -> Part:
        """Return the part that a row of patients.csv belongs to."""
        if self.split == "split_70_10_20":
            parts: dict[str, Part] = {"train": "train", "val": "val", "test": "test"}
            return parts[row["split_70_10_20"]]
        special: dict[int, Part] = {self.test_fold: "test", self.held_out: "val"}
        return special.get(int(row["fold5"]), "train")


def cardiac(
    root: Path,
    structures: Structures = "both",
    patients: Patients | None = None,
    framing: Framing | None = None,
) -> SegmentationSet:
    """Read the set into memory.

    Args:
        root: the folder that holds ``acdc-cardiac``.
        structures: which masks: the cavity (label 3), the epicardial region (labels 2 and 3), or both as channels.
        patients: the patients and the part that each belongs to; the defaults of :class:`Patients` if None.
        framing: window, side and intensities; the defaults of :class:`gbn.data.segmentation.framing.Framing` if None.

    Raises:
        DataError: files are missing or broken, labels are out of range, a mask does not match its image, there is no
            patient, or one is in two parts; the message is one line that names the file.
    """
    patients, framing = patients or Patients(), framing or Framing()
    table = root / FOLDER / "patients.csv"
    rows = _chosen(table, patients)
    split: dict[Part, list[str]] = {"train": [], "val": [], "test": []}
    for row in rows:
        split[patients.part(row)].append(row["patient"])
    check_split("cardiac", split)

    files = [(row, path) for row in rows for path in _files(table.parent, row, patients.frames)]
    _check_present([path for _, path in files])
    content, pictures = hashlib.sha256(), []
    for row, path in files:
        image, label = _volume(path, row)
        content.update(f"{path.name}{image.shape}".encode() + image.tobytes() + label.tobytes())
        pictures += _pictures(path, row["patient"], image, label, structures, framing)
    return segmentation_set("cardiac", STRUCTURES[structures], pictures, split, "px", content.hexdigest())


def _chosen(table: Path, patients: Patients) -> list[dict[str, str]]:
    """Return the selected rows of patients.csv, checked."""
    try:
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"cardiac: {table} cannot be read ({error.__class__.__name__}): put the unpacked folder {FOLDER} there, "
            "or name the folder that holds it with dataset.root=... or the environment variable GBN_DATA"
        ) from error
    if not rows:
        raise DataError(f"cardiac: {table} lists no patient")
    missing = [column for column in _COLUMNS if column not in rows[0]]
    if missing:
        raise DataError(f"cardiac: {table} has no column {', '.join(missing)}")
    for row in rows:
        _check_row(table, row)
    names = [row["patient"] for row in rows]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise DataError(f"cardiac: {table} lists patient {min(twice)} twice: a patient belongs to one part")
    if patients.chosen == "all":
        return rows
    if patients.chosen == "core45":
        return [row for row in rows if row["core45"] == "1"]
    unknown = [name for name in patients.chosen if name not in names]
    if unknown:
        raise DataError(
            f"cardiac: {table} has no patient {unknown[0]!r}; its patients are {names[0]} to {names[-1]}"
        )
    return [row for row in rows if row["patient"] in patients.chosen]


def _check_row(table: Path, row: dict[str, str]) -> None:
    wanted = f"cardiac: {table}, patient {row['patient']}:"
    for column in ("ed_frame", "es_frame", "slices", "height", "width"):
        if not (row[column] or "").isdigit():
            raise DataError(f"{wanted} {column} is {row[column]!r}, which must be an integer")
    if row["fold5"] not in tuple("01234"):
        raise DataError(f"{wanted} fold5 is {row['fold5']!r}, allowed are 0 to 4")
    if row["split_70_10_20"] not in ("train", "val", "test"):
        raise DataError(f"{wanted} split_70_10_20 is {row['split_70_10_20']!r}, allowed are train, val, test")


def _files(folder: Path, row: dict[str, str], frames: Frames) -> list[Path]:
    wanted = {"both": ("ed_frame", "es_frame"), "ed": ("ed_frame",), "es": ("es_frame",)}[frames]
    return [folder / f"patient{row['patient']}_frame{int(row[frame]):02d}.npz" for frame in wanted]


def _check_present(files: list[Path]) -> None:
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise DataError(
            f"cardiac: {missing[0]} is missing ({len(missing)} of {len(files)} files are): the packed set has the "
            "patients of dataset.patients=core45; add the others' files, or choose among those that are there"
        )


def _volume(path: Path, row: dict[str, str]) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Return the image (slices, H, W) and the label of one file, checked."""
    try:
        # Opened here because numpy leaves a file open that it cannot read.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            image, label = file["image"], file["label"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split()) or error.__class__.__name__
        raise DataError(
            f"cardiac: {path} is truncated or not an archive of image and label: {reason}"
        ) from error
    said = tuple(int(row[column]) for column in ("slices", "height", "width"))
    if image.shape != said or image.dtype.kind != "f":
        raise DataError(
            f"cardiac: {path}: the image is {image.dtype} {image.shape}, patients.csv says float {said} "
            "(slices, H, W)"
        )
    if label.shape != image.shape:
        raise DataError(f"cardiac: {path}: the mask {label.shape} does not match its image {image.shape}")
    if label.dtype.kind not in "ui" or label.min() < 0 or label.max() > CAVITY:
        raise DataError(
            f"cardiac: {path}: labels are {label.dtype} from {label.min()} to {label.max()}; allowed are the "
            "integers 0 background, 1 right ventricle, 2 myocardium, 3 cavity"
        )
    if not np.isfinite(image).all():
        raise DataError(f"cardiac: {path}: the image has values that are not finite")
    return image.astype(np.float32), label.astype(np.uint8)


def _pictures(
    path: Path,
    patient: str,
    image: NDArray[np.float32],
    label: NDArray[np.uint8],
    structures: Structures,
    framing: Framing,
) -> list[Picture]:
    regions = {"cavity": label == CAVITY, "epicardium": label >= MYOCARDIUM}
    masks = np.stack([regions[structure] for structure in STRUCTURES[structures]], 1)
    scaled = normalized(image, framing.normalise)
    pictures = []
    for index, (plane, drawn) in enumerate(zip(scaled, masks, strict=True)):
        square, cut, scale = framed(plane, drawn, framing)
        if framing.empty_slices == "drop" and not cut.any():
            continue
        place = f"{path.name} slice {index}"
        pictures.append(Picture(square, cut, patient, place, (scale, scale)))
    return pictures
