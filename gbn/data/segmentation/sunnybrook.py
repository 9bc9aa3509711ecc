"""The Sunnybrook Cardiac Data of the MICCAI 2009 left-ventricle challenge, in its original folder layout.

Contours are text files ``.../TrainingDataContours/SC-HF-I-01/contours-manual/IRCCI-expert/IM-0001-0048-icontour-
manual.txt`` ('i' endocardial, 'o' epicardial; also ValidationDataContours and OnlineDataContours); images are DICOM
files ``.../challenge_training/SC-HF-I-1/IM-0004-0048.dcm``. The patient's number may be written with or without
leading zeros. A contour identifies its image only by the last number, so the image of another series is used if it is
the only one.
BNU-Net's 805 images of 45 patients are those with an endocardial contour. Public domain (CC0).
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gbn.data.image_set import DataError
from gbn.data.segmentation.contour_files import filled, read_contour
from gbn.data.segmentation.dicom import read_slice
from gbn.data.segmentation.framing import Framing, framed, normalized
from gbn.data.segmentation.segmentation_set import (
    STRUCTURES,
    Part,
    Picture,
    SegmentationSet,
    Structures,
    segmentation_set,
)

PARTS_BY_FOLDER: dict[str, Part] = {
    "TrainingDataContours": "train",
    "ValidationDataContours": "val",
    "OnlineDataContours": "test",
}
_PATIENT = re.compile(r"SC-(HF-I|HF-NI|HYP|N)-0*(\d+)")
_CONTOUR = re.compile(r"IM-(\d+)-(\d+)-([io])contour-manual\.txt")
_IMAGE = re.compile(r"IM-(\d+)-(\d+)\.dcm")
_LETTER = {"cavity": "i", "epicardium": "o"}


def sunnybrook(
    root: Path,
    structures: Structures = "both",
    split: Mapping[Part, Sequence[str]] | None = None,
    framing: Framing | None = None,
) -> SegmentationSet:
    """Read the set into memory; distances are in mm.

    It consists of the slices with a contour of every requested structure. Epicardial contours are drawn at
    end-diastole only, so ``cavity`` has about twice as many slices as ``both``.

    Args:
        root: a folder above both contours and images.
        structures: which masks.
        split: patients of each part, such as ``SC-HF-I-1``; None for the challenge's parts, by the contours' folders.
        framing: window, side and intensities; here a volume consists of all contoured slices of a patient.

    Raises:
        DataError: there are no contours, a contour has no image or a broken one, points are outside the image, or a
            patient has no contour of a structure or is in two parts; the message is one line that names the file.
    """
    framing = framing or Framing()
    contours = _contours(root)
    images = _images(root)
    if split is None:
        split = _challenge_split(contours)
    wanted = {_canonical(name): part for part, names in split.items() for name in names}
    for patient in wanted:
        if patient not in contours:
            raise DataError(
                f"sunnybrook: {root} has no contours of patient {patient}: missing contours or a wrong name"
            )
    content, pictures = hashlib.sha256(), []
    for patient in sorted(wanted):
        pictures += _patient(
            patient, contours[patient], images.get(patient, {}), structures, framing, content
        )
    parts: dict[Part, list[str]] = {
        part: [_canonical(name) for name in names] for part, names in split.items()
    }
    return segmentation_set("sunnybrook", STRUCTURES[structures], pictures, parts, "mm", content.hexdigest())


Contours = dict[tuple[int, str], Path]
"""(number of the image, 'i' or 'o') -> file, for one patient."""
Images = dict[int, list[Path]]
"""Number of the image -> files of all series, for one patient."""


def _contours(root: Path) -> dict[str, Contours]:
    found: dict[str, Contours] = {}
    for path in sorted(root.rglob("IM-*contour-manual.txt")):
        match, patient = _CONTOUR.fullmatch(path.name), _patient_of(path, root)
        if match is None or patient is None:
            raise DataError(
                f"sunnybrook: {path} is not a contour of a patient: expected is "
                ".../SC-HF-I-01/.../IM-0001-0048-icontour-manual.txt (patients SC-HF-I, SC-HF-NI, SC-HYP, SC-N)"
            )
        own, key = found.setdefault(patient, {}), (int(match[2]), match[3])
        if key in own:
            raise DataError(f"sunnybrook: {path} and {own[key]} are contours of one image: keep one of them")
        own[key] = path
    if not found:
        raise DataError(
            f"sunnybrook: no contours under {root} (IM-0001-0048-icontour-manual.txt and the like): unpack the "
            "challenge's contours and images there, or name the folder with dataset.root=..."
        )
    return found


def _images(root: Path) -> dict[str, Images]:
    found: dict[str, Images] = {}
    for path in sorted(root.rglob("IM-*.dcm")):
        match, patient = _IMAGE.fullmatch(path.name), _patient_of(path, root)
        if match is not None and patient is not None:
            found.setdefault(patient, {}).setdefault(int(match[2]), []).append(path)
    return found


def _patient_of(path: Path, root: Path) -> str | None:
    """Return the patient in whose (innermost) folder a file is, without leading zeros in the number."""
    for name in reversed(path.relative_to(root).parts[:-1]):
        if _PATIENT.fullmatch(name):
            return _canonical(name)
    return _canonical(root.name) if _PATIENT.fullmatch(root.name) else None


def _canonical(name: str) -> str:
    match = _PATIENT.fullmatch(name)
    return f"SC-{match[1]}-{match[2]}" if match else name


def _challenge_split(contours: Mapping[str, Contours]) -> dict[Part, list[str]]:
    split: dict[Part, list[str]] = {"train": [], "val": [], "test": []}
    for patient, own in contours.items():
        parts = set()
        for path in own.values():
            named = {PARTS_BY_FOLDER[name] for name in path.parts if name in PARTS_BY_FOLDER}
            if len(named) != 1:
                raise DataError(
                    f"sunnybrook: {path} is in no folder that tells its part: expected is one of "
                    f"{', '.join(PARTS_BY_FOLDER)} above it, or a split of your own"
                )
            parts |= named
        for part in sorted(parts):  # a patient in two parts is rejected as in all other splits
            split[part].append(patient)
    return split


def _patient(
    patient: str,
    contours: Contours,
    images: Images,
    structures: Structures,
    framing: Framing,
    content: "hashlib._Hash",
) -> list[Picture]:
    letters = [_LETTER[structure] for structure in STRUCTURES[structures]]
    numbers = sorted(
        {number for number, _ in contours if all((number, letter) in contours for letter in letters)}
    )
    if not numbers:
        folder = next(iter(contours.values())).parent
        raise DataError(
            f"sunnybrook: {folder}: missing contours: no image of {patient} has "
            f"{' and '.join(f'an {letter!r} contour' for letter in letters)} (dataset.structures={structures})"
        )
    planes, masks, spacings, places = [], [], [], []
    for number in numbers:
        files = [contours[number, letter] for letter in letters]
        path = _image_of(files[0], number, images, {image for image, _ in contours})
        plane, spacing = read_slice(path)
        drawn = np.stack([filled(read_contour(file, *plane.shape), *plane.shape) for file in files])
        _check_nested(files, drawn)
        content.update(
            f"{patient} {number} {spacing} {plane.shape}".encode() + plane.tobytes() + drawn.tobytes()
        )
        planes.append(plane)
        masks.append(drawn)
        spacings.append(spacing)
        places.append(f"{patient} {path.name}")
    pictures = []
    for plane, drawn, spacing, place in zip(
        _normalized(planes, framing), masks, spacings, places, strict=True
    ):
        square, cut, scale = framed(plane, drawn, framing)
        if framing.empty_slices == "keep" or cut.any():
            pictures.append(Picture(square, cut, patient, place, (scale * spacing[0], scale * spacing[1])))
    return pictures


def _normalized(planes: Sequence[NDArray[np.float32]], framing: Framing) -> list[NDArray[np.float32]]:
    """Return a patient's slices, normalized individually or together; their sizes may differ."""
    if framing.normalise != "volume":
        return [normalized(plane[None], framing.normalise)[0] for plane in planes]
    flat = normalized(np.concatenate([plane.ravel() for plane in planes])[None, None], "volume").ravel()
    ends = np.cumsum([plane.size for plane in planes])
    return [part.reshape(plane.shape) for part, plane in zip(np.split(flat, ends[:-1]), planes, strict=True)]


