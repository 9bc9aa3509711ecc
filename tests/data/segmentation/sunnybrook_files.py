"""A small Sunnybrook challenge on disk: DICOM files and contour files in its own folders."""

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

CONTOURS = {
    "train": "Sunnybrook Cardiac MR Database ContoursPart3/TrainingDataContours",
    "val": "Sunnybrook Cardiac MR Database ContoursPart2/ValidationDataContours",
    "test": "Sunnybrook Cardiac MR Database ContoursPart1/OnlineDataContours",
}
IMAGES = {
    "train": "challenge_training",
    "val": "challenge_validation",
    "test": "challenge_online/challenge_online",
}
#: Part, patient as the contours spell it, as the images do, series of its images.
PATIENTS = (
    ("train", "SC-HF-I-01", "SC-HF-I-1", 4),
    ("train", "SC-N-40", "SC-N-40", 944),
    ("val", "SC-HYP-06", "SC-HYP-6", 1),
    ("test", "SC-HF-NI-11", "SC-HF-NI-11", 12),
)
HEIGHT, WIDTH = 48, 40


def write_dicom(path, pixels, spacing=(1.5, 1.25), **attributes):
    """A gray MR image, 16 bits, explicit little endian."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = (
        meta.MediaStorageSOPClassUID,
        meta.MediaStorageSOPInstanceUID,
    )
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    if pixels.ndim == 3:
        dataset.NumberOfFrames = len(pixels)
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    if spacing is not None:
        dataset.PixelSpacing = list(spacing)
    for name, value in attributes.items():
        setattr(dataset, name, value)
    dataset.PixelData = pixels.astype("<u2").tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, dataset)
    return path


def circle(radius, x=19.3, y=23.7, points=90):
    angles = np.arange(points) * (2 * np.pi / points)
    return np.column_stack((x + radius * np.cos(angles), y + radius * np.sin(angles)))


def write_contour(folder, number, letter, points):
    path = folder / "contours-manual" / "IRCCI-expert" / f"IM-0001-{number:04d}-{letter}contour-manual.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{x:.2f} {y:.2f} \r\n" for x, y in points))
    return path


def pixels(seed):
    return np.random.default_rng(seed).integers(0, 4000, (HEIGHT, WIDTH))


def write_challenge(root):
    """Each patient: images 20, 40, 60; 'i' contours on 20 and 40, 'o' on 20 alone."""
    for part, contoured, imaged, series in PATIENTS:
        for number in (20, 40, 60):
            write_dicom(
                root / IMAGES[part] / imaged / f"IM-{series:04d}-{number:04d}.dcm", pixels(series + number)
            )
        folder = root / CONTOURS[part] / contoured
        write_contour(folder, 20, "i", circle(6.2))
        write_contour(folder, 20, "o", circle(9.4))
        write_contour(folder, 40, "i", circle(4.1))