def _image_of(contour: Path, number: int, images: Images, contoured: set[int]) -> Path:
    """Return the DICOM file of a contour: from its own series, or from the only one that has all contoured images."""
    candidates = images.get(number, [])
    match = _CONTOUR.fullmatch(contour.name)
    assert match is not None
    series = {path: int(_IMAGE.fullmatch(path.name)[1]) for path in candidates}  # type: ignore[index]
    own = [path for path in candidates if series[path] == int(match[1])]
    if len(own) == 1:
        return own[0]
    complete = [
        path
        for path in candidates
        if all(any(_series(other) == series[path] for other in images.get(image, [])) for image in contoured)
    ]
    if len(complete) == 1:
        return complete[0]
    if candidates:
        raise DataError(
            f"sunnybrook: {contour} may belong to {' or '.join(str(path) for path in candidates[:3])}: keep only the "
            "short-axis series in the patient's folder"
        )
    raise DataError(
        f"sunnybrook: {contour} has no image: no IM-*-{number:04d}.dcm in a folder of that patient"
    )


def _series(path: Path) -> int:
    match = _IMAGE.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def _check_nested(files: Sequence[Path], drawn: NDArray[np.bool_]) -> None:
    for file, mask in zip(files, drawn, strict=True):
        if not mask.any():
            raise DataError(f"{file}: the contour encloses no pixel center")
    if len(files) == 2 and not (drawn[0] & drawn[1]).any():
        raise DataError(
            f"{files[0]} and {files[1].name} do not overlap: a cavity must be inside its epicardial contour"
        )
